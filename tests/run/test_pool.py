"""Several runs at once: each is one record, whatever befalls the others, and a sweep that was killed goes on."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import psutil
import pytest
from rich.console import Console

from tests.conftest import ROOT
from zoo import bench
from zoo.run import pool
from zoo.run.display import Display
from zoo.run.request import BenchRequest, plan
from zoo.run.rundir import RunDir
from zoo.spec.errors import UserError
from zoo.spec.record import Record, comparable
from zoo.spec.store import StoredRecord, read_all

pytestmark = [pytest.mark.usefixtures("toys"), pytest.mark.processes]


def run(tmp_path: Path, arch: str = "toy", **options: Any) -> list[StoredRecord]:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    return bench(arch, "toytask", **({"protocol": "smoke"} | folders | options))


def test_runs_at_once_are_those_one_after_another_in_the_order_of_the_plan(tmp_path: Path) -> None:
    at_once = run(tmp_path / "a", seeds=3, jobs=3)
    in_turn = run(tmp_path / "b", seeds=3, jobs=1)
    assert [record.seed for _, record in at_once] == [0, 1, 2]
    assert [comparable(record) for _, record in at_once] == [comparable(record) for _, record in in_turn]
    assert {record.hardware["threads"] for _, record in at_once} == {1}


@pytest.mark.parametrize(("fault", "meaning", "at"), [("SIGKILL", "Killed", 0), ("SIGSEGV", "Segmentation fault", 3)])
def test_a_run_that_a_signal_ends_is_one_record_that_names_the_signal(
    tmp_path: Path, fault: str, meaning: str, at: int
) -> None:
    (stored,) = run(tmp_path, overrides={"arch.fault": fault, "arch.fault_at": at})
    assert stored.record.status == "failed"
    assert f"ended by {fault} ({meaning})" in stored.record.error
    assert (stored.record.parameters > 0) == (at > 0)


def test_a_run_that_the_system_kills_for_memory_is_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter(range(100))
    monkeypatch.setattr(pool, "count_oom_kills", lambda: next(counts))
    (stored,) = run(tmp_path, overrides={"arch.fault": "SIGKILL"})
    assert stored.record.status == "out-of-memory"
    assert stored.record.error.endswith("memory ran out; train.micro_batch_size=4 computes the same with less")


def test_one_run_that_cannot_be_executed_costs_no_other(tmp_path: Path) -> None:
    folders = {"results": str(tmp_path / "results"), "runs": str(tmp_path / "runs")}
    jobs = plan(BenchRequest.parse("toy", "toytask", protocol="smoke", seeds=3, **folders))
    came: list[Record] = []
    with (
        filelock.FileLock(RunDir(jobs[1]).path / "lock"),
        pytest.raises(UserError, match=r"seed 1.* is being run by another process"),
    ):
        run(tmp_path, seeds=3, on_record=lambda stored: came.append(stored.record))
    assert sorted(record.seed for record in came) == [0, 2]
    assert {record.status for record in came} == {"ok"}


def test_no_more_runs_begin_than_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "available_bytes", lambda: 2**29)
    most = 0
    show = Display.show

    def watched(self: Display, *args: Any) -> None:
        nonlocal most
        most = max(most, len(self.runs))
        show(self, *args)

    monkeypatch.setattr(Display, "show", watched)
    assert len(run(tmp_path, seeds=3, jobs=3)) == 3
    assert most == 1
    assert capfd.readouterr().err.count("zoo: 1 of 3 jobs at once: a run needs 1.0 GiB and ") == 1


@pytest.mark.interpreter
def test_ctrl_c_while_a_worker_imports_is_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with pool.Pool() as workers:
        server = workers.start({"call": "tests.run.toys_called:report_and_wait", "arguments": {"seconds": 0}}).process
        for _ in range(10):  # while Python starts, and imports
            server.send_signal(signal.SIGINT)
            time.sleep(0.05)
    assert capfd.readouterr().err == ""


def test_when_what_starts_the_runs_is_killed_the_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_SLOW", "0.1")
    add = Display.add

    def killing(self: Display, key: int, name: str) -> None:
        if key == 1:
            psutil.Process().children()[-1].kill()
        add(self, key, name)

    with monkeypatch.context() as patched:
        patched.setattr(Display, "add", killing)
        records = [record for _, record in run(tmp_path, seeds=2, jobs=1)]
    assert [record.status for record in records] == ["ok", "failed"]
    assert "SIGKILL" in records[1].error
    assert [record.status for _, record in run(tmp_path, seeds=2, jobs=1)] == ["ok", "ok"]


def test_a_sweep_killed_again_and_again_ends_with_the_records_of_an_undisturbed_one(tmp_path: Path) -> None:
    options = ["--arch", "toy", "--task", "toytask,toyrecall", "--seeds", "2", "--jobs", "2", "--protocol", "smoke"]
    options += ["--set=train.max_samples=128", "--set=train.val_every=32"]  # four intervals of four steps

    def start(where: Path) -> subprocess.Popen[bytes]:
        folders = ["--results", str(where / "results"), "--runs", str(where / "runs")]
        environment = os.environ | {"TOY_SLOW": "0.1"}
        command = [sys.executable, "-m", "zoo", "bench", *options, *folders]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )

    undisturbed = start(tmp_path / "undisturbed")
    assert undisturbed.wait() == 0
    moments = random.Random(0)
    for _ in range(2):
        begun = set((tmp_path / "killed").rglob("last.ckpt"))
        process = start(tmp_path / "killed")
        while process.poll() is None and set((tmp_path / "killed").rglob("last.ckpt")) <= begun:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.3))
        assert process.poll() is None, "the sweep ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    last = start(tmp_path / "killed")
    assert last.wait() == 0

    def records(where: Path) -> dict[str, Any]:
        stored, problems = read_all(where / "results")
        assert not problems
        return {path: comparable(record) for path, record in stored}

    assert len(records(tmp_path / "killed")) == 4
    assert records(tmp_path / "killed") == records(tmp_path / "undisturbed")


@pytest.mark.parametrize("columns", [60, 71, 72, 80, 99, 100, 140])
@pytest.mark.parametrize(
    "title", ["s4 on mqar (smoke, seed 0)", "transformer_xl on lambada_standard (paper, seed 123456)"]
)
def test_the_line_of_a_run_shows_count_and_time_left(columns: int, title: str) -> None:
    display = Display(1, Console(file=io.StringIO(), force_terminal=True, width=columns))
    display.add(0, title)
    event = {"samples": 1_600_000, "total": 3_200_000, "seconds": 1000.0, "rate": 1600.0, "loss": 2.345}
    display.show(0, "", [event, {"val": "1.463e+12", "val_line": ""}])
    out = io.StringIO()
    Console(file=out, width=columns).print(display.progress.get_renderable())
    line = out.getvalue().rstrip("\n")
    assert len(line) <= columns
    assert "1600000/3200000" in line
    assert "loss 2.345 val 1.463e+12" in line
    assert line.rstrip().endswith("left 0:16:40")
    assert line.startswith(title[:3])


def test_a_line_for_all_runs_counts_what_ended_and_how_and_what_is_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    display = Display(10, console)
    for key, status in enumerate(["ok", "failed", "ok"]):
        display.add(key, "run")
        with display.remove(key, status):
            pass
    display.add(3, "s4 on mqar")
    display.began -= 300
    with display.remove(3, "out-of-memory"):
        pass
    out = io.StringIO()
    Console(file=out, width=100).print(display.progress.get_renderable())
    assert re.search(r"^0 running, 2 ok, 1 failed, 1 out-of-memory .* 4/10 .* left 0:07:30", out.getvalue().strip())
