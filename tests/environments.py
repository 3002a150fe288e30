"""Fresh environments: zoo installed from its wheel, far from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder of this name that one worker of the tests fills by `make`, and all of them read."""
    base = factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").exists():
            folder.mkdir()  # not there: what failed half-way fails again
            make(folder)
            (folder / "made").touch()
    return folder


def run(*args: str | Path, cwd: Path, exit_code: int = 0, **env: str) -> str:
    """Standard output of a command that must end with `exit_code`. The checkout is not on its path."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ZOO_PLUGINS")} | env
    done = subprocess.run([str(a) for a in args], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout


def install(python: Path, *packages: Path, build: bool = False) -> None:
    """`pip install` without a network; with `build`, from source by this environment's build backend."""
    options = ["-q", "--no-deps", "--no-index", *(["--no-build-isolation"] if build else [])]
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *packages, cwd=python.parent)


def fresh_environment(folder: Path, wheel: Path) -> Path:
    """The interpreter of a new environment with the wheel; its dependencies are those of this one."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install(python, wheel)
    return python
