"""The card of an architecture: its plugin's README, and its metadata."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.spec.architecture import Architecture


def facts(record: Architecture) -> dict[str, Any]:
    """An architecture's metadata as JSON-serializable containers, with reported scores and presets."""
    return {
        "paper": asdict(record.paper),
        "reference": asdict(record.reference) if record.reference else None,
        "capabilities": asdict(record.capabilities) | {"modes": sorted(record.capabilities.modes)},
        "cost": asdict(record.cost),
        "reported": [asdict(score) for score in record.load_reported()],
        "presets": [
            {"task": task, "protocol": protocol, "values": dict(p.values), "sources": dict(p.sources)}
            for (task, protocol), p in record.load_presets().items()
        ],
    }


def card(record: Architecture) -> str:
    """Markdown of the plugin's card (or of its metadata, if it has no card), with the reported scores appended."""
    text = _readme(record)
    if text is None:
        paper = record.paper
        text = (
            f"# {record.title}\n\n{paper.authors}, *{paper.title}*, {paper.venue} {paper.year} "
            f"(arXiv {paper.arxiv or 'none'}).\n\nTime {record.cost.time}, memory {record.cost.memory}. "
            "This plugin has no card.\n"
        )
    scores = record.load_reported()
    if scores:
        rows = "\n".join(f"| {s.task} | {s.metric} | {s.value:.4f} | {s.source} {s.table} |" for s in scores)
        text += f"\n\n## Reported scores\n\n| task | metric | value | source |\n|---|---|---|---|\n{rows}\n"
    else:
        text += "\n\n## Reported scores\n\nNone published on the tasks of this zoo.\n"
    return text


def _readme(record: Architecture) -> str | None:
    spec = importlib.util.find_spec(record.backbone.partition(":")[0].partition(".")[0])
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else None
