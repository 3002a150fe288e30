"""Boards as tables of text, for Markdown and the terminal alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from zoo.board.breakdown import (
    LENGTH,
    NOT_DEFINED,
    column_values,
    dimensions,
    format_longer,
    length_factor,
    placed_groups,
    scores_along,
    trained_length,
    value_label,
)
from zoo.board.costs import cost_cells, cost_remarks
from zoo.board.headings import examples_word, majority_word
from zoo.board.metric import Metric, sorted_names
from zoo.board.paired import Difference, answered_by, measure_agreement
from zoo.board.results import REPRODUCTION, Section, compare
from zoo.board.words import BEYOND, INTERVALS, MEANINGS, OBJECTIVES
from zoo.spec.presets import Reported
from zoo.spec.store import Problem, StoredRecord

NONE = "–"
COST_ONLY = "cost only"
"""Shown instead of a score where the budget is too small to learn the task."""
SHOWN = 20
"""Questions that are named, of those that nobody or everybody answers."""
MATCHED = 0.05
"""A model that is further than this from the baseline's number of parameters says so."""


class Table(NamedTuple):
    """A table of text, and the numbered sources that its cells refer to. Headers may have several lines."""

    headers: list[str]
    rows: list[list[str]]
    sources: Sequence[str] = ()


def make_table(cells: pd.DataFrame, sources: Sequence[str] = ()) -> Table:
    """The columns in which any cell has text."""
    cells = cells[[name for name in cells if (cells[name] != "").any()]]
    return Table([str(name) for name in cells], cells.to_numpy().tolist(), sources)


# -- a section -----------------------------------------------------------------------------------------------------


def section_table(section: Section) -> Table:
    """A section's rows; columns in which no row has anything are left out."""
    sources: list[str] = []
    groups, several_kinds = section.mean_groups, section.rows["data"].nunique() > 1
    others = sorted_names(name for scores in section.rows["other_scores"] for name in scores)
    lines = []
    for _, row in section.rows.iterrows():
        metric, other = Metric(row["metric"], row["higher_is_better"]), row["other_scores"]
        scored = not math.isnan(row["score"])
        each = [f"{s}: {v if isinstance(v, str) else metric.format_bare(v)}" for s, v in row["each_seed"].items()]
        lines.append(
            {
                "rank": rank_cells(row)["rank"],
                "architecture": row["name"],
                section.metric.title: metric.format(row["score"]) if scored else row["failures"],
                "95 % interval": _interval(row, metric),
                "seeds": f"{row['converged']} of {row['seeds']} learned",
                "rank range": rank_cells(row)["rank range"],
                "objective": _objective(row),
                "stateful": {True: "yes", False: "no", None: ""}[row["stateful"]],
                "mode": row["mode"],
                "parameters": _parameters(row),
                "tuned": row["tuned"],
                "paired difference": _difference(row["difference"]),
                "each seed": " · ".join(each),
                **{
                    Metric(name).title: Metric(name).format(other[name]) if name in other else ""
                    for name in others
                    if name != section.metric.name
                },
                BEYOND: format_longer(row, groups, metric) if section.has_longer else "",
                "reported": ", ".join(f"{published(r)} [{_number(sources, r)}]" for r in row["reported"]),
                "Δ": "" if math.isnan(row["delta"]) else metric.format_difference(row["delta"]),
                **cost_cells(row["cost"]),
                "data": row["data"] if several_kinds else "",
                "notes": "; ".join(row["notes"]),
            }
        )
        if section.cost_only:
            lines[-1] |= dict.fromkeys(("95 % interval", "each seed", BEYOND, "Δ"), "")
            lines[-1] |= {"seeds": f"{row['seeds']}", section.metric.title: COST_ONLY if scored else row["failures"]}
    return make_table(pd.DataFrame(lines), sources)


def rank_cells(row: pd.Series) -> dict[str, str]:
    """The rank, and the range of ranks that the data allow: "3–7"."""
    if pd.isna(row["rank"]):
        return {"rank": NONE, "rank range": ""}
    best, worst = row["best_rank"], row["worst_rank"]
    shown = f"{best}" if best == worst else f"{best}–{worst}"
    return {"rank": f"{row['rank']}{'=' if row['tied'] else ''}", "rank range": shown}


def _interval(row: pd.Series, metric: Metric) -> str:
    """ "[39.0, 43.4] test set only"; empty where there is none."""
    return f"{metric.format_range(row['low'], row['high'])} {INTERVALS.get(row['interval'], '')}".strip()


