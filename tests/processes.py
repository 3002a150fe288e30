"""`python -m zoo` as a fork of a process in which torch and Lightning are imported already.

A new interpreter takes eight CPU seconds to import them, and a sweep has two: the command, and the server that forks
its runs. Each run would import numba again, too, and each command the libraries of tables and charts. A fork is a
process all the same, with streams, signals, environment and exit code of its own.

The process that forks runs no test: threads of libraries that tests use (of vl-convert, say) would be missing in a
fork. It is a fork itself, made before a worker of the tests collects any (`start`), or else an interpreter of its own,
started when a test first needs it. What it forks is handed over to the caller as its own child.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from functools import cache
from typing import Any

import psutil

from zoo.run.machine import has_gpu

ZOO = [sys.executable, "-m", "zoo"]
SERVER = [sys.executable, "-m", "zoo.run.worker"]
CALLS = [sys.executable, "-m", "tests.testing.fresh_calls"]
"""A process in which no backbone was called before, as in all that are forked here."""
_Popen = subprocess.Popen
_PR_SET_CHILD_SUBREAPER = 36
_within_fork = False
_forked: socket.socket | None = None


def can_fork() -> bool:
    """Whether processes of these tests can be forks: one that has looked for a GPU cannot fork users of it."""
    return sys.platform == "linux" and not has_gpu()


class ForkingPopen(subprocess.Popen):
    """subprocess.Popen, but `python -m zoo` and zoo's workers are forks instead of new interpreters."""

    draws_board = True
    """Whether `zoo bench` refreshes the board after its runs."""

    def _execute_child(self, *arguments: Any) -> None:
        call = inspect.signature(_Popen._execute_child).bind(self, *arguments).arguments
        command = [] if isinstance(call["args"], str | bytes) else [os.fsdecode(each) for each in call["args"]]
        known = command[:3] in (ZOO, CALLS) or command == SERVER  # not the further processes of a distributed run
        another_user = any(call[name] not in (None, -1) for name in ("gid", "gids", "uid"))
        if not known or another_user or (_within_fork and "vl_convert" in sys.modules):
            super()._execute_child(*arguments)
            return
        streams = (call["p2cread"], call["c2pwrite"], call["errwrite"])
        request = {
            "command": command[2:],
            "env": dict(os.environ if call["env"] is None else call["env"]),
            "cwd": os.fspath(call["cwd"] or os.getcwd()),
            "session": call["start_new_session"],
            "board": self.draws_board,
            "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        }
        if _within_fork:
            self.pid = os.fork()
            if self.pid == 0:
                for handle in (call["p2cwrite"], call["c2pread"], call["errread"]):
                    if handle != -1:
                        os.close(handle)
                os._exit(_run(request, streams))
        else:
            self.pid = _fork_elsewhere(request, streams)
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(call[name] for name in pipes))


def start() -> None:
    """Fork the process that forks, now."""
    global _forked
    if not can_fork():
        return
    _import_once()
    _forked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        try:
            os.closerange(3, theirs.fileno())  # the tests' own pipes and files
            os.closerange(theirs.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
            _serve(theirs)
        finally:
            os._exit(0)
    theirs.close()


def _import_once() -> None:
    """What commands and their runs import, except modules of plugins and what looks at the environment meanwhile."""
    for name in ("zoo.run.execute", "zoo.ops.compiled", "zoo.board.build", "altair"):
        importlib.import_module(name)
    import numba

    numba.njit(lambda: None)()  # reads the signatures of all that it can compile, which takes half a second


@cache
def _forker() -> socket.socket:
    """A connection to the process that forks."""
    if _forked is not None:
        return _forked
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    _Popen([sys.executable, "-m", "tests.processes", str(theirs.fileno())], cwd=root, pass_fds=[theirs.fileno()])
    theirs.close()
    return ours


def _fork_elsewhere(request: dict[str, Any], streams: tuple[int, ...]) -> int:
    """Have a process forked that becomes a child of this one; its number. A stream of -1 is this process's own."""
    connection = _forker()
    _reap_orphans(True)
    try:
        handles = [own if stream == -1 else stream for own, stream in enumerate(streams)]
        with tempfile.TemporaryFile() as file:  # larger than what a message or a pipe may hold
            file.write(json.dumps(request).encode())
            file.seek(0)
            socket.send_fds(connection, [b"fork"], [*handles, file.fileno()])
        pid = int(connection.recv(100))
        while psutil.Process(pid).ppid() != os.getpid():
            time.sleep(0.001)
        return pid
    finally:
        _reap_orphans(False)


def _reap_orphans(whether: bool) -> None:
    """Whether a process whose parent ends becomes a child of this one."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(whether))


def _serve(connection: socket.socket) -> None:
    """Fork a process for each request, until the tests end."""
    global _within_fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, handles, _, _ = socket.recv_fds(connection, 100, 4)
        if not message:
            return
        *streams, sent = handles
        with open(sent, "rb") as file:
            request = json.loads(file.read())
        between = os.fork()
        if between == 0:
            between, pid = os.getpid(), os.fork()
            if pid:
                connection.send(str(pid).encode())
                os._exit(0)
            connection.close()
            while os.getppid() == between:
                time.sleep(0.001)
            _within_fork = True
            subprocess.Popen = ForkingPopen
            os._exit(_run(request, streams))
        os.waitpid(between, 0)
        for handle in streams:
            os.close(handle)


def _run(request: dict[str, Any], streams: tuple[int, ...] | list[int]) -> int:
    """In the fork: take streams, environment and folder, run the module, and return its exit code."""
    code: Any = 1
    try:
        for number, handle in enumerate(streams):
            if handle not in (-1, number):
                os.dup2(handle, number)
                os.close(handle)
        if request["session"]:
            os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        sys.path[:1] = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        _open_streams()
        if not request["board"]:
            importlib.import_module("zoo.run.display").Refresher.now = lambda self: None
        sys.argv = list(request["command"])
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ending:
        code = 0 if ending.code is None else ending.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        with suppress(Exception):
            traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            code = code or 120  # as an interpreter that cannot flush when it ends
    return int(code)


def _open_streams() -> None:
    """sys.stdin, stdout and stderr of the file descriptors 0, 1 and 2, as an interpreter opens them."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream: Any = None
        with suppress(OSError):
            file = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
            buffer: Any = io.BufferedReader(file) if number == 0 else io.BufferedWriter(file)
            how = "backslashreplace" if number == 2 else errors or "strict"
            stream = io.TextIOWrapper(buffer, encoding or "utf-8", how, line_buffering=number == 2 or file.isatty())
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    # by its name, so that the forks' Popen is the one that knows it is within a fork
    _import_once()
    importlib.import_module("tests.processes")._serve(socket.socket(fileno=int(sys.argv[1])))
