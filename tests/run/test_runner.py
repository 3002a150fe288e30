"""A run from configuration to record: every ending, exact resumption, honest numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from zoo import bench
from zoo.run.callbacks import Deadline, Reporter, TimeLimit
from zoo.run.execute import execute
from zoo.run.request import BenchRequest, plan
from zoo.spec.errors import UserError
from zoo.spec.record import Record, comparable
from zoo.spec.store import StoredRecord, read

pytestmark = pytest.mark.usefixtures("toys")


def stored(tmp_path: Path, **kwargs: Any) -> StoredRecord:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    return bench("toy", "toytask", **(folders | kwargs))[0]


def one(tmp_path: Path, **kwargs: Any) -> Record:
    return stored(tmp_path, **kwargs).record


def test_a_run_ends_in_a_valid_record(tmp_path: Path) -> None:
    path, record = stored(tmp_path)
    assert read(Path(path)) == record
    assert record.status == "ok"
    assert record.samples == 256
    assert record.metrics is not None
    assert record.metrics.test.n == 40
    assert [p.samples for p in record.history if p.split == "val"] == [64, 128, 192, 256]
    best = max(p.metric for p in record.history if p.split == "val" and p.metric is not None)
    assert record.metrics.val.scores["accuracy"] == best
    assert record.baselines.majority is not None
    assert 0 < record.baselines.majority < 1
    assert record.tokens > record.samples * 3
    assert record.flops is not None
    assert record.flops > 0


def test_two_runs_of_one_command_give_the_same_numbers(tmp_path: Path) -> None:
    first = one(tmp_path / "a", protocol="smoke")
    second = one(tmp_path / "b", protocol="smoke")
    assert comparable(first) == comparable(second)
    third = one(tmp_path / "c", protocol="smoke", seeds=[1])
    assert third.history[0].loss != first.history[0].loss


def test_a_finished_run_is_not_repeated_unless_forced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = stored(tmp_path, protocol="smoke")
    again = stored(tmp_path, protocol="smoke")
    assert Path(again.path).samefile(first.path)
    assert "done already" in capfd.readouterr().err
    forced = stored(tmp_path, protocol="smoke", force=True)
    assert not Path(forced.path).samefile(first.path)
    assert comparable(forced.record) == comparable(first.record)
    assert Path(first.path).exists()


def test_a_finished_run_is_found_without_torch(tmp_path: Path) -> None:
    first = stored(tmp_path, protocol="smoke")
    folders = f"results={str(tmp_path / 'results')!r}, runs={str(tmp_path / 'runs')!r}"
    code = f"import sys, zoo; print(zoo.bench('toy', 'toytask', protocol='smoke', {folders})[0].path)"
    code += "; assert not {'torch', 'lightning', 'altair'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).samefile(first.path)


def test_two_calls_at_once_make_one_record(tmp_path: Path) -> None:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    job = plan(BenchRequest.parse("toy", "toytask", protocol="smoke", **folders))[0]
    first = execute(job)
    # as the second call goes on once it has the lock: it had looked for a record before there was one
    assert Path(execute(job).path).samefile(first.path)
    assert len(list((tmp_path / "results").rglob("*.json"))) == 1


def test_a_record_that_came_from_elsewhere_does_not_replace_the_run(tmp_path: Path) -> None:
    first = stored(tmp_path, protocol="smoke")
    here = stored(tmp_path, protocol="smoke", runs=tmp_path / "other runs")
    assert not Path(here.path).samefile(first.path)
    elsewhere = stored(tmp_path, protocol="smoke", results=tmp_path / "other results")
    assert (tmp_path / "other results") in Path(elsewhere.path).parents


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        ("nan", "diverged", "the loss was not finite at step 1"),
        ("oom", "out-of-memory", "can't allocate memory"),
        ("raise", "failed", "planted fault"),
        # weights that became NaN in an interval's last step: seen only by validation
        ("val-nan", "diverged", "validation loss became nan"),
    ],
)
def test_bad_endings_are_records_too(tmp_path: Path, fault: str, status: str, says: str) -> None:
    record = one(tmp_path, protocol="smoke", overrides={"arch.fault": fault})
    assert record.status == status
    assert says in record.error
    assert record.metrics is None
    assert record.overrides == {"arch.fault": fault}


@pytest.mark.parametrize(("fault", "status"), [("oom", "out-of-memory"), ("raise", "failed")])
def test_a_model_that_cannot_be_built_is_a_record_and_not_the_end_of_a_sweep(
    tmp_path: Path, fault: str, status: str
) -> None:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    overrides = {"arch.fault": fault, "arch.fault_at": 0}
    for seeds in ([0], [0, 1]):
        records = bench("toy", "toytask", protocol="smoke", overrides=overrides, seeds=seeds, **folders)
        assert [record.status for _, record in records] == [status] * len(seeds)
        for _, record in records:
            assert record.parameters == 0
            assert record.history == ()


@pytest.mark.parametrize("what", ["results", "runs"])
def test_folders_that_cannot_be_written_are_refused_before_anything_is_done(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"--{what} .*file"):
        one(tmp_path, **{what: tmp_path / "file"})
    assert (tmp_path / "file").read_text() == ""
    assert not list(tmp_path.rglob("*.json"))


def test_time_limit_is_a_record_and_the_run_goes_on_from_there(tmp_path: Path) -> None:
    whole = one(tmp_path / "whole", protocol="smoke")
    stopped = one(tmp_path / "cut", protocol="smoke", max_time=0.0)
    assert stopped.status == "timeout"
    assert stopped.metrics is None
    resumed = one(tmp_path / "cut", protocol="smoke")
    assert comparable(resumed) == comparable(whole)


def test_a_deadline_ends_training_validation_and_test_alike_and_none_before_its_time() -> None:
    hooks = ("on_train_batch_start", "on_validation_batch_start", "on_test_batch_start")
    now = time.monotonic()
    for hook in hooks:
        for limit in (Deadline(None, now - 1e6), Deadline(100.0, now - 50.0)):
            getattr(limit, hook)(None)
        with pytest.raises(TimeLimit, match=r"stopped after 100 s \(--max-time\); the same command goes on"):
            getattr(Deadline(100.0, now - 101.0), hook)(None)


def test_reports_of_a_resumed_run_count_from_where_that_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[dict[str, Any]] = []
    now = [100.0]
    monkeypatch.setattr("zoo.run.callbacks.time", SimpleNamespace(monotonic=lambda: now[0]))
    reporter = Reporter(reports.append)
    module: Any = SimpleNamespace(schedule=SimpleNamespace(steps=100, batch_size=32), loss=torch.tensor(2.0))
    reporter.on_train_start(SimpleNamespace(global_step=40), module)
    now[0] += 0.5
    for step in (45, 46):  # the second at once, which is not worth waiting for the device
        reporter.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, 0)
    assert reports == [{"samples": 45 * 32, "total": 100 * 32, "seconds": 0.5, "rate": 5 * 32 / 0.5, "loss": 2.0}]


@pytest.mark.parametrize(
    ("name", "metric", "shown"),
    [("accuracy", 0.51239, "51.24 %"), ("perplexity", 1463.2, "1463"), ("exact_accuracy", 1.0, "100.00 %")],
)
def test_a_report_of_a_validation_tells_samples_seconds_loss_and_score(name: str, metric: float, shown: str) -> None:
    reports: list[dict[str, Any]] = []
    module: Any = SimpleNamespace(val_metric=name)
    module.history = [{"samples": 8, "seconds": 1.0, "loss": 3.0, "metric": 0.0}] * 2
    module.history += [{"samples": 16, "seconds": 12.6, "loss": 0.69314, "metric": metric}]
    Reporter(reports.append).on_validation_end(SimpleNamespace(), module)
    line = f"16 samples, 13 s, val loss 0.6931, val {name.replace('_', ' ')} {shown}"
    assert reports == [{"val": shown, "val_line": line}]


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    whole = one(tmp_path / "a", protocol="smoke", overrides={"arch.dropout": 0.0, "train.precision": "64-true"})
    parts = one(
        tmp_path / "b",
        protocol="smoke",
        overrides={"arch.dropout": 0.0, "train.precision": "64-true", "train.micro_batch_size": 2},
    )
    losses = [[p.loss for p in r.history if p.split == "val"] for r in (whole, parts)]
    # a mean over padded micro-batches is the same mean: the loss is per example, not per token
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_impossible_configurations_touch_no_data_and_leave_no_record(tmp_path: Path) -> None:
    from zoo.spec.errors import ConfigError

    with pytest.raises(ConfigError):
        one(tmp_path, overrides=["model.d_model=7"])
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "data").exists()


def start(tmp_path: Path, *more: str, slow: float = 0.0) -> subprocess.Popen[str]:
    args = ["bench", "--arch", "toy", "--task", "toytask", "--results", str(tmp_path / "results"), "--json"]
    args += ["--runs", str(tmp_path / "runs"), *more]
    environment = os.environ | {"ZOO_DATA_DIR": str(tmp_path / "data"), "TOY_SLOW": str(slow)}
    return subprocess.Popen(
        [sys.executable, "-m", "zoo", *args],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # tests that were started in the background inherit a SIGINT that is ignored; a terminal's is not
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def printed(out: str) -> Record:
    """The only record of `zoo bench --json`."""
    (values,) = json.loads(out)
    values.pop("path")
    return Record.model_validate(values)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list(path.rglob("last.ckpt")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_kill_in_the_middle_then_the_same_command_gives_the_unbroken_record(tmp_path: Path) -> None:
    unbroken = one(tmp_path / "unbroken", overrides={"train.max_samples": 128})
    short = ("--set", "train.max_samples=128")  # two intervals of eight steps
    process = start(tmp_path, *short, slow=0.3)
    wait_for(tmp_path / "runs", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((tmp_path / "results").rglob("*.json")) == []
    process = start(tmp_path, *short)
    again, _ = process.communicate()
    assert process.returncode == 0
    assert comparable(printed(again)) == comparable(unbroken)
    notes = list((tmp_path / "runs").rglob("run.json"))
    assert [json.loads(note.read_text())["attempt"] for note in notes] == [2]


@pytest.mark.processes
def test_several_runs_each_have_a_process_and_all_are_recorded(tmp_path: Path) -> None:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    records = [record for _, record in bench("toy", "toytask", protocol="smoke", seeds=2, **folders)]
    assert [record.seed for record in records] == [0, 1]
    alone = one(tmp_path / "alone", protocol="smoke", seeds=[1])
    assert comparable(alone) == comparable(records[1])


def test_checkpoints_load_without_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.run.rundir.RunDir._keep_model", lambda *_: False)  # or the checkpoint would be dropped
    record = one(tmp_path, protocol="smoke")
    best = next((tmp_path / "runs").rglob("best.ckpt"))
    state = torch.load(best, weights_only=True)["state_dict"]
    assert sum(v.numel() for k, v in state.items() if k.startswith("model.")) == record.parameters


@pytest.mark.parametrize("begun", [True, False])
def test_a_full_disk_leaves_a_record_and_no_half_written_checkpoint(
    begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    import lightning.pytorch as pl

    def full(self: pl.Trainer, path: Path, *args: Any, **kwargs: Any) -> None:
        if begun:
            Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(pl.Trainer, "save_checkpoint", full)
        folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
        (job,) = plan(BenchRequest.parse("toy", "toytask", protocol="smoke", **folders))
        record = execute(job).record
    assert record.status == "failed"
    assert "No space left on device" in record.error
    assert not list((tmp_path / "runs").rglob("*.partial"))
    assert not list((tmp_path / "runs").rglob("*.ckpt"))
    assert one(tmp_path, protocol="smoke").status == "ok"


def test_two_devices_are_one_run_and_one_record(tmp_path: Path) -> None:
    """Gradients are averaged over devices: without dropout the losses are those of one device."""
    exact = {"arch.dropout": 0, "train.precision": "64-true", "train.accelerator": "cpu"}
    single = one(tmp_path / "alone", protocol="smoke", overrides=exact)
    settings = exact | {"train.devices": 2, "train.strategy": "ddp"}
    process = start(tmp_path, "--protocol", "smoke", *(f"--set={key}={value}" for key, value in settings.items()))
    out, _ = process.communicate()
    assert process.returncode == 0
    together = printed(out)
    assert together.status == "ok"
    assert len(list((tmp_path / "results").rglob("*.json"))) == 1
    losses = [[p.loss for p in r.history if p.split == "val"] for r in (together, single)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