def _difference(difference: Difference | None) -> str:
    """In points, with interval and p value."""
    if difference is None:
        return ""
    mean, low, high = (f"{100 * value:+.1f}" for value in difference[:3])
    p = "p < 0.001" if difference.p < 0.001 else f"p = {difference.p:.3f}"
    return f"{mean} [{low}, {high}], {p}"


def questions_lines(section: Section) -> list[str]:
    """Which test questions nobody and everybody answers."""
    answers = section.answers
    n = next(iter(answers.values())).shape[1]
    lines = []
    for word, everybody in (("nobody", False), ("everybody", True)):
        found = answered_by(answers, everybody=everybody)
        shown = ", ".join(map(str, found[:SHOWN])) + (", …" if len(found) > SHOWN else "")
        lines.append(f"Answered by {word}: {len(found):,} of {n:,} questions" + (f" ({shown})" if found else ""))
    return lines


def agreement_table(section: Section) -> Table:
    """The share of the questions that two rows answer alike; on the diagonal over the seeds of one."""
    shares = measure_agreement(section.answers)
    rows = [[str(name), *("" if math.isnan(v) else f"{100 * v:.1f}" for v in row)] for name, row in shares.iterrows()]
    return Table(["% alike", *shares.columns], rows)


def published(reported: Reported) -> str:
    """A reported score with the digits that the paper gives."""
    share = Metric(reported.metric).is_share
    return f"{round(100 * reported.value, 4):g} %" if share else f"{reported.value:g}"


def _number(sources: list[str], reported: Reported) -> int:
    source = f"{reported.source}, {reported.table}" if reported.table else reported.source
    if source not in sources:
        sources.append(source)
    return sources.index(source) + 1


def _objective(row: pd.Series) -> str:
    """The objective where a task has more than one, else empty."""
    return "" if row["objective"] == "classify" else OBJECTIVES[row["objective"]]


def _parameters(row: pd.Series) -> str:
    """The number of parameters; in brackets the deviation from the baseline's, where no width came near enough."""
    off = row["parameters_off"]
    return f"{row['parameters']:,}" + (f" ({100 * off:+.0f} %)" if abs(off) > MATCHED else "")


PRINTED = 5e-4
"""Half of the last digit of an accuracy that is printed."""


def remarks(section: Section) -> list[str]:
    """Remarks for below a section's table."""
    rows = section.rows
    lines = []
    if section.cost_only:
        lines.append(
            f"Cost only: the budget of `{section.protocol}` is too small to learn this task. Scores say nothing; they "
            "are not shown and not ranked, and enter no average."
        )
    if section.partial:
        lines.append("Part of the published data: these rows enter no average, and no sentence rests on them.")
    if not section.metric.higher_is_better:
        lines.append(f"Lower {section.metric.title} is better.")
    objectives = [word for name, word in OBJECTIVES.items() if word in MEANINGS and rows["objective"].eq(name).any()]
    if objectives:
        lines.append(f"Objective: {', '.join(f'{word} ({MEANINGS[word]})' for word in objectives)}.")
    if rows["stateful"].notna().any():
        lines.append("Stateful: whether the state is carried from one segment of a text to the next.")
    lines += cost_remarks(rows)
    if (rows["parameters_off"].abs() > MATCHED).any():
        lines.append(
            f"Widths are solved so that every model has the baseline's number of parameters within {100 * MATCHED:.0f} "
            "%. In brackets: the deviation of a model for which no width comes that close."
        )
    if section.baseline:
        compared = rows[rows["difference"].notna()]
        shares = [right.mean() for right in compared["right"]]
        of_answers = any(abs(a - b) > PRINTED for a, b in zip(compared["score"], shares, strict=True))
        whole = ", in questions whose whole answer is right; the score counts parts of answers, too" * of_answers
        lines.append(f"Paired difference: to {section.baseline}{whole}.")
    if section.lost_trials:
        lines.append(f"Of each sweep the best trial is shown; others, in results.csv: {section.lost_trials}.")
    if rows["reported"].map(len).any():
        if section.protocol != REPRODUCTION:
            lines.append(
                f"Reported scores come from the papers' own full-size training. `{section.protocol}` is not that "
                "protocol, so no difference is shown."
            )
        lines.append("Reported scores enter no average and no rank.")
    return lines


def row_label(row: pd.Series) -> str:
    """A row's name with what sets it apart: "linformer (fill-in)", "mamba (next token) (modified)"."""
    words = (_objective(row), *(note.partition(":")[0] for note in row["notes"]))
    return " ".join([row["name"], *(f"({word})" for word in words if word)])


