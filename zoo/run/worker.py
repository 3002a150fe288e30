"""Processes that execute jobs, one each, so that what ends a run ends nothing else.

    python -m zoo.run.worker          serve: fork a process for each folder named on stdin; torch is imported once
    python -m zoo.run.worker FOLDER   execute the request in this folder

Caller and process speak by the files of a folder:
    request.json  {"job": …}, with {"lost": {"status", "error", "build"}} to record a job whose process vanished; or
                  {"call": "package.module:function", "arguments": {…}}, which gets a `report` besides;
                  who renames it first has it: the process to execute it, or the caller to withdraw it
    pid           of the forked process, and, when that has ended,
    code          its exit code
    events.jsonl  what the run reports while it goes on, one JSON object a line
    output.txt    what it prints
    reply.json    {"record": path}, {"value": what the function returned}, {"error": text} for the user's mistake, or
                  {"failure": text} for what else a function raised, or why a run has no record
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from zoo.run.compose import Job
from zoo.run.signals import STOPPING, let_through
from zoo.spec.architecture import load_object
from zoo.spec.errors import UserError, ZooError
from zoo.spec.streams import keep_working

CAN_FORK = sys.platform == "linux"
"""Elsewhere a fork of a process with torch in it is unsafe, or unknown: there each request has a process of its own."""
POLL = 0.02
"""Seconds between two looks at processes and their files."""


def main(*folders: str) -> None:
    """Execute the request of a folder, or serve."""
    _die_with_parent()
    folder = Path(folders[0]) if folders else _serve()
    if folder is not None:
        _execute(folder)


def _serve() -> Path | None:
    """Fork a process for each request: its folder in the new process, None here when the input ends."""
    from zoo.run import provenance

    before = {each: signal.signal(each, signal.SIG_IGN) for each in STOPPING}
    let_through()
    importlib.import_module("zoo.run.execute")  # and with it all that every run imports

    provenance.versions(), provenance.git_state()  # every record's, looked up once
    running: dict[int, Path] = {}
    requests = os.fdopen(0, "rb", buffering=0, closefd=False)  # select sees whether there is a line
    while True:
        if select.select([requests], [], [], POLL if running else None)[0]:
            line = requests.readline()
            if not line:  # the caller has ended; nobody would know of runs that went on
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                return None
            folder = Path(json.loads(line))
            pid = os.fork()
            if pid == 0:
                _die_with_parent()
                for each, old in before.items():
                    signal.signal(each, old)
                sys.argv[1:] = [str(folder)]  # with which Lightning starts the further processes of a distributed run
                return folder
            running[pid] = folder
            (folder / "pid").write_text(f"{pid}\n", "utf-8")
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                (running.pop(pid) / "code").write_text(f"{code}\n", "utf-8")


def _execute(folder: Path) -> None:
    """Execute the request of a folder and write its record's path or value, or the user's mistake, into the reply."""
    for each in STOPPING:  # ends this process at once, without a traceback, until the run handles it
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, signal.SIG_DFL)
    let_through()
    try:
        (folder / "request.json").rename(folder / "taken.json")
    except FileNotFoundError:
        if "LOCAL_RANK" not in os.environ:  # else the first process of this distributed run has it
            return
    _redirect(folder / "output.txt")
    from zoo.run.execute import execute, record_lost

    request = json.loads((folder / "taken.json").read_text("utf-8"))
    with (folder / "events.jsonl").open("a", encoding="utf-8", buffering=1) as events:

        def report(event: dict[str, Any]) -> None:
            events.write(json.dumps(event) + "\n")

        try:
            if "call" in request:
                function = load_object(request["call"], what="the request")
                reply = {"value": function(report, **request["arguments"])}
            else:
                job, lost = Job.from_json(request["job"]), request.get("lost")
                stored = record_lost(job, **lost) if lost else execute(job, report)
                reply = {"record": str(Path(stored.path).absolute())}
        except UserError as error:
            reply = {"error": str(error)}
        except ZooError as error:
            reply = {"failure": str(error)}
        except Exception as error:
            if "call" not in request:
                raise
            reply = {"failure": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    partial = folder / "reply.partial"
    partial.write_text(json.dumps(reply), "utf-8")
    partial.replace(folder / "reply.json")


def _redirect(output: Path) -> None:
    """Send what this process and its children print to a file, which the caller shows."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(handle, number)
        stream = os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        setattr(sys, name, stream)  # it is None where the caller's was closed
    keep_working("stdout", "stderr")


def _die_with_parent() -> None:
    """When the sweep is killed, so is this run: it must not go on unseen and hold the run's lock (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig, sigkill = 1, 9
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, sigkill)


if __name__ == "__main__":
    main(*sys.argv[1:])
