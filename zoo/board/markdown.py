"""Boards -> one Markdown document. Pure functions; the same records give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zoo.board.model import Board, Section
from zoo.board.tables import (
    Grid,
    breakdown_remark,
    breakdowns,
    grid,
    heading,
    intervals,
    overall_grid,
    overall_line,
    overalls,
    problem_lines,
    remarks,
    section_title,
)
from zoo.board.text import one_line
from zoo.spec.store import Problem


def markdown(
    found: Sequence[Board],
    problems: Sequence[Problem] = (),
    *,
    picture: str = "",
    breakdown: Callable[[Board, Section], str] = lambda board, section: "",
) -> str:
    """The boards as a Markdown document. `picture` is the name of an image file beside it, `breakdown` tells that of
    the picture of a section's breakdown; empty where there is none."""
    lines = ["# Leaderboard", "", intervals(found), ""]
    if picture and found:
        lines += [f"![Scores with intervals, task by task]({picture})", ""]
    if not found:
        lines += ["No records yet.", ""]
    for board in found:
        lines += [f"## Protocol `{board.protocol}`", ""]
        if board.superseded:
            lines += [f"Repeated runs superseded by later ones: {board.superseded}.", ""]
        for title, overall in overalls(board):
            lines += [f"### {title.capitalize()}", "", overall_line(overall), "", *_pipes(overall_grid(overall)), ""]
        for section in board.sections:
            table = grid(section)
            lines += [f"### {section_title(section)}", "", f"{heading(section).capitalize()}.", "", *_pipes(table), ""]
            lines += [f"{remark}\n" for remark in remarks(board, section)]
            lines += [f"[{k}] {_escaped(source)}\n" for k, source in enumerate(table.notes, start=1)]
            if section.current:
                lines += _breakdowns(section, breakdown(board, section))
    if problems:
        count, *named = problem_lines(problems)
        lines += ["## Skipped files", "", count, "", *(f"- {_escaped(line)}" for line in named), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _breakdowns(section: Section, picture: str) -> list[str]:
    tables = breakdowns(section)
    if not tables:
        return []
    lines = [f"![{section.task}: {section.scale.title} part by part]({picture})", ""] if picture else []
    lines += [f"{breakdown_remark(section)} Numbers of every part and seed: groups.csv.", ""]
    for title, table in tables:
        lines += [f"#### {title}", "", *_pipes(table), ""]
    return lines


def _pipes(table: Grid) -> list[str]:
    from tabulate import tabulate

    rows = [[_escaped(cell) for cell in row] for row in table.rows]
    headers = [_escaped(header) for header in table.headers]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True).split("\n")


def _escaped(text: str) -> str:
    """Text of a record or a plugin must not become structure."""
    for char, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`"), ("*", "\\*")):
        text = text.replace(char, safe)
    return one_line(text)
