"""Default folders of results and runs."""

from __future__ import annotations

import os
from pathlib import Path


def default_results_dir() -> Path:
    """Where records go unless a folder is given: `ZOO_RESULTS_DIR`, else ./leaderboard/results."""
    return Path(os.environ.get("ZOO_RESULTS_DIR") or Path("leaderboard") / "results")


def default_runs_dir() -> Path:
    """Where checkpoints and logs go unless a folder is given: `ZOO_RUNS_DIR`, else ./runs."""
    return Path(os.environ.get("ZOO_RUNS_DIR") or "runs")
