"""What there is of each task on this machine, and what is said of an example."""

from __future__ import annotations

from typing import Any

from zoo.data.cached import CachedData
from zoo.data.module import Example, Split, TaskData
from zoo.data.questions import lay_out
from zoo.data.stats import answer_of, is_question
from zoo.spec.errors import DataError, MissingFiles
from zoo.spec.task import Task

HERE, MISSING, GENERATED, DRAWN = "here", "missing", "generated", "made as needed"
"""Where the examples come from: the user's files; nowhere yet; a generator, once; a generator, whenever one is read."""


def row_of(task: Task, protocol: str, data: TaskData) -> dict[str, Any]:
    """A task under a protocol: what `zoo data list --json` tells."""
    row: dict[str, Any] = {"task": task.name, "title": task.title, "protocol": protocol, "prepared": True}
    row |= {"files": files_of(data), "download": _download(task), "license": task.license}
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
        origin = data.provenance()
    except DataError as error:
        return row | {"kind": "damaged", "problem": str(error)}
    return row | {"kind": origin["kind"], "counts": origin["counts"], "provenance": origin}


def _download(task: Task) -> str:
    """What `prepare` would download, if anything."""
    if not task.source.sets:
        return ""
    files = task.source.sets[0]
    size = sum(file.bytes for file in files)
    return f"{size / 1e6:,.1f} MB" if all(file.bytes for file in files) else "size not published"


def summary_of(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A task's protocols in one line."""
    first, size = rows[0], sum(row.get("megabytes", 0.0) for row in rows)
    return {
        "task": name,
        "files": first["files"],
        "prepared": ", ".join(row["protocol"] for row in rows if row["prepared"] and row["files"] != DRAWN),
        "on disk": f"{size:,.1f} MB" if size >= 1 else f"{1000 * size:.0f} kB" if size else "",
        "download": first["download"],
        "license": first["license"],
        "from": next(iter(first["source"].values()), ""),
    }


def state_of(data: TaskData, problems: list[str]) -> str:
    """What the problems amount to."""
    if not problems:
        return "ok"
    if not isinstance(data, CachedData) or data.prepared():
        return "damaged"
    return "files missing" if files_of(data) == MISSING else "not prepared"


def files_of(data: TaskData) -> str:
    """Where the examples come from on this machine."""
    if not isinstance(data, CachedData):
        return DRAWN
    try:
        data.folder  # noqa: B018
        return GENERATED if data.generated else HERE
    except MissingFiles:
        return MISSING


def told(data: TaskData, split: Split, example: Example) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is said of an example, and what the model gets of it."""
    if not is_question(example):
        inputs, label = example  # type: ignore[misc]
        return {"label": label, "length": inputs.shape[-1]}, {"inputs": inputs.tolist()}
    laid, groups = lay_out(example, data.objective, data.specials), data.groups(split)
    said: dict[str, Any] = {"length": len(laid.inputs), "asked": len(answer_of(example))}
    if groups:
        said["group"] = groups[laid.group]
    target = None if laid.target is None else laid.target.tolist()
    return said, {"inputs": laid.inputs.tolist(), "labels": laid.labels.tolist(), "target": target}
