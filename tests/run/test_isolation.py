"""What befalls a run from outside: signals, a system without memory, launchers, other operating systems."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import ROOT
from tests.run.conftest import resolve_one
from tests.run.test_runner import printed, start, wait_for
from zoo.run import machine, memory
from zoo.run.execute import execute
from zoo.run.request import BenchRequest, plan
from zoo.spec.errors import UserError
from zoo.spec.store import StoredRecord

pytestmark = pytest.mark.usefixtures("toys")


def run(tmp_path: Path, **overrides: object) -> StoredRecord:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    dotted = {name.replace("_", ".", 1): value for name, value in overrides.items()}
    (job,) = plan(BenchRequest.parse("toy", "toytask", protocol="smoke", overrides=dotted, **folders))
    return execute(job)


@pytest.mark.parametrize(
    ("name", "to_all"), [("SIGTERM", False), ("SIGINT", False), ("SIGTERM", True)], ids=["TERM", "INT", "TERM to all"]
)
def test_a_signal_to_a_sweep_is_a_record_and_leaves_no_orphan(tmp_path: Path, name: str, to_all: bool) -> None:
    process = start(tmp_path, "--seeds", "2", "--jobs", "1", slow=0.3)
    wait_for(tmp_path / "runs", process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    number = getattr(signal, name)
    for each in (*children, process) if to_all else (process,):
        each.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    record = printed(out)
    assert (record.status, record.seed) == ("interrupted", 0)
    assert record.error.startswith(name)
    assert not any(child.is_running() for child in children)


def test_a_run_alone_that_is_killed_is_a_record_that_names_signal_and_remedy(tmp_path: Path) -> None:
    process = start(tmp_path, slow=0.3)
    wait_for(tmp_path / "runs", process)
    *_, child = psutil.Process(process.pid).children(recursive=True)
    child.kill()
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    (record,) = json.loads(out)
    assert record["status"] == "failed"
    assert "ended by SIGKILL" in record["error"]
    assert "train.micro_batch_size=4" in record["error"]


LAUNCHED = {
    "slurm": {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
    "slurm, second task": {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_NODEID": "0"},
    "torchrun": {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0"},
    "mpi": {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
    "lsf": {"LSB_JOBID": "1", "LSB_DJOB_NUMPROC": "2", "JSM_NAMESPACE_RANK": "1", "LSB_DJOB_RANKFILE": "/nowhere"},
}


@pytest.mark.parametrize("launcher", LAUNCHED)
def test_one_device_under_a_launcher_of_several_processes_is_one_run_with_a_notice(
    tmp_path: Path, launcher: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in LAUNCHED[launcher].items():
        monkeypatch.setenv(name, value)
    assert run(tmp_path).record.status == "ok"
    assert "but train.devices=1" in capsys.readouterr().err


@pytest.mark.parametrize("launcher", ["torchrun", "slurm, second task"])
def test_ddp_on_one_device_is_one_run_whatever_its_rank(
    tmp_path: Path, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (LAUNCHED[launcher] | {"MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    assert run(tmp_path, train_strategy="ddp", train_accelerator="cpu").record.status == "ok"


def test_fsdp_without_a_gpu_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.strategy.*: 'fsdp' on 1 x 1 cpu") as refusal:
        run(tmp_path, train_strategy="fsdp", train_accelerator="cpu")
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "results").rglob("*.json"))


def test_devices_of_a_slurm_job_of_another_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (LAUNCHED["slurm"] | {"SLURM_NTASKS": "3"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"train.strategy.* on 2 x 1 cpu"):
        run(tmp_path, train_devices=2, train_accelerator="cpu")


MISFITS = {
    "torchrun of one": ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, 2, 1),
    "world of one": ({"RANK": "0", "WORLD_SIZE": "1"}, 2, 1),
    "local rank of one": ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, 2, 1),
    "rank alone": ({"RANK": "1"}, 2, 1),
    "world without local ranks": ({"RANK": "1", "WORLD_SIZE": "2"}, 2, 1),
    "nodes without a launcher": ({}, 1, 2),
    "nodes of which nobody knows the first": ({"NODE_RANK": "1"}, 1, 2),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_processes_that_would_wait_for_others_are_refused_in_one_line(
    tmp_path: Path, misfit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, devices, nodes = MISFITS[misfit]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"train.strategy.* on {devices} x {nodes} cpu: ") as refusal:
        run(tmp_path, train_strategy="ddp", train_devices=devices, train_num_nodes=nodes, train_accelerator="cpu")
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "results").rglob("*.json"))


WITHOUT_UNIX = """
import os, signal, sys
import psutil  # of Linux, which needs them
from lightning.pytorch.trainer.connectors import signal_connector
signal_connector._IS_WINDOWS = True
signal_connector._SignalConnector._valid_signals = staticmethod(lambda: {signal.SIGINT, signal.SIGTERM})
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
for module, names in ((signal, ("SIGKILL",)), (os, ("sysconf", "sched_getaffinity", "getuid"))):
    for name in names:
        delattr(module, name)
