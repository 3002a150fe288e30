"""Boards -> tables of text, for Markdown and the terminal alike. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.board.breakdown import (
    LENGTH,
    NOT_DEFINED,
    Column,
    beyond_text,
    columns,
    dimensions,
    label,
    profiles,
    times,
    trained_length,
)
from zoo.board.model import Board, Overall, OverallRow, Section
from zoo.board.rows import PUBLISHED, Row, row_of
from zoo.board.scale import Scale, other_scores
from zoo.board.statistics import Estimate, Interval
from zoo.spec.architecture import Reported
from zoo.spec.store import Problem

NONE = "–"
MATCHED = 0.05
"""Further than this from the baseline's number of parameters, a row says so."""

INTERVALS = (
    "Scores are test accuracies of the weights that were best on validation. Several seeds: mean and 95 % t-interval "
    "over seeds. A single run (binomial): the 95 % Wilson interval of its test set, which says nothing about other "
    "seeds. A row's rank is 1 + the number of rows whose interval lies wholly above its own; = marks shared ranks. "
    "Seeds k/n: k of n seeds ended well and above both baselines. A failure is a word and in no average."
)
ALL_INTERVALS = (
    "Scores are test scores of the weights that were best on validation (of language models: of least validation "
    "loss). Several seeds: mean and 95 % t-interval over seeds, of perplexities over their logarithms. A single run: "
    "of an accuracy (binomial) the 95 % Wilson interval for the number of its test questions, which is wider than need "
    "be where a question has several answers; of a perplexity (normal) 1.96 standard errors of its mean loss either "
    "way; both say nothing about other seeds. A row's rank is 1 + the number of rows whose interval lies wholly on the "
    "better side of its own; = marks shared ranks. Seeds k/n: k of n seeds ended well and better than every baseline "
    "there is. A failure is a word and in no average."
)

OBJECTIVES = {
    "causal_lm": "causal_lm: each token of an answer is predicted from what comes before it",
    "infilling": "infilling: all tokens of an answer are predicted at once; every output sees every input",
    "seq2seq": "seq2seq: an encoder reads the question, a decoder writes the answer",
}


def intervals(found: Sequence[Board]) -> str:
    """What the scores, intervals and ranks of these boards are."""
    sections = [section for board in found for section in board.sections]
    plain = all(section.scale.share and not any(row.asked for row in section.rows) for section in sections)
    return INTERVALS if plain else ALL_INTERVALS


def memory(count: int) -> str:
    """Bytes as MiB or GiB."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def baselines(section: Section) -> str:
    """The lines that every score of a section is to be read against; empty where there are none."""
    return ", ".join(
        f"{word} {section.scale.text(value)}"
        for word, value in (("chance", section.chance), (_majority_word(section.rows[0]), section.majority))
        if value is not None
    )


def _majority_word(row: Row) -> str:
    """What the second baseline is: the task's own where answers are asked for, see its documentation."""
    return "trivial answer" if row.asked else "majority class"


def tested_on(section: Section) -> str:
    """How many test examples, of which kind of data; empty when nothing was tested."""
    counts = _either({seed.n for row in section.rows for seed in row.seeds})
    if not counts:
        return ""
    answers = _either({seed.answers for row in section.rows for seed in row.seeds if seed.answers != seed.n})
    kinds = " and ".join(sorted({row.data for row in section.rows if row.estimate}))
    what = f"{counts} test {_examples(section.rows[0])}"
    return ", ".join(filter(None, (what, answers and f"{answers} tokens asked for", kinds and f"{kinds} data")))


def _examples(row: Row) -> str:
    return {"recall": "questions", "language_modeling": "passages"}.get(row.kind or "", "examples")


def _either(counts: set[int]) -> str:
    return " or ".join(f"{n:,}" for n in sorted(counts) if n)


def heading(section: Section) -> str:
    """Baselines and test set in one line."""
    return "; ".join(filter(None, (baselines(section), tested_on(section))))


# -- a section -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """A table in text, and the numbered notes that its cells refer to. Headers may have several lines."""

    headers: list[str]
    rows: list[list[str]]
    notes: list[str]


