"""Boards -> the terminal, in as many columns as there is room for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from zoo.board.model import OFF_BOARD, Board, Section, boards, load_reported
from zoo.board.rows import Records
from zoo.board.tables import (
    Grid,
    breakdown_remark,
    breakdowns,
    grid,
    heading,
    overall_grid,
    overall_line,
    overalls,
    problem_lines,
    remarks,
    section_title,
)
from zoo.board.text import one_line
from zoo.spec.store import Problem

if TYPE_CHECKING:
    from rich.console import Console

KEPT = ("rank", "architecture", "objective", "carried", "notes")
"""What is always there."""

SPARED = ("tokens/s", "peak memory", "each seed", "data", "mode", "Δ", "reported", "parameters", "seeds")
"""What a narrow terminal does without first, in this order; then go further scores, scores beyond and intervals."""

LAST = ("beyond", "95 % interval")

NOTES = 14
"""How narrow the column of notes may become."""


def print_board(
    records: Records,
    problems: Sequence[Problem] = (),
    *,
    protocol: str | None = None,
    tasks: Collection[str] | None = None,
    architectures: Collection[str] | None = None,
    console: Console | None = None,
) -> None:
    """Print the boards of `records`, with the reported scores of the architectures that are installed here; where
    `tasks` are chosen, with the breakdown of their scores."""
    from rich.console import Console

    reported, faults = load_reported(records)
    found = boards(records, reported, protocol=protocol, tasks=tasks, architectures=architectures)
    # a file or a pipe has no width; tables wrapped at 80 columns are of no use there
    wide = Console()
    console = console or (wide if wide.is_terminal else Console(width=240))
    if not found:
        where = f" under protocol {protocol}" if protocol else ""
        said = " (smoke runs are on no board)" if any(r["protocol"] in OFF_BOARD for r in records) else ""
        console.print(f"no records{where} to show{said}", highlight=False, markup=False)
    for board in found:
        for section in board.sections:
            _print_section(console, board, section)
            if tasks is not None and section.current:
                _print_breakdowns(console, board, section)
        for title, overall in overalls(board):
            _print_grid(console, f"{board.protocol}: {title}", overall_grid(overall), ())
            console.print(overall_line(overall) + "\n", style="dim", highlight=False, markup=False)
    for line in [*problem_lines(problems), *faults]:
        console.print(one_line(line), style="yellow", highlight=False, markup=False)


def _print_section(console: Console, board: Board, section: Section) -> None:
    table = grid(section)
    title = f"{board.protocol}: {section_title(section)} ({heading(section)})"
    first = {"rank", "architecture", section.scale.title}
    further = [h for h in table.headers if h not in (*KEPT, *SPARED, *LAST) and h not in first]
    hidden = _print_grid(console, title, table, (*SPARED, *further, *LAST))
    lines = [f"no room for: {', '.join(hidden)} (--json has them)"] if hidden else []
    lines += [remark for remark in remarks(board, section) if hidden == [] or not remark.startswith("Tokens/s")]
    if "reported" not in hidden:
        lines += [f"[{k}] {source}" for k, source in enumerate(table.notes, start=1)]
    for line in lines:
        console.print(one_line(line), style="dim", highlight=False, markup=False)
    console.print()


def _print_breakdowns(console: Console, board: Board, section: Section) -> None:
    tables = breakdowns(section)
    for title, table in tables:
        # the first and the last say the most: the others go from the middle
        inner = table.headers[2:-1]
        inner.sort(key=lambda header: abs(table.headers.index(header) - len(table.headers) / 2))
        hidden = _print_grid(console, f"{board.protocol}: {title}", table, inner, wrap=table.headers[1:])
        if hidden:
            names = ", ".join(header.replace("\n", " ") for header in hidden)
            console.print(f"no room for: {names} (--json has them)", style="dim", highlight=False, markup=False)
    if tables:
        console.print(breakdown_remark(section) + "\n", style="dim", highlight=False, markup=False)


def _print_grid(
    console: Console, title: str, table: Grid, spared: Collection[str], *, wrap: Collection[str] = ("notes",)
) -> list[str]:
    """Print the columns that there is room for. Returns the names of the others, which are of `spared`. In the columns
    `wrap` cells of several words are broken over lines."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    widths = {
        header: max(
            len(part)
            for text in (header, *(row[k] for row in table.rows))
            for part in (text.split() or [""] if header in wrap else text.split("\n"))
        )
        for k, header in enumerate(table.headers)
    }
    # notes say why a row is not ranked: they are always there, and are what is broken over lines
    widths["notes"] = min(widths.get("notes", 0), NOTES)
    hidden: list[str] = []
    for header in spared:
        shown = [name for name in table.headers if name not in hidden]
        if sum(widths[name] + 3 for name in shown) <= console.width:
            break
        if header in shown:
            hidden.append(header)
    console.print(title, style="bold", highlight=False, markup=False)
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    kept = [(k, header) for k, header in enumerate(table.headers) if header not in hidden]
    for _, header in kept:
        least = NOTES if header == "notes" else widths[header] if header in wrap else None
        out.add_column(Text(header), overflow="fold", no_wrap=header not in wrap, min_width=least)
    for row in table.rows:
        out.add_row(*(Text(one_line(row[k])) for k, _ in kept))
    console.print(out)
    return hidden
