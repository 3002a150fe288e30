"""Execute jobs in worker processes, several at once. Imports no torch.

Every job has a process of its own (zoo/run/worker.py): peak memory is the run's own, and a run that crashes, or that
the system kills for memory, is one record. Signals are passed on to all runs and waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from zoo.run.compose import Job
from zoo.run.display import Display
from zoo.run.machine import available_bytes, count_cores, count_oom_kills, has_gpu
from zoo.run.signals import handlers, held_back
from zoo.run.worker import CAN_FORK, POLL
from zoo.spec.errors import UserError, ZooError
from zoo.spec.store import StoredRecord, read

COMMAND = (sys.executable, "-m", "zoo.run.worker")
SMALLEST = 2**30
"""Bytes that a run is expected to need until one has said how much it needs."""
INTERPRETER = 400 * 2**20
"""Bytes of a process beside the model's."""


def execute_all(
    jobs: Sequence[Job], n_jobs: int | None = None, on_record: Callable[[StoredRecord], None] | None = None
) -> list[StoredRecord]:
    """Execute jobs, `n_jobs` at once as memory allows, and return their records in the order of the jobs.

    n_jobs     None = as many as there are cores for their threads; one on a GPU
    on_record  called with each record as it comes

    After a SIGINT or SIGTERM no further job is begun. Raises UserError at the end, for jobs that could not be executed
    by the user's mistake, ZooError for those whose record was not accepted, and SystemExit when a signal came before
    there was anything to record.
    """
    records: dict[int, StoredRecord] = {}
    mistakes: list[ZooError] = []
    waiting, running = deque(range(len(jobs))), dict[int, Worker]()
    memory, stop = _Memory(), _Stop()
    with Pool() as pool, handlers(stop.on_signal), Display(len(jobs)) as display:
        n_jobs = n_jobs or _default_jobs(jobs)
        while running or (waiting and stop.received is None):
            while waiting and stop.received is None and memory.has_room(running, n_jobs, display):
                k = waiting.popleft()
                running[k] = pool.start({"job": asdict(jobs[k])})
                display.add(k, jobs[k].experiment.name)
            for k, worker in list(running.items()):
                if stop.received is not None:
                    worker.stop(stop.received)
                ended = worker.poll()
                display.show(k, worker.read_output(), worker.read_events())
                if not ended:
                    continue
                del running[k]
                stored, mistake = _outcome(pool, worker, jobs[k], stop.received)
                mistakes += [mistake] if mistake else []
                with display.remove(k, stored.record.status if stored else "refused"):
                    if stored is not None:
                        records[k] = stored
                        memory.learn(stored)
                        if on_record is not None:
                            on_record(stored)
            time.sleep(POLL)
    if stop.received is not None and not any(r.record.status == "interrupted" for r in records.values()):
        print(f"zoo: {stop.received.name} before training began; there is nothing to record", file=sys.stderr)
        raise SystemExit(128 + stop.received)
    if mistakes:
        failed = any(not isinstance(each, UserError) for each in mistakes)
        raise (ZooError if failed else UserError)("\n".join(dict.fromkeys(map(str, mistakes))))
    return [records[k] for k in sorted(records)]


