"""What befalls a run from outside: signals, a system without memory, launchers, other operating systems."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.run.test_runner import printed, start, wait_for
from zoo.run import memory
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
DOCTOR = "sys.argv = ['zoo', 'doctor']; from zoo.cli import main; main()"
BENCH = """
from zoo.run.execute import execute
from zoo.run.request import BenchRequest, plan
(job,) = plan(BenchRequest.parse("toy", "toytask", protocol="smoke"))
record = execute(job).record
assert record.status == "ok" and record.peak_memory_bytes > 0, record.error
"""


@pytest.mark.parametrize("code", [DOCTOR, BENCH], ids=["doctor", "bench"])
def test_without_what_only_unix_has(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_UNIX + code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_batch_that_cannot_fit_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10_000)
    assert run(tmp_path).record.status == "ok"
    assert "for 8 examples at once" in capsys.readouterr().err
