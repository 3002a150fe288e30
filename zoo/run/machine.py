"""What this machine has: cores, free memory, a GPU. Imports no torch."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
"""Files of limit and use, of control groups of version 2 and 1."""
OOM_KILLS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control", "/proc/vmstat")
"""Files in which Linux counts what it killed for want of memory, on lines `oom_kill N`."""


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether there is a GPU that torch may find (Linux: NVIDIA's or AMD's driver)."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def available_bytes() -> int:
    """Free memory of this machine within the limits of its control group and of the process."""
    free = [psutil.virtual_memory().available]
    for limit, used in CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            root = Path("/sys/fs/cgroup")
            free.append(int((root / limit).read_text("utf-8")) - int((root / used).read_text("utf-8")))
    with contextlib.suppress(ImportError):  # Windows
        import resource

        address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
        if address_space != resource.RLIM_INFINITY:
            free.append(address_space - psutil.Process().memory_info().vms)
    return max(min(free), 0)


def count_oom_kills() -> int:
    """How many processes Linux has killed for want of memory, as far as it says; elsewhere 0."""
    counts = [0]
    for file in OOM_KILLS:
        with contextlib.suppress(OSError, ValueError):
            lines = Path(file).read_text("utf-8").splitlines()
            counts += [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
    return sum(counts)
