"""State of the prepared data sets on disk."""

from __future__ import annotations

from typing import Any

from zoo.data.cached import CachedData
from zoo.data.module import TaskData
from zoo.spec.errors import DataError, MissingFiles
from zoo.spec.task import Task, published_size

HERE, MISSING, GENERATED, ON_THE_FLY = "here", "missing", "generated", "made as needed"
"""Origin of the examples: the user's files; nothing yet; generated once; generated whenever one is read."""


def inventory_row(task: Task, protocol: str, data: TaskData) -> dict[str, Any]:
    """State of a task's data under a protocol, as `zoo data list --json` prints it."""
    row: dict[str, Any] = {"task": task.name, "title": task.title, "protocol": protocol, "prepared": True}
    download = published_size(task.source.sets[0]) if task.source.sets else ""
    row |= {"files": origin_of(data), "download": download, "license": task.license}
    row["source"] = {**task.source.identifiers}
    if isinstance(data, CachedData):
        row["prepared"] = data.prepared()
        if row["files"] == MISSING:
            return row | {"kind": "files missing", "problem": data.verify()[0]}
        row["folder"] = str(data.folder)
        if not data.prepared():
            return row
        row["megabytes"] = round(sum(f.stat().st_size for f in data.folder.iterdir()) / 1e6, 3)
    try:
        provenance = data.provenance()
    except DataError as error:
        return row | {"kind": "damaged", "problem": str(error)}
    return row | {"kind": provenance["kind"], "counts": provenance["counts"], "provenance": provenance}


def summary_row(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One line for all protocols of a task."""
    first, size = rows[0], sum(row.get("megabytes", 0.0) for row in rows)
    return {
        "task": name,
        "files": first["files"],
        "prepared": ", ".join(row["protocol"] for row in rows if row["prepared"] and row["files"] != ON_THE_FLY),
        "on disk": f"{size:,.1f} MB" if size >= 1 else f"{1000 * size:.0f} kB" if size else "",
        "download": first["download"],
        "license": first["license"],
        "from": next(iter(first["source"].values()), ""),
    }


def state_of(data: TaskData, problems: list[str]) -> str:
    """Return "ok", "damaged", "files missing" or "not prepared", given the result of `verify`."""
    if not problems:
        return "ok"
    if not isinstance(data, CachedData) or data.prepared():
        return "damaged"
    return "files missing" if origin_of(data) == MISSING else "not prepared"


def origin_of(data: TaskData) -> str:
    """Return HERE, MISSING, GENERATED or ON_THE_FLY."""
    if not isinstance(data, CachedData):
        return ON_THE_FLY
    try:
        data.folder  # noqa: B018
        return GENERATED if data.generated else HERE
    except MissingFiles:
        return MISSING
