"""The board in the terminal, in as many columns as fit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from zoo.board.headings import section_heading, section_title
from zoo.board.overall import INTERVAL, MEAN, NORMALIZED, overall_lines, overall_table, overall_title, overalls
from zoo.board.reported import load_reported
from zoo.board.results import UNRANKED_PROTOCOLS, Section, make_board
from zoo.board.tables import (
    Table,
    agreement_table,
    breakdown_remark,
    breakdown_tables,
    one_line,
    problem_lines,
    questions_lines,
    remarks,
    section_table,
)
from zoo.board.words import BEYOND, MEMORY
from zoo.spec.cost import CostRecord
from zoo.spec.store import Problem, StoredRecord

if TYPE_CHECKING:
    from rich.console import Console

RANGE = "rank range"
KEPT = ("rank", "architecture", "objective", "stateful", "notes")
DROPPED_FIRST = (
    *("data", "mode", "each seed", "inference tokens/s", "train tokens/s", MEMORY, "parameters", "Δ", "reported"),
    *("seeds", "paired difference"),
)
DROPPED_LAST = (BEYOND, INTERVAL, RANGE)
"""Columns that are always shown; that a narrow terminal drops first, in this order; and after all other scores."""

NOTES_WIDTH = 14
"""The least width of the column of notes."""


def print_board(
    stored: Sequence[StoredRecord],
    problems: Sequence[Problem] = (),
    costs: Sequence[CostRecord] = (),
    *,
    protocol: str | None = None,
    tasks: Collection[str] | None = None,
    architectures: Collection[str] | None = None,
    console: Console | None = None,
) -> None:
    """Print the board of these records, with the reported scores of the architectures that are installed here; where
    `tasks` are given, with the breakdowns of their scores."""
    from rich.console import Console

    reported, errors = load_reported(stored)
    board = make_board(stored, reported, costs, protocol=protocol, tasks=tasks, architectures=architectures)
    # a file or a pipe has no width; tables wrapped at 80 columns are of no use there
    wide = Console()
    console = console or (wide if wide.is_terminal else Console(width=240))
    if board.results.empty:
        where = f" under protocol {protocol}" if protocol else ""
        smoke = any(record.protocol in UNRANKED_PROTOCOLS for _, record in stored)
        _print(console, f"no records{where} to show{' (smoke runs are on no board)' if smoke else ''}")
    for name, sections in board.protocols():
        for section in sections:
            _print_section(console, section)
            if tasks is not None and section.current:
                _print_breakdowns(console, section)
        for overall in overalls(sections):
            table = overall_table(overall)
            scores = [
                name for name in reversed(table.headers) if name not in (*KEPT, NORMALIZED, INTERVAL, MEAN, RANGE)
            ]
            droppable = (INTERVAL, MEAN, *scores, RANGE)
            _print_table(console, f"{name}: {overall_title(overall)}", table, droppable)
            _print(console, "\n".join([*overall_lines(overall), ""]), style="dim")
    for line in [*problem_lines(problems), *errors]:
        _print(console, one_line(line), style="yellow")


def print_questions(stored: Sequence[StoredRecord], task: str, protocol: str | None = None) -> None:
    """Print which test questions of a task nobody and everybody answers, and how far rows agree."""
    from rich.console import Console

    console = Console() if Console().is_terminal else Console(width=240)
    for section in make_board(stored, protocol=protocol, tasks={task}).sections():
        if not section.answers:
            _print(console, f"{section.protocol}: {section_title(section)}: no row says what it answered right")
            continue
        title = f"{section.protocol}: {section_title(section)}"
        _print_table(console, title, agreement_table(section), ())
        for line in questions_lines(section):
            _print(console, line, style="dim")


def _print(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, highlight=False, markup=False)


def _print_section(console: Console, section: Section) -> None:
    table = section_table(section)
    title = f"{section.protocol}: {section_title(section)} ({section_heading(section)})"
    always = (*KEPT, section.metric.title)
    further = [name for name in table.headers if name not in (*always, *DROPPED_FIRST, *DROPPED_LAST)]
    hidden = _print_table(console, title, table, (*DROPPED_FIRST, *further, *DROPPED_LAST))
    lines = [remark for remark in remarks(section) if not hidden or not remark.startswith("Tokens/s")]
    if "reported" not in hidden:
        lines += [f"[{k}] {source}" for k, source in enumerate(table.sources, start=1)]
    for line in lines:
        _print(console, one_line(line), style="dim")
    console.print()


def _print_breakdowns(console: Console, section: Section) -> None:
    tables = breakdown_tables(section)
    for title, table in tables:
        # the first and the last column say the most: others are dropped from the middle
        headers = table.headers
        middle = sorted(headers[2:-1], key=lambda header: abs(headers.index(header) - len(headers) / 2))
        _print_table(console, f"{section.protocol}: {title}", table, middle, wrapped=headers[1:])
    if tables:
        _print(console, breakdown_remark(section) + "\n", style="dim")


def _print_table(
    console: Console,
    title: str,
    table: Table,
    droppable: Sequence[str],
    wrapped: Collection[str] = ("notes", "objective"),
) -> list[str]:
    """Print the columns that fit, with cells of the columns `wrapped` broken at spaces, and return the names of those
    that were dropped."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    widths = {}
    for name, *cells in zip(table.headers, *table.rows, strict=True):
        text = "\n".join([name, *cells])
        widths[name] = max(map(len, text.split() if name in wrapped else text.split("\n")))
    widths["notes"] = NOTES_WIDTH
    hidden: list[str] = []
    for name in droppable:
        if sum(widths[header] + 3 for header in table.headers if header not in hidden) <= console.width:
            break
        hidden += [name] if name in table.headers else []
    out = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    shown = [k for k, name in enumerate(table.headers) if name not in hidden]
    for name in (table.headers[k] for k in shown):
        out.add_column(Text(name), overflow="fold", no_wrap=name not in wrapped, min_width=widths[name])
    for row in table.rows:
        out.add_row(*(Text(one_line(row[k])) for k in shown))
    _print(console, title, style="bold")
    console.print(out)
    if hidden:
        names = ", ".join(" ".join(name.split()) for name in hidden)
        _print(console, f"no room for: {names} (--json has them)", style="dim")
    return hidden
