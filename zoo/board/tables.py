"""Boards -> text for people: Markdown and the terminal. Pure functions; the same records give the same bytes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.board.model import OFF_BOARD, PUBLISHED, Board, Overall, Records, Row, Section, boards, load_reported
from zoo.board.statistics import Estimate, Interval
from zoo.interface.architecture import Reported
from zoo.interface.record import Problem

if TYPE_CHECKING:
    from rich.console import Console

NONE = "–"
MATCHED = 0.05
"""Further than this from the baseline's number of parameters, a row says so."""

INTERVALS = (
    "Scores are test accuracies of the weights that were best on validation. Several seeds: mean and 95 % t-interval "
    "over seeds. A single run (binomial): the 95 % Wilson interval of its test set, which says nothing about other "
    "seeds. A row's rank is 1 + the number of rows whose interval lies wholly above its own; = marks shared ranks. "
    "Seeds k/n: k of n seeds ended well and above both baselines. A failure is a word and in no average."
)


def percent(fraction: float) -> str:
    """0.1752 -> "17.5 %"."""
    return f"{100 * fraction:.1f} %"


def interval(found: Interval) -> str:
    """In percent, "[39.0, 43.4]"."""
    return f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"


def memory(count: int) -> str:
    """Bytes as MiB or GiB."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def baselines(section: Section) -> str:
    """The lines that every score of a section is to be read against."""
    line = f"chance {percent(section.chance)}"
    return line if section.majority is None else f"{line}, majority class {percent(section.majority)}"


def tested_on(section: Section) -> str:
    """How many test examples, of which kind of data; empty when nothing was tested."""
    counts = sorted({seed.n for row in section.rows for seed in row.seeds if seed.n})
    kinds = " and ".join(sorted({row.data for row in section.rows if row.estimate}))
    return f"{' or '.join(f'{n:,}' for n in counts)} test examples, {kinds} data" if counts else ""


def heading(section: Section) -> str:
    """Baselines and test set in one line."""
    return "; ".join(filter(None, (baselines(section), tested_on(section))))


# -- cells ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """A table in text, and the numbered notes that its cells refer to."""

    headers: list[str]
    rows: list[list[str]]
    notes: list[str]


def grid(section: Section) -> Grid:
    """A section as a table; columns in which no row has anything are left out."""
    sources: list[str] = []

    def reported(row: Row) -> str:
        # with the digits that the paper gives
        return ", ".join(f"{round(100 * told.value, 4):g} % [{_number(sources, told)}]" for told in row.reported)

    kinds = {row.data for row in section.rows}
    columns = {
        "rank": [f"{row.rank.place}{'=' if row.rank.tied else ''}" if row.rank else NONE for row in section.rows],
        "architecture": [row.name for row in section.rows],
        "mode": [_mode(row) for row in section.rows],
        "parameters": [_parameters(row) for row in section.rows],
        "seeds": [f"{row.converged}/{len(row.seeds)}" for row in section.rows],
        "accuracy": [percent(row.estimate.mean) if row.estimate else row.failures for row in section.rows],
        "95 % interval": [_interval(row.estimate) for row in section.rows],
        "each seed": [_each(row) for row in section.rows],
        "reported": [reported(row) for row in section.rows],
        "Δ": [f"{100 * row.delta:+.1f}" if row.delta is not None else "" for row in section.rows],
        "tokens/s": [f"{row.tokens_per_second:,.0f}" if row.tokens_per_second else "" for row in section.rows],
        "peak memory": [memory(row.peak_memory_bytes) if row.peak_memory_bytes else "" for row in section.rows],
        "data": [row.data if len(kinds) > 1 else "" for row in section.rows],
        "notes": ["; ".join(row.notes) for row in section.rows],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    return Grid(list(kept), [list(row) for row in zip(*kept.values(), strict=True)], sources)


def _number(sources: list[str], told: Reported) -> int:
    source = f"{told.source}, {told.table}" if told.table else told.source
    if source not in sources:
        sources.append(source)
    return sources.index(source) + 1


def _mode(row: Row) -> str:
    return row.mode if row.objective == "classify" else f"{row.mode}, {row.objective}"


def _unmatched(row: Row) -> bool:
    return row.off is not None and abs(row.off) > MATCHED


def _parameters(row: Row) -> str:
    """The count; in brackets how far it is from the baseline's, where no width came near enough."""
    return f"{row.parameters:,}" + (f" ({100 * (row.off or 0):+.0f} %)" if _unmatched(row) else "")


