"""Facts about the machine, the versions and the code that produced a record. Torch is imported only where needed."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import re
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import torch

from zoo.run.machine import count_cores, has_gpu
from zoo.spec.registry import own_version
from zoo.spec.settings import TrainSettings


def hardware() -> dict[str, Any]:
    """Processor, memory and accelerators."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_name(),
        "cores": count_cores(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus,
        "os": platform.platform(),
    }


def computing(train: TrainSettings) -> dict[str, Any]:
    """What of the hardware a run under these settings computes with."""
    gpus: list[str] = []
    if train.accelerator != "cpu" and has_gpu():
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(min(train.devices, torch.cuda.device_count()))]
    return {"cpu": _cpu_name(), "threads": train.num_threads, "gpus": gpus}


@cache
def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text("utf-8", "replace"), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of everything that a number may depend on."""
    import torch

    installed = {"python": platform.python_version(), "seqzoo": own_version()}
    for name in ("torch", "lightning", "torchmetrics", "triton", "numpy", "numba"):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "not installed"
    if torch.version.cuda:
        installed["cuda"] = torch.version.cuda
    return installed


@cache
def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the checkout that zoo runs from; nulls when it does not run from one."""
    import zoo

    folder = Path(zoo.__file__).resolve().parents[1]
    nothing: dict[str, Any] = {"commit": None, "dirty": None}
    if not (folder / ".git").exists():
        return nothing
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return nothing
    return {"commit": commit, "dirty": dirty}


def _git(folder: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, check=True, timeout=20)
    return done.stdout.decode("utf-8", "replace").strip()


@cache
def source_hash(*modules: str) -> str:
    """sha256 over the sources and presets of the top-level packages that `modules` ("package.module") live in."""
    digest = hashlib.sha256()
    for package in sorted({module.partition(".")[0] for module in modules}):
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise ModuleNotFoundError(f"no source for {package}")
        for folder in map(Path, spec.submodule_search_locations or []):
            for file in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".toml")):
                digest.update(f"{package}/{file.relative_to(folder)}\0".encode())
                digest.update(file.read_bytes())
        if not spec.submodule_search_locations and spec.origin:
            digest.update(f"{package}\0".encode())
            digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()


def peak_memory(device: torch.device) -> int:
    """Peak bytes: allocated on a GPU, else resident in this process since it started."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows, of whose processes psutil knows the peak
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
