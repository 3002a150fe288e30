"""Shared by all tests: one thread per worker, and a private place for data, records and runs."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests import processes

# before torch is imported anywhere: workers share the machine's cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # one of several processes that run the tests
        processes.start()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported stays until the end, so that the garbage collector need not look through it, now and later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)  # torch's tracing makes many objects, and leaves few behind
        gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # modules are taken down as without tests


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What numba compiles is compiled by one worker of the tests; the others read it from the cache."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    from filelock import FileLock
    from numba.core.dispatcher import Dispatcher

    compile_it, lock = Dispatcher.compile, FileLock(tmp_path_factory.getbasetemp().parent / "numba.lock")

    def compile_alone(self: Any, signature: Any) -> Any:
        with lock:
            return compile_it(self, signature)

    Dispatcher.compile = compile_alone


@pytest.fixture(scope="session", autouse=True)
def commands_built_once() -> Iterator[None]:
    """typer's runner reads the signatures of all commands once, not at every call, as `zoo` does in one process."""
    import typer.main
    import typer.testing

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(typer.testing, "_get_command", cache(typer.main.get_command), raising=False)
        yield


@pytest.fixture(autouse=True)
def private_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's data, records or runs, or asks the network for data."""
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ZOO_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("ZOO_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.delenv("ZOO_BACKEND", raising=False)
    monkeypatch.delenv("ZOO_CACHE_DIR", raising=False)


@pytest.fixture(autouse=True)
def runs_in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`zoo.bench` runs and measures here, so that no test waits for torch again; `processes` marks those that need a
    child."""
    if "processes" in request.keywords:
        return

    def execute_all(jobs: Any, n_jobs: object, on_record: Any) -> list[Any]:
        from zoo.run.execute import execute

        stored = []
        for job in jobs:
            stored.append(execute(job))
            on_record(stored[-1])
            if stored[-1].record.status == "interrupted":
                break
        return stored

    def call(processes: object, function: str, arguments: Any, seconds: float | None = None) -> Any:
        from zoo.run.pool import Answer
        from zoo.spec.architecture import load_object
        from zoo.spec.errors import UserError

        try:
            return Answer(load_object(function, what="test")(lambda event: None, **json.loads(json.dumps(arguments))))
        except UserError as error:
            return Answer(None, str(error), mistake=True)

    monkeypatch.setattr("zoo.run.request.execute_all", execute_all)
    monkeypatch.setattr("zoo.run.pool.call", call)


@pytest.fixture(autouse=True)
def runs_leave_the_board(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`zoo.bench` in this process or a fork does not draw the board after its runs; `board` marks tests of that."""
    if "board" not in request.keywords:
        monkeypatch.setattr("zoo.run.display.Refresher.now", lambda self: None)
        monkeypatch.setattr(processes.ForkingPopen, "draws_board", False)


@pytest.fixture(autouse=True)
def forks_for_commands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m zoo` in tests is a fork of this process, except where `interpreter` marks a test whose subject is how
    an interpreter starts."""
    if "interpreter" not in request.keywords and processes.can_fork():
        monkeypatch.setattr(subprocess, "Popen", processes.ForkingPopen)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution as it would be published."""
    from tests.environments import made_once, run

    def build(folder: Path) -> None:
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)

    return next(made_once(tmp_path_factory, "wheel", build).glob("*.whl"))


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry with the toy architecture and the toy task, here and in subprocesses."""
    from zoo.spec.registry import registry

    monkeypatch.setenv("ZOO_PLUGINS", "tests.run.toy")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    registry.cache_clear()
    yield
    registry.cache_clear()