def grid(section: Section) -> Grid:
    """A section as a table; columns in which no row has anything are left out."""
    sources: list[str] = []
    rows = section.rows

    def reported(row: Row) -> str:
        # with the digits that the paper gives
        return ", ".join(f"{_published(row.scale, told)} [{_number(sources, told)}]" for told in row.reported)

    kinds = {row.data for row in rows}
    carry = any(row.carried or row.kind == "language_modeling" for row in rows)
    others = other_scores({name for row in rows for name in row.others or ()}, section.scale.name)
    cells = {
        "rank": [f"{row.rank.place}{'=' if row.rank.tied else ''}" if row.rank else NONE for row in rows],
        "architecture": [row.name for row in rows],
        "objective": [row.asked for row in rows],
        "carried": [_carried(row) if carry else "" for row in rows],
        "mode": [row.mode for row in rows],
        "parameters": [_parameters(row) for row in rows],
        "seeds": [f"{row.converged}/{len(row.seeds)}" for row in rows],
        section.scale.title: [row.scale.text(row.estimate.mean) if row.estimate else row.failures for row in rows],
        "95 % interval": [_interval(row.estimate, row.scale) for row in rows],
        "each seed": [_each(row) for row in rows],
        **{Scale(name).title: [_other(row, name) for row in rows] for name in others},
        "length_generalization": [beyond_text(row) if section.beyond else "" for row in rows],
        "reported": [reported(row) for row in rows],
        "Δ": [row.scale.difference(row.delta) if row.delta is not None else "" for row in rows],
        "tokens/s": [f"{row.tokens_per_second:,.0f}" if row.tokens_per_second else "" for row in rows],
        "peak memory": [memory(row.peak_memory_bytes) if row.peak_memory_bytes else "" for row in rows],
        "data": [row.data if len(kinds) > 1 else "" for row in rows],
        "notes": ["; ".join(row.notes) for row in rows],
    }
    kept = {name: column for name, column in cells.items() if any(column)}
    return Grid(list(kept), [list(row) for row in zip(*kept.values(), strict=True)], sources)


def _published(scale: Scale, told: Reported) -> str:
    return f"{round(100 * told.value, 4):g} %" if scale.share else f"{told.value:g}"


def _number(sources: list[str], told: Reported) -> int:
    source = f"{told.source}, {told.table}" if told.table else told.source
    if source not in sources:
        sources.append(source)
    return sources.index(source) + 1


def _carried(row: Row) -> str:
    return {True: "yes", False: "no", None: ""}[row.carried]


def _unmatched(row: Row) -> bool:
    return row.off is not None and abs(row.off) > MATCHED


def _parameters(row: Row) -> str:
    """The count; in brackets how far it is from the baseline's, where no width came near enough."""
    return f"{row.parameters:,}" + (f" ({100 * (row.off or 0):+.0f} %)" if _unmatched(row) else "")


def _range(found: Interval | None, scale: Scale) -> str:
    return scale.range(found.low, found.high) if found else ""


def _interval(found: Estimate | None, scale: Scale) -> str:
    return f"{_range(found.interval, scale)} {found.interval.kind}" if found and found.interval else ""


def _each(row: Row) -> str:
    return " · ".join(f"{s.seed}: {s.word or row.scale.bare(s.score)}" for s in row.seeds)


def _other(row: Row, name: str) -> str:
    return Scale(name).text(row.others[name]) if row.others and name in row.others else ""


def remarks(board: Board, section: Section) -> list[str]:
    """What must be said below a section."""
    said = []
    if not section.scale.higher:
        said.append(f"Of {section.scale.title}, less is better.")
    asked = [text for name, text in OBJECTIVES.items() if any(row.asked == name for row in section.rows)]
    if asked:
        said.append(f"Objective: {'; '.join(asked)}.")
    if any(row.carried or row.kind == "language_modeling" for row in section.rows):
        said.append("Carried: whether the state is carried from one piece of a text to the next.")
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


# -- breakdowns ----------------------------------------------------------------------------------------------------


def named(row: Row) -> str:
    """A row's name with what sets it apart: "linformer (infilling)", "mamba (causal_lm) (modified)"."""
    return " ".join([row.name, *(f"({word})" for word in (row.asked, *_note_heads(row)) if word)])


def _note_heads(row: Row) -> list[str]:
    return [note.partition(":")[0] for note in row.notes]


def breakdowns(section: Section) -> list[tuple[str, Grid]]:
    """Tables of the score along each thing that the questions are told apart by, with their titles."""
    found = []
    names = dimensions(section.rows)
    for name in names:
        head = columns(section.rows, name, coarse=True)
        trained = trained_length(section.rows) if name == LENGTH else None
        cells = [
            [named(row), *(_part(row, scores, column) for column in head)]
            for row, scores in profiles(section.rows, name)
        ]
        unit = ", %" if section.scale.share else ""
        rest = [other for other in names if other != name]
        over = f" (all {' and '.join(_plural(other) for other in rest)} together)" if rest else ""
        title = f"{section.task}: {section.scale.title} over {name}{over}{unit}"
        found.append(
            (title, Grid(["architecture", *(_head(section, name, column, trained) for column in head)], cells, []))
        )
    return found


def _plural(name: str) -> str:
    return name if name.endswith("s") else f"{name}s"


def _head(section: Section, dimension: str, column: Column, trained: float | None) -> str:
    value = label(section.rows, dimension, column.value).replace(" (", "\n(")
    if column.beyond:
        return "\n".join(filter(None, ("beyond", value, times(column, trained))))
    return f"trained\n{value}" if dimension == LENGTH else value


