"""Names of tasks and of prepared folders."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_own.settings import DataSettings


def hashed(values: Mapping[str, Any]) -> str:
    """16 hex digits that differ whenever anything in `values` differs."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def name_of(place: Path, settings: DataSettings) -> str:
    """The task's name: that of the folder or file, in lower-case letters, digits and underscores."""
    given = settings.name or place.resolve().name.split(".")[0]
    name = re.sub(r"[^a-z0-9]+", "_", given.lower()).strip("_")
    return name if name[:1].isalpha() else f"data_{name}".rstrip("_")
