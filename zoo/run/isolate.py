"""Execute one job in a process of its own: `python -m zoo.run.isolate JOB.json REPLY.json`.

What ends that process never ends the caller: signals to the caller are passed on and waited for, and a process that
vanished leaves a record all the same. Imports no torch before a job runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.run.compose import Job
from zoo.run.signals import handlers
from zoo.run.validate import remedy
from zoo.spec.errors import UserError, ZooError
from zoo.spec.files import write_atomically
from zoo.spec.store import StoredRecord, read
from zoo.spec.streams import keep_working, replace_unprintable

KILLED = -9
"""Status of a process that SIGKILL ended; Windows has no such signal, nor a name for it."""


def isolate(job: Job) -> StoredRecord | None:
    """Execute the job in a child process; the record of a process that vanished is written by another.

    None in a further process of a distributed run, whose first one writes the record. Raises SystemExit when a signal
    came before there was anything to record.
    """
    reply, code, stopped_by = _run({"job": job.to_json()})
    if reply is None and stopped_by is not None:
        print(f"zoo: {stopped_by.name} before training began; there is nothing to record", file=sys.stderr)
        raise SystemExit(128 + stopped_by)
    if reply is None and code == 0:
        return None
    if reply is None:
        lost = {"status": "failed", "error": f"the process ended with status {code} and wrote no record"}
        if code == KILLED:
            text = "the process was killed (SIGKILL); the system does so when memory runs out"
            lost = {"status": "out-of-memory", "error": text + remedy(job.experiment)}
        reply, _, _ = _run({"job": job.to_json(), "lost": lost})
        if reply is None:
            raise ZooError(f"{job.experiment.name}: {lost['error']}; its record could not be written either")
    if "error" in reply:
        raise UserError(reply["error"])
    record = read(Path(reply["record"]))
    if isinstance(record, str):
        raise ZooError(f"{reply['record']}: {record}")
    return StoredRecord(reply["record"], record)


def _run(request: dict[str, Any]) -> tuple[dict[str, Any] | None, int, signal.Signals | None]:
    """The reply of a child process (None where it left none), its exit code, and the signal that stopped this one."""
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        request_file, reply_file = Path(folder) / "request.json", Path(folder) / "reply.json"
        request_file.write_text(json.dumps(request), "utf-8")
        command = [sys.executable, "-m", "zoo.run.isolate", str(request_file), str(reply_file)]
        with _passing_signals_on() as relay:
            # its output is messages; a notebook's sys.stderr is no file
            relay.child = subprocess.Popen(command, stdout=2)
            relay.send()
            code = relay.child.wait()
        reply = json.loads(reply_file.read_text("utf-8")) if reply_file.exists() else None
        return reply, code, relay.received


class _Relay:
    """Passes the first signal to this process on to its child, once there is one."""

    child: subprocess.Popen[bytes] | None = None
    received: signal.Signals | None = None

    def on_signal(self, number: int, frame: Any) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            self.send()

    def send(self) -> None:
        if self.child is not None and self.received is not None:
            # ValueError: Windows cannot send Ctrl-C to one process, and has sent it to all of the console's
            with contextlib.suppress(ProcessLookupError, ValueError):
                self.child.send_signal(self.received)


@contextlib.contextmanager
def _passing_signals_on() -> Iterator[_Relay]:
    relay = _Relay()
    with handlers(relay.on_signal):
        yield relay


def main(request_file: str, reply_file: str) -> None:
    """Execute the job of a file and write the record's path, or the user's mistake, to another."""
    _die_with_parent()
    replace_unprintable()
    keep_working("stdout", "stderr")
    with handlers(signal.SIG_DFL):  # a signal now ends this process at once, without a traceback
        from zoo.run.execute import execute, record_lost

    request = json.loads(Path(request_file).read_text("utf-8"))
    job, lost = Job.from_json(request["job"]), request.get("lost")
    try:
        stored = record_lost(job, **lost) if lost else execute(job)
        reply: dict[str, Any] = {"record": str(Path(stored.path).absolute())}
    except UserError as error:
        reply = {"error": str(error)}
    write_atomically(Path(reply_file), json.dumps(reply))


def _die_with_parent() -> None:
    """When the sweep is killed, so is this run: it must not go on unseen and hold the run's lock (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig, sigkill = 1, 9
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, sigkill)


if __name__ == "__main__":
    main(*sys.argv[1:])