def _part(row: Row, scores: Mapping[Column, float | None], column: Column) -> str:
    if column in scores:
        return row.scale.bare(scores[column])
    return NOT_DEFINED if column.beyond and not row.defined else NONE


def breakdown_remark(section: Section) -> str:
    """How to read the tables and pictures of a section's breakdowns."""
    said = ["Means over seeds."]
    if section.beyond:
        said.append("Beyond: test questions that are longer or harder than any in training; ×k: of k times the length.")
    if any(row.points and not row.defined for row in section.rows) and section.beyond:
        said.append(f"{NOT_DEFINED.capitalize()}: the architecture has no form for more than it was built for.")
    return " ".join(said)


# -- over tasks ----------------------------------------------------------------------------------------------------


def overall_grid(overall: Overall) -> Grid:
    """Architectures by the tasks of a suite, best average first."""
    average = f"average of {len(overall.common)}"
    asked = [_objectives(row) for row in overall.rows]
    headers = ["architecture", *(["objective"] if any(asked) else []), *([average] if overall.common else [])]
    headers += [task if scale.share else f"{task} ({scale.title})" for task, scale in overall.scales.items()]
    rows = []
    for row, words in zip(overall.rows, asked, strict=True):
        cells = [_overall_cell(row.cells.get(task, "not run"), scale) for task, scale in overall.scales.items()]
        mean = [f"{100 * row.average:.1f} %" if row.average is not None else NONE] if overall.common else []
        rows.append([row.architecture, *([words] if any(asked) else []), *mean, *cells])
    return Grid(headers, rows, [])


def _objectives(row: OverallRow) -> str:
    """The objective; where it differs from task to task, with the tasks."""
    tasks: dict[str, list[str]] = {}
    for task, objective in row.objectives.items():
        tasks.setdefault(objective, []).append(task)
    if len(tasks) == 1:
        return next(iter(tasks))
    return ", ".join(f"{objective} ({', '.join(names)})" for objective, names in sorted(tasks.items()))


def _overall_cell(cell: Estimate | str, scale: Scale) -> str:
    return cell if isinstance(cell, str) else f"{scale.text(cell.mean)} {_range(cell.interval, scale)}".rstrip()


def overall_line(overall: Overall) -> str:
    """What the average of a suite is over."""
    odd = sorted({scale.title for scale in overall.scales.values() if not scale.share})
    never = f" No average has {' or '.join(odd)} in it." if odd else ""
    if not overall.common:
        what = "no task of accuracies" if odd else "no task"
        return f"No average: {what} has a score of every architecture.{never}"
    return "Average over the tasks that all these rows have a score on: " + ", ".join(overall.common) + f".{never}"


def overalls(board: Board) -> list[tuple[str, Overall]]:
    """The suites in which there is something to compare over tasks, with their titles."""
    found = [overall for overall in board.overalls if len(overall.tasks) > 1]
    alone = len(board.overalls) == 1
    return [("overall" if alone else f"overall: {overall.suite}", overall) for overall in found]


# -- one run -------------------------------------------------------------------------------------------------------


def run_line(record: Mapping[str, Any]) -> str:
    """What a run has come to, in a line or two; `record` has its file under `path`."""
    what = f"{record['architecture']['name']} on {record['task']['name']} ({record['protocol']}, seed {record['seed']})"
    where = f"\n  record: {record['path']}"
    if record["status"] != "ok":
        return f"{what}: {record['status']}: {record['error']}{where}"
    row = row_of([record], {})
    scale, test, base = row.scale, record["metrics"]["test"], record["baselines"]
    others = "".join(f", {Scale(name).title} {Scale(name).text(value)}" for name, value in (row.others or {}).items())
    lines = [
        f"{word} {_fine(scale, base[key])}"
        for word, key in ((_majority_word(row), "majority"), ("chance", "chance"))
        if base[key] is not None
    ]
    asked = f" {_examples(row)}, {row.asked}" if row.asked else ""
    asked += ", state carried" if row.carried else ""
    told = f"{what}: test {scale.title} {_fine(scale, test[scale.name])} of {test['n']}{asked}{others}"
    told += f" ({', '.join(lines)})" if lines else ""
    told += f", {sum(record['seconds'].values()):.0f} s"
    if row.defined or row.offered:
        told += f"\n  beyond training: {beyond_text(row) or NONE}"
    return told + where


def _fine(scale: Scale, value: float | None) -> str:
    """With a digit more than in tables."""
    return f"{100 * value:.2f} %" if scale.share and value is not None else scale.text(value)


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """The skipped files by name, with a count."""
    if not problems:
        return []
    count = f"{len(problems)} file{'s are' if len(problems) > 1 else ' is'} no sound record and skipped:"
    return [count, *(f"{problem.file}: {problem.reason}" for problem in problems)]