def _default_jobs(jobs: Sequence[Job]) -> int:
    """As many runs as there are cores for their threads; one where a GPU may be used."""
    trains = [job.experiment.train for job in jobs]
    if any(train.accelerator != "cpu" for train in trains) and has_gpu():
        return 1
    return max(1, count_cores() // max((train.num_threads * train.devices for train in trains), default=1))


def _outcome(
    pool: Pool, worker: Worker, job: Job, stopped_by: signal.Signals | None
) -> tuple[StoredRecord | None, ZooError | None]:
    """The record of a job whose process has ended, or why there is none: the user's mistake, or ours. Neither, where a
    signal came before there was anything to record, and in a further process of a distributed run, whose first one
    writes the record."""
    reply = worker.reply()
    if reply is None and (stopped_by is not None or worker.code == 0):
        return None, None
    if reply is None:
        lost = _describe_loss(worker)
        reply = _record_lost(pool, job, lost | {"build": True}) or _record_lost(pool, job, lost | {"build": False})
        if reply is None:
            raise ZooError(f"{job.experiment.name}: {lost['error']}; its record could not be written either")
    if "record" not in reply:
        return None, UserError(reply["error"]) if "error" in reply else ZooError(reply["failure"])
    record = read(Path(reply["record"]))
    if isinstance(record, str):
        raise ZooError(f"{reply['record']}: {record}")
    return StoredRecord(reply["record"], record), None


class Answer(NamedTuple):
    """What came of a function that was called in a process of its own.

    value     what it returned; None where it did not return
    error     why not; "" where it did
    mistake   whether that was the user's mistake
    reported  the last value of each name that it reported
    seconds   since its last report, where it was stopped
    """

    value: Any
    error: str = ""
    mistake: bool = False
    reported: Mapping[str, Any] = {}
    seconds: float = 0.0


def call(pool: Pool, function: str, arguments: Mapping[str, Any], seconds: float | None = None) -> Answer:
    """Call `function`, "package.module:name", with (report, **arguments) in a process of its own, for at most `seconds`
    (None: as long as it takes). Arguments and value are plain JSON values."""
    worker = pool.start({"call": function, "arguments": arguments})
    began = reported_at = time.monotonic()
    reported: dict[str, Any] = {}
    while True:
        ended = worker.poll()
        for event in worker.read_events():
            reported |= event
            reported_at = time.monotonic()
        print(worker.read_output(), end="", file=sys.stderr)
        if ended:
            break
        if seconds is not None and time.monotonic() > began + seconds:
            worker.stop(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
            return Answer(None, f"not done after {seconds:.0f} s", False, reported, time.monotonic() - reported_at)
        time.sleep(POLL)
    reply = worker.reply() or {"failure": _describe_loss(worker)["error"]}
    if "value" in reply:
        return Answer(reply["value"], reported=reported)
    return Answer(None, reply.get("error") or reply["failure"], "error" in reply, reported)


def _record_lost(pool: Pool, job: Job, lost: Mapping[str, Any]) -> dict[str, Any] | None:
    recorder = pool.start({"job": asdict(job), "lost": lost})
    while not recorder.poll():
        time.sleep(POLL)
    return recorder.reply()


def _describe_loss(worker: Worker) -> dict[str, Any]:
    """Status and error of a run whose process vanished without a record."""
    code = worker.code
    assert code is not None
    if code >= 0:
        return {"status": "failed", "error": f"the process ended with status {code} and wrote no record"}
    name, meaning = f"signal {-code}", None
    with contextlib.suppress(ValueError):
        name, meaning = signal.Signals(-code).name, signal.strsignal(-code)
    error = f"the process was ended by {name}" + (f" ({meaning})" if meaning else "")
    if name != "SIGKILL":
        return {"status": "failed", "error": error}
    if worker.lost_to_memory():
        return {"status": "out-of-memory", "error": f"{error}: memory ran out", "memory": True}
    return {"status": "failed", "error": f"{error}; somebody sent it, or memory ran out", "memory": True}


class _Memory:
    """How much memory runs need, as far as they have said, so that no more are begun than fit."""

    def __init__(self) -> None:
        self.expected = SMALLEST
        self.announced = False

    def learn(self, stored: StoredRecord) -> None:
        """Expect of the next run what the largest has needed."""
        if not stored.record.hardware.get("gpus"):
            self.expected = max(self.expected, stored.record.peak_memory_bytes or 0)

    def has_room(self, running: Mapping[int, Worker], n_jobs: int, display: Display) -> bool:
        """Whether another run may begin beside these. The first always may, further ones once all have said how much
        memory they need."""
        if not running:
            return True
        needs = [worker.needs for worker in running.values()]
        if len(running) >= n_jobs or any(each is None for each in needs):
            return False
        self.expected = max([self.expected, *(each for each in needs if each is not None)])
        still_to_come = sum(max(0, (w.needs or 0) - w.resident_bytes()) for w in running.values())
        free = available_bytes() - still_to_come
        if free < self.expected and not self.announced:
            self.announced = True
            each, left = self.expected / 2**30, max(free, 0) / 2**30
            display.say(
                f"zoo: {len(running)} of {n_jobs} jobs at once: a run needs {each:.1f} GiB and {left:.1f} are left"
            )
        return free >= self.expected


class _Stop:
    """The first signal to this process."""

    received: signal.Signals | None = None

    def on_signal(self, number: int, frame: Any) -> None:
        self.received = self.received or signal.Signals(number)


class Pool:
    """Starts worker processes: forks of one server that has imported torch, where that is possible."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="zoo-", ignore_cleanup_errors=True)
        self._count = 0
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        self._folder.cleanup()

    def start(self, request: Mapping[str, Any]) -> Worker:
        """Start a process that executes a request."""
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        (folder / "request.json").write_text(json.dumps(request), "utf-8")
        if not CAN_FORK:
            with held_back():
                process = subprocess.Popen([*COMMAND, str(folder)], stdin=subprocess.DEVNULL)
            return Worker(folder, process, forked=False)
        if self._server is None or self._server.poll() is not None:
            with held_back():
                self._server = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self._server.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, as the worker's poll will see
            self._server.stdin.write(json.dumps(str(folder)).encode() + b"\n")
            self._server.stdin.flush()
        return Worker(folder, self._server, forked=True)


class Worker:
    """A process that executes a request.

    process  the process itself, or the server that forks it
    needs    bytes that the run has said it needs; None before
    code     its exit code; None while it runs
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], *, forked: bool) -> None:
        self.folder, self.process, self.forked = folder, process, forked
        self.needs: int | None = None
        self.code: int | None = None
        self._stopped = False
        self._read_so_far = {"output.txt": 0, "events.jsonl": 0}
        self._oom_kills = count_oom_kills()

    @property
    def pid(self) -> int | None:
        """The process; None before it was forked."""
        return self._number("pid") if self.forked else self.process.pid

    def poll(self) -> bool:
        """Whether it has ended."""
        if self.code is None:
            self.code = self._number("code") if self.forked else self.process.poll()
        if self.code is None and self.forked and self.process.poll() is not None:
            code = self._number("code")  # once more, for what the server wrote last
            self.code = self.process.returncode if code is None else code
        return self.code is not None

    def stop(self, number: signal.Signals) -> None:
        """Pass a signal on, once; a process that has not begun never will."""
        if self._stopped or self.code is not None:
            return
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "request.json").rename(self.folder / "withdrawn.json")
            self.code = 0
        if self.pid is not None:
            self._stopped = True
            # ValueError: Windows cannot send Ctrl-C to one process, and has sent it to all of the console's
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(self.pid, number)

    def reply(self) -> dict[str, Any] | None:
        """Its reply; None where it left none."""
        file = self.folder / "reply.json"
        return json.loads(file.read_text("utf-8")) if file.exists() else None

    def read_output(self) -> str:
        """What it has printed since the last call, in whole lines while it runs."""
        return self._read_on("output.txt")

    def read_events(self) -> list[dict[str, Any]]:
        """What the run has reported since the last call."""
        events = [json.loads(line) for line in self._read_on("events.jsonl").splitlines()]
        for event in events:
            if "memory" in event:
                self.needs = event["memory"] + INTERPRETER
        return events

    def resident_bytes(self) -> int:
        """Memory that it takes now."""
        try:
            return psutil.Process(self.pid).memory_info().rss if self.pid is not None else 0
        except psutil.Error:
            return 0

    def lost_to_memory(self) -> bool:
        """Whether the system has killed a process for want of memory since this one began."""
        return count_oom_kills() > self._oom_kills

    def _number(self, name: str) -> int | None:
        """The number in a file that the server writes; None before it is whole."""
        try:
            text = (self.folder / name).read_text("utf-8")
        except FileNotFoundError:
            return None
        return int(text) if text.endswith("\n") else None

    def _read_on(self, name: str) -> str:
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(self._read_so_far[name])
                new = file.read()
        except FileNotFoundError:
            return ""
        if self.code is None:
            new = new[: new.rfind(b"\n") + 1]
        self._read_so_far[name] += len(new)
        return new.decode("utf-8", "replace")