# -- breakdowns ----------------------------------------------------------------------------------------------------


def breakdown_tables(section: Section) -> list[tuple[str, Table]]:
    """Tables of the score along each dimension of the groups, with their titles; positions in quarters."""
    exact, groups = placed_groups(section), placed_groups(section, coarse=True)
    names = [] if section.cost_only else dimensions(exact)
    labels = pd.Series({index: row_label(row) for index, row in section.rows.iterrows()}, name="architecture")
    undefined = section.rows.index[~section.rows["evaluated_longer"].astype(bool)]
    tables = []
    for name in names:
        scores = scores_along(groups, section.metric, name)
        trained = trained_length(groups) if name == LENGTH else math.nan
        scores["text"] = scores["score"].map(section.metric.format_bare)
        cells = scores.pivot(index="row", columns=["longer", name], values="text").sort_index(axis="columns")
        heads = column_values(groups, name)
        for longer, value in heads:
            absent = pd.Series({row: NOT_DEFINED for row in undefined if longer}, dtype="object")
            cells[longer, value] = cells[longer, value].fillna(absent).fillna(NONE)
        rest = [other if other.endswith("s") else f"{other}s" for other in names if other != name]
        over = f" (over all {' and '.join(rest)})" if rest else ""
        cells.columns = pd.Index([_header(exact, name, longer, value, trained) for longer, value in heads])
        title = f"{section.task}: {section.metric.title} by {name}{over}{', %' if section.metric.is_share else ''}"
        tables.append((title, make_table(cells.join(labels).sort_index()[["architecture", *cells.columns]])))
    return tables


def _header(groups: pd.DataFrame, dimension: str, longer: bool, value: float, trained: float) -> str:
    text = value_label(groups, dimension, value).replace(" (", "\n(")
    if longer:
        return "\n".join(filter(None, ("longer", text, length_factor(value, trained))))
    return f"trained\n{text}" if dimension == LENGTH else text


def breakdown_remark(section: Section) -> str:
    """How to read the tables and charts of a section's breakdowns."""
    lines = ["Means over seeds."]
    if section.has_longer:
        lines.append(
            "Longer: questions that are longer or harder than any in training; ×2: twice the longest of training."
        )
        measured = section.rows.index.isin(section.groups["row"])
        if (measured & ~section.rows["evaluated_longer"]).any():
            lines.append("Not defined: the architecture has no form for lengths beyond those it was built for.")
    return " ".join(lines)


# -- one run -------------------------------------------------------------------------------------------------------


def run_line(stored: StoredRecord) -> str:
    """The outcome of a run in a line or two, and its file."""
    path, record = stored
    what = f"{record.architecture.name} on {record.task.name} ({record.protocol}, seed {record.seed})"
    where = f"\n  record: {path}"
    if record.metrics is None:
        return f"{what}: {record.status}: {record.error}{where}"
    seconds = f", {record.seconds.train + record.seconds.eval:.0f} s"
    if record.task.cost_only:
        return f"{what}: {COST_ONLY}: this budget is too small to learn the task{seconds}{where}"
    (section,) = compare([stored]).sections()
    row, metric, test = section.rows.iloc[0], section.metric, record.metrics.test
    lines = ((section.majority, majority_word(section)), (section.chance, "chance"))
    baselines = ", ".join(f"{word} {_precise(metric, value)}" for value, word in lines if not math.isnan(value))
    text = f"{what}: test {metric.title} {_precise(metric, test.scores[metric.name])} of {test.n}"
    if objective := _objective(row):
        text += f" {examples_word(record.task.kind)}, {objective}"
    text += ", stateful" if record.stateful else ""
    text += "".join(f", {Metric(n).title} {Metric(n).format(value)}" for n, value in row["other_scores"].items())
    text += f" ({baselines})" if baselines else ""
    text += seconds
    if section.has_longer:
        text += f"\n  {BEYOND}: {format_longer(row, section.mean_groups, metric) or NONE}"
    return text + where


def _precise(metric: Metric, value: float | None) -> str:
    """With one digit more than in tables."""
    return f"{100 * value:.2f} %" if metric.is_share and value is not None else metric.format(value)


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """The skipped files by name, with a count."""
    if not problems:
        return []
    count = f"{len(problems)} file{'s' if len(problems) > 1 else ''} skipped, not valid as a record:"
    return [count, *(f"{problem.file}: {problem.reason}" for problem in problems)]


def one_line(text: str) -> str:
    """`text` with a space for each character that is not printable, line breaks included."""
    return "".join(char if char.isprintable() else " " for char in text)