"""
BENCH_AND_DOCTOR = """
from zoo.run.execute import execute
from zoo.run.request import BenchRequest, plan
(job,) = plan(BenchRequest.parse("toy", "toytask", protocol="smoke"))
record = execute(job).record
assert record.status == "ok" and record.peak_memory_bytes > 0, record.error
sys.argv = ["zoo", "doctor"]
from zoo.cli import main
main()
"""


def test_without_what_only_unix_has() -> None:
    code = WITHOUT_UNIX + BENCH_AND_DOCTOR
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "seqzoo" in done.stdout


def test_a_batch_that_cannot_fit_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10_000)
    assert run(tmp_path).record.status == "ok"
    assert "for 8 examples at once" in capsys.readouterr().err


class Counted(nn.Module):
    """Keeps, of each example, 4 numbers and a layer of 6 for backward: 40 bytes. Its parameters have 44 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, batch: Any) -> Tensor:
        assert self.training
        self.calls += 1
        return self.second(torch.tanh(self.first(torch.rand(len(batch.inputs), 4))))


def test_an_estimate_counts_what_backward_needs_and_changes_nothing() -> None:
    model = Counted().eval()
    torch.manual_seed(0)
    assert memory.saved_bytes(resolve_one("toy", "toytask"), model) == 40
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert not model.training
    assert model.calls == 0
    assert memory.saved_bytes(resolve_one("toy", "toytask"), nn.Linear(1, 1)) == 0  # it cannot read a batch


@pytest.mark.parametrize(
    ("settings", "device", "needed"),
    [
        ({}, "cuda", 8 * 40 + 4 * 176),
        ({"train.accelerator": "cpu"}, "cpu", 8 * 40 + 4 * 176),
        ({"train.micro_batch_size": 2}, "cuda", 2 * 40 + 4 * 176),
        ({"train.precision": "64-true"}, "cuda", 8 * 80 + 4 * 176),
        ({"train.precision": "16-mixed"}, "cuda", 8 * 20 + 4 * 176),
        ({"train.precision": "bf16-mixed"}, "cuda", 8 * 20 + 4 * 176),
    ],
)
def test_a_run_is_warned_of_where_the_device_has_less_than_it_needs(
    settings: dict[str, Any],
    device: str,
    needed: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment = resolve_one("toy", "toytask", overrides=settings)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for there, warned in ((needed, False), (needed - 1, True)):
        monkeypatch.setattr(memory, "available_bytes", {device: there}.__getitem__)
        micro, example = settings.get("train.micro_batch_size", 8), memory.saved_bytes(experiment, Counted())
        assert memory.warn_of_memory(experiment, Counted(), micro, example) == needed
        assert bool(capsys.readouterr().err) == warned
    monkeypatch.setattr(memory, "saved_bytes", lambda experiment, model, examples: examples * 3 << 30)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 3 << 29)
    if not settings:
        monkeypatch.setattr(memory, "saved_bytes", lambda experiment, model, examples: examples * (3 << 30))
        memory.warn_of_memory(experiment, Counted(), 8, 3 << 30)
        assert capsys.readouterr().err == (
            "zoo: toy on toytask (quick, seed 0) needs more than 24.0 GiB for 8 examples at once, "
            "and 1.5 GiB are free; train.micro_batch_size=4 computes the same with less\n"
        )


@pytest.mark.parametrize("limit", machine.CGROUPS, ids=["version 2", "version 1"])
def test_free_memory_is_the_least_of_machine_control_group_and_process(
    limit: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    monkeypatch.setattr(machine, "Path", {"/sys/fs/cgroup": tmp_path}.__getitem__)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1_000))
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(vms=50)))
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_AS: space}.__getitem__)
    assert machine.available_bytes() == 1_000
    files = [tmp_path / name for name in limit]
    for file, text in zip(files, ("max", "300"), strict=True):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert machine.available_bytes() == 1_000
    files[0].write_text("900\n")
    assert machine.available_bytes() == 600
    space[0] = 450
    assert machine.available_bytes() == 400
    space[0] = 49
    assert machine.available_bytes() == 0
    assert memory.available_bytes("cpu") == 0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (7, 9))
    assert memory.available_bytes("cuda") == 7