def _interval(found: Estimate | None) -> str:
    if found is None:
        return ""
    return f"{interval(found.interval)} {found.interval.kind}"


def _each(row: Row) -> str:
    return " · ".join(f"{s.seed}: {s.outcome if s.score is None else f'{100 * s.score:.1f}'}" for s in row.seeds)


def overall_grid(overall: Overall) -> Grid:
    """Architectures by tasks, best average first."""
    average = f"average of {len(overall.common)}"
    headers = ["architecture", *([average] if overall.common else []), *overall.tasks]
    rows = []
    for row in overall.rows:
        cells = [_overall_cell(row.cells.get(task, "not run")) for task in overall.tasks]
        mean = [percent(row.average) if row.average is not None else NONE] if overall.common else []
        rows.append([row.architecture, *mean, *cells])
    return Grid(headers, rows, [])


def _overall_cell(cell: Estimate | str) -> str:
    return cell if isinstance(cell, str) else f"{percent(cell.mean)} {interval(cell.interval)}"


def _overall_line(overall: Overall) -> str:
    if not overall.common:
        return "No average: no task has a score of every architecture."
    return "Average over the tasks that all these rows have a score on: " + ", ".join(overall.common) + "."


def remarks(board: Board, section: Section) -> list[str]:
    """What must be said below a section."""
    said = []
    machines = sorted({machine for row in section.rows for machine in row.hardware})
    if len(machines) > 1:
        said.append("Tokens/s and memory are from different machines: " + "; ".join(machines) + ".")
    elif machines:
        said.append(f"Tokens/s and memory: {machines[0]}.")
    if any(_unmatched(row) for row in section.rows):
        said.append(
            f"Widths are solved so that every model has the baseline's number of parameters within {100 * MATCHED:.0f} "
            "%. In brackets: how far off a model is for which no width comes as near."
        )
    if board.protocol != PUBLISHED and any(row.reported for row in section.rows):
        said.append(
            f"Reported scores come from the papers' own full-size training. `{board.protocol}` is not that protocol, "
            "so no difference is shown. Reported scores are in no average and no rank."
        )
    elif any(row.reported for row in section.rows):
        said.append("Reported scores are in no average and no rank.")
    return said


def section_title(section: Section) -> str:
    """The task, with its version when a newer one is on the board."""
    return section.task if section.current else f"{section.task} (superseded version {section.version})"


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """The skipped files by name, with a count."""
    if not problems:
        return []
    count = f"{len(problems)} file{'s are' if len(problems) > 1 else ' is'} no sound record and skipped:"
    return [count, *(f"{problem.file}: {problem.reason}" for problem in problems)]


# -- Markdown ------------------------------------------------------------------------------------------------------


