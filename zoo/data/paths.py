"""Where data lie."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def data_dir() -> Path:
    """`ZOO_DATA_DIR`, else `seqzoo` under the platform's cache directory. Not created."""
    named = os.environ.get("ZOO_DATA_DIR", "").strip()
    return Path(named).expanduser().absolute() if named else Path(platformdirs.user_cache_dir("seqzoo"))
