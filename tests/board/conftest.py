"""The page of synthetic records, built once for all workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import altair as alt
import pytest

from tests.board.samples import classification_costs, classification_records, question_records
from tests.environments import made_once
from tests.records import make, make_analysis
from zoo.board import build as board
from zoo.board.charts import draw
from zoo.spec.record import Record
from zoo.spec.store import write

HOSTILE = "<img src=x onerror=alert(1)>"


def curved(record: Record, **changes: Any) -> Record:
    """The record with a learning curve."""
    points = [(32, 0.5, 0.2), (64, 1.0, 0.4), (96, 1.5, 0.5)]
    history = [
        {"step": s, "samples": s, "seconds": t, "split": "val", "loss": 1.5, "metric": score} for s, t, score in points
    ]
    return Record.model_validate(record.model_dump(mode="json") | {"history": history} | changes)


def page_records() -> list[Record]:
    """Records of every kind, one of an architecture that is installed here, and one of a hostile plugin."""
    family = {"name": "evil", "title": HOSTILE, "family": HOSTILE, "version": "1"}
    plugin = {"distribution": 'x"><b>bold</b>', "version": "1", "entry_point": HOSTILE, "source_hash": "</script>"}
    hostile = {"architecture": family, "plugin": plugin, "command": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    return [
        *map(curved, classification_records()),
        *(record for record in question_records() if record.task.name in ("mqar", "needle", "wikitext")),
        curved(make("mamba", accuracy=0.2, config={"model": {"d_model": 64}, "arch": {"d_state": 99}})),
        curved(make("evil", accuracy=0.15, **hostile)),
        make("evil", accuracy=0.1, overrides={"arch.x": HOSTILE}, config_hash="ee" * 6, **hostile),
    ]


def draw_valid(spec: str) -> str:
    """`draw`, but a chart that Vega-Lite's schema does not allow is an error, not a picture of what is left of it."""
    alt.TopLevelSpec.validate(json.loads(spec))
    return draw(spec)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder where `results` are records in their default place: the board lies beside them."""
    folder = tmp_path / "leaderboard"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """index.html beside its records."""

    def fill(folder: Path) -> None:
        results = folder / "leaderboard" / "results"
        for record in page_records():
            write(record, results)
        for cost in classification_costs(classification_records()):
            cost.write(results)
        (results / "cut.json").write_text("{")
        make_analysis(make("mamba"), trained_len=64).write(results)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("zoo.board.charts.draw", draw_valid)
            board.build(results, page=True)

    return made_once(tmp_path_factory, "page", fill) / "leaderboard" / "index.html"