def markdown(found: Sequence[Board], problems: Sequence[Problem] = (), *, picture: str = "") -> str:
    """The boards as a Markdown document; `picture` is the name of an image file beside it."""
    lines = ["# Leaderboard", "", INTERVALS, ""]
    if picture and found:
        lines += [f"![Scores with intervals, task by task]({picture})", ""]
    if not found:
        lines += ["No records yet.", ""]
    for board in found:
        lines += [f"## Protocol `{board.protocol}`", ""]
        if board.superseded:
            lines += [f"Repeated runs superseded by later ones: {board.superseded}.", ""]
        if len(board.overall.tasks) > 1:
            lines += ["### Overall", "", _overall_line(board.overall), "", *_pipes(overall_grid(board.overall)), ""]
        for section in board.sections:
            table = grid(section)
            lines += [f"### {section_title(section)}", "", f"{heading(section).capitalize()}.", "", *_pipes(table), ""]
            lines += [f"{remark}\n" for remark in remarks(board, section)]
            lines += [f"[{k}] {_escaped(source)}\n" for k, source in enumerate(table.notes, start=1)]
    if problems:
        count, *named = problem_lines(problems)
        lines += ["## Skipped files", "", count, "", *(f"- {_escaped(line)}" for line in named), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _pipes(table: Grid) -> list[str]:
    from tabulate import tabulate

    rows = [[_escaped(cell) for cell in row] for row in table.rows]
    return tabulate(rows, headers=table.headers, tablefmt="github", disable_numparse=True).split("\n")


def _escaped(text: str) -> str:
    """Text of a record or a plugin must not become structure."""
    for char, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`"), ("*", "\\*")):
        text = text.replace(char, safe)
    return _one_line(text)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


# -- terminal ------------------------------------------------------------------------------------------------------


def print_board(
    records: Records,
    problems: Sequence[Problem] = (),
    *,
    protocol: str | None = None,
    tasks: Collection[str] | None = None,
    architectures: Collection[str] | None = None,
    console: Console | None = None,
) -> None:
    """Print the boards of `records`, with the reported scores of the architectures that are installed here."""
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
        if len(board.overall.tasks) > 1:
            _print_grid(console, f"{board.protocol}: overall", overall_grid(board.overall))
            console.print(_overall_line(board.overall) + "\n", style="dim", highlight=False, markup=False)
    for line in [*problem_lines(problems), *faults]:
        console.print(_one_line(line), style="yellow", highlight=False, markup=False)


def _print_section(console: Console, board: Board, section: Section) -> None:
    table = grid(section)
    hidden = _print_grid(console, f"{board.protocol}: {section_title(section)} ({heading(section)})", table)
    lines = [f"no room for: {', '.join(hidden)} (--json has them)"] if hidden else []
    lines += [remark for remark in remarks(board, section) if hidden == [] or not remark.startswith("Tokens/s")]
    if "reported" not in hidden:
        lines += [f"[{k}] {source}" for k, source in enumerate(table.notes, start=1)]
    for line in lines:
        console.print(_one_line(line), style="dim", highlight=False, markup=False)
    console.print()


SPARED = (
    *("tokens/s", "peak memory", "each seed", "data", "mode", "Δ", "reported", "parameters", "seeds"),
    "95 % interval",
)
"""What a narrow terminal does without, in this order."""

NOTES = 14
"""How narrow the column of notes may become."""


def _print_grid(console: Console, title: str, table: Grid) -> list[str]:
    """Print the columns that there is room for. Returns the names of the others."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    widths = {header: max(len(header), *(len(row[k]) for row in table.rows)) for k, header in enumerate(table.headers)}
    # notes say why a row is not ranked: they are always there, and are what is broken over lines
    widths["notes"] = min(widths.get("notes", 0), NOTES)
    hidden: list[str] = []
    for header in SPARED:
        shown = [name for name in table.headers if name not in hidden]
        if sum(widths[name] + 3 for name in shown) <= console.width:
            break
        if header in shown:
            hidden.append(header)
    console.print(title, style="bold", highlight=False, markup=False)
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = [(k, header) for k, header in enumerate(table.headers) if header not in hidden]
    for _, header in columns:
        notes = header == "notes"
        out.add_column(Text(header), overflow="fold", no_wrap=not notes, min_width=NOTES if notes else None)
    for row in table.rows:
        out.add_row(*(Text(_one_line(row[k])) for k, _ in columns))
    console.print(out)
    return hidden
