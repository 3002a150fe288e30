"""What the literature reports of the installed architectures, with the measured scores of protocol `paper`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from zoo.board.metric import Metric
from zoo.board.page.view import home_page
from zoo.board.results import REPRODUCTION, Board
from zoo.board.tables import NONE, published
from zoo.spec.presets import Reported
from zoo.spec.registry import Entry, registry

SUITE = "lra"
"""The suite whose tasks come first, and whose mean sources print."""
UNREPORTED = "none found in the papers that were searched"


@dataclass
class Line:
    """What one source, or this board, says of an architecture on each task."""

    name: str
    paper: str
    plugin: str
    page: str
    cells: list[str]
    average: str
    source: str
    link: str
    measured: bool = False


@dataclass
class Literature:
    """The table: its tasks, and lines in the order of the registry's architectures."""

    tasks: list[str]
    lines: list[Line]


def literature(board: Board) -> tuple[Literature, list[str]]:
    """The table of all reported scores, and errors of loading them."""
    reported: dict[str, tuple[Entry[Any], list[Reported]]] = {}
    errors = []
    for name, entry in registry().architectures.items():
        try:
            reported[name] = entry, list(entry.record.load_reported())
        except Exception as error:  # a broken plugin must not take the page down
            errors.append(f"reported scores of {name}: {' '.join(str(error).split())}")
    named = {one.task for _, scores in reported.values() for one in scores}
    tasks = sorted((task for task in registry().tasks if task in named), key=_suite_first)
    tasks += sorted(named - set(tasks))
    lines = []
    for name, (entry, scores) in reported.items():
        sources = dict.fromkeys((one.source, one.table) for one in scores)
        for source in sources:
            own = {one.task: one for one in scores if (one.source, one.table) == source}
            lines.append(_line(name, entry, tasks, own, ", ".join(filter(None, source))))
        if not sources:
            lines.append(Line(*_about(name, entry), [NONE] * len(tasks), average="", source=UNREPORTED, link=""))
        lines += _measured(name, entry, tasks, board)
    return Literature(tasks, lines), errors


def _suite_first(task: str) -> bool:
    return registry().tasks[task].record.suite != SUITE


def _line(name: str, entry: Entry[Any], tasks: list[str], own: dict[str, Reported], source: str) -> Line:
    printed = next((one.average for one in own.values() if one.average is not None), None)
    counted = sum(task in registry().suite(SUITE) for task in own)
    mean = "" if printed is None else f"{round(100 * printed, 2):g} % of {counted}"
    cells = [_cell(own.get(task)) for task in tasks]
    found = re.search(r"arXiv (\d{4}\.\d{4,5})", source)
    return Line(*_about(name, entry), cells, average=mean, source=source, link=_arxiv(found[1]) if found else "")


def _cell(one: Reported | None) -> str:
    if one is None:
        return NONE
    return published(one) + ("" if Metric(one.metric).is_share else f" ({Metric(one.metric).title})")


def _measured(name: str, entry: Entry[Any], tasks: list[str], board: Board) -> list[Line]:
    cells = dict.fromkeys(tasks, NONE)
    for section in board.sections():
        rows = section.rows[section.rows["rank"].notna() & (section.rows["architecture"] == entry.record.name)]
        rows = rows[rows["distribution"] == entry.plugin.distribution]
        if section.protocol == REPRODUCTION and section.current and section.task in cells and len(rows):
            row, metric = rows.iloc[0], section.metric
            cells[section.task] = (
                f"{metric.format(row['score'])} {metric.format_range(row['low'], row['high'])}".strip()
            )
    if set(cells.values()) == {NONE}:
        return []
    source = f"measured: protocol {REPRODUCTION} of this board"
    return [Line(*_about(name, entry), [*cells.values()], average="", source=source, link="", measured=True)]


def _about(name: str, entry: Entry[Any]) -> tuple[str, str, str, str]:
    arxiv = entry.record.paper.arxiv
    plugin = f"{entry.plugin.distribution} {entry.plugin.version}"
    return name, _arxiv(arxiv) if arxiv else "", plugin, home_page(entry.plugin.distribution)


def _arxiv(number: str) -> str:
    return f"https://arxiv.org/abs/{number}"
