"""Boards as tables of text, for Markdown and the terminal alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from zoo.board.breakdown import (
    LENGTH,
    NOT_DEFINED,
    along,
    columns,
    dimensions,
    factor,
    label,
    longer_text,
    mean_parts,
    placed_parts,
    trained_length,
)
from zoo.board.frame import LENGTH_GENERALIZATION
from zoo.board.metric import Metric, sorted_names
from zoo.board.results import REPRODUCTION, Overall, Section, compare
from zoo.spec.architecture import Reported
from zoo.spec.store import Problem, StoredRecord

NONE = "–"
MATCHED = 0.05
"""A model that is further than this from the baseline's number of parameters says so."""

ACCURACY_LEGEND = (
    "Scores are test accuracies of the weights that were best on validation. Several seeds: mean and 95 % t-interval "
    "over seeds. A single run (binomial): the 95 % Wilson interval of its test set, which says nothing about other "
    "seeds. A row's rank is 1 + the number of rows whose interval lies wholly above its own; = marks shared ranks. "
    "Seeds k/n: k of n seeds ended well and above both baselines. A failure is a word and enters no average."
)
LEGEND = (
    "Scores are test scores of the weights that were best on validation (of language models: lowest validation loss). "
    "Several seeds: mean and 95 % t-interval over seeds, for perplexities of their logarithms. A single run: for an "
    "accuracy (binomial) the 95 % Wilson interval for its number of test questions, which is wider than necessary "
    "where a question has several answers; for a perplexity (normal) ±1.96 standard errors of its mean loss; both say "
    "nothing about other seeds. A row's rank is 1 + the number of rows whose interval lies wholly on the better side "
    "of its own; = marks shared ranks. Seeds k/n: k of n seeds ended well and better than every baseline there is. A "
    "failure is a word and enters no average."
)
OBJECTIVES = {
    "causal_lm": "causal_lm: each token of an answer is predicted from what comes before it",
    "infilling": "infilling: all tokens of an answer are predicted at once; every output sees every input",
    "seq2seq": "seq2seq: an encoder reads the question, a decoder writes the answer",
}


class Table(NamedTuple):
    """A table of text, and the numbered sources that its cells refer to. Headers may have several lines."""

    cells: pd.DataFrame
    sources: Sequence[str] = ()


def legend(sections: Iterable[Section]) -> str:
    """How to read scores, intervals and ranks of these sections."""
    plain = all(s.metric.is_share and (s.rows["objective"] == "classify").all() for s in sections)
    return ACCURACY_LEGEND if plain else LEGEND


# -- a section -----------------------------------------------------------------------------------------------------


def section_title(section: Section) -> str:
    """The task, with its version where a newer one is on the board."""
    return section.task if section.current else f"{section.task} (superseded version {section.version})"


def section_heading(section: Section) -> str:
    """Baselines and test set in one line."""
    rows = section.rows
    lines = ((section.chance, "chance"), (section.majority, majority_word(section)))
    baselines = ", ".join(f"{word} {section.metric.format(value)}" for value, word in lines if not math.isnan(value))
    counts, answers = _either(rows["examples"]), _either(rows["answers"])
    kinds = " and ".join(sorted(set(rows.loc[rows["score"].notna(), "data"])))
    tested = [
        counts and f"{counts} test {_examples_word(rows['kind'].iloc[0])}",
        answers and f"{answers} answer tokens",
        counts and kinds and f"{kinds} data",
    ]
    return "; ".join(filter(None, (baselines, ", ".join(filter(None, tested)))))


def majority_word(section: Section) -> str:
    """The name of the second baseline."""
    return "majority class" if section.rows["objective"].eq("classify").any() else "trivial answer"


def _examples_word(kind: str) -> str:
    return {"recall": "questions", "language_modeling": "passages"}.get(kind, "examples")


def _either(counts: pd.Series) -> str:
    return " or ".join(f"{n:,}" for n in sorted({n for each in counts for n in each}))


def section_table(section: Section) -> Table:
    """A section's rows; columns in which no row has anything are left out."""
    sources: list[str] = []
    metric, rows = section.metric, section.rows
    metrics = [Metric(name, higher) for name, higher in zip(rows["metric"], rows["higher_is_better"], strict=True)]
    parts = mean_parts(section)

    def reported(row: pd.Series, own: Metric) -> str:
        # with the digits that the paper gives
        values = (f"{round(100 * r.value, 4):g} %" if own.is_share else f"{r.value:g}" for r in row["reported"])
        return ", ".join(f"{value} [{_number(sources, r)}]" for value, r in zip(values, row["reported"], strict=True))

    other_names = sorted_names(name for scores in rows["other_scores"] for name in scores if name != metric.name)
    several_kinds = rows["data"].nunique() > 1
    stateful = rows["kind"].eq("language_modeling").any() or rows["stateful"].eq(True).any()
    lines = []
    for (_, row), own in zip(rows.iterrows(), metrics, strict=True):
        scored = not math.isnan(row["score"])
        others = row["other_scores"]
        lines.append(
            {
                "rank": NONE if pd.isna(row["rank"]) else f"{row['rank']}{'=' if row['tied'] else ''}",
                "architecture": row["name"],
                "objective": _objective(row),
                "stateful": {True: "yes", False: "no"}.get(row["stateful"], "") if stateful else "",
                "mode": row["mode"],
                "parameters": _parameters(row),
                "seeds": f"{row['converged']}/{row['seeds']}",
                metric.title: own.format(row["score"]) if scored else row["failures"],
                "95 % interval": f"{own.format_range(row['low'], row['high'])} {row['interval']}".strip(),
                "each seed": " · ".join(
                    f"{seed}: {score if isinstance(score, str) else own.format_bare(score)}"
                    for seed, score in row["each_seed"].items()
                ),
                **{Metric(n).title: Metric(n).format(others[n]) if n in others else "" for n in other_names},
                LENGTH_GENERALIZATION: longer_text(row, parts, own) if section.has_longer else "",
                "reported": reported(row, own),
                "Δ": "" if math.isnan(row["delta"]) else own.format_difference(row["delta"]),
                "tokens/s": "" if math.isnan(row["tokens_per_second"]) else f"{row['tokens_per_second']:,.0f}",
                "peak memory": "" if pd.isna(row["peak_memory_bytes"]) else _memory(row["peak_memory_bytes"]),
                "data": row["data"] if several_kinds else "",
                "notes": "; ".join(row["notes"]),
            }
        )
    cells = pd.DataFrame(lines)
    return Table(cells.loc[:, cells.ne("").any()], sources)


def _number(sources: list[str], reported: Reported) -> int:
    source = f"{reported.source}, {reported.table}" if reported.table else reported.source
    if source not in sources:
        sources.append(source)
    return sources.index(source) + 1


def _objective(row: pd.Series) -> str:
    """The objective where a task has more than one, else empty."""
    return "" if row["objective"] == "classify" else row["objective"]


def _parameters(row: pd.Series) -> str:
    """The number of parameters; in brackets the deviation from the baseline's, where no width came near enough."""
    off = row["parameters_off"]
    return f"{row['parameters']:,}" + (f" ({100 * off:+.0f} %)" if abs(off) > MATCHED else "")


def _memory(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def remarks(section: Section) -> list[str]:
    """Remarks for below a section's table."""
    rows = section.rows
    lines = []
    if not section.metric.higher_is_better:
        lines.append(f"Lower {section.metric.title} is better.")
    objectives = [text for name, text in OBJECTIVES.items() if rows["objective"].eq(name).any()]
    if objectives:
        lines.append(f"Objective: {'; '.join(objectives)}.")
    if rows["kind"].eq("language_modeling").any() or rows["stateful"].eq(True).any():
        lines.append("Stateful: whether the state is carried from one segment of a text to the next.")
    machines = sorted({machine for hardware in rows["hardware"] for machine in hardware})
    if machines:
        where = " are from different machines" if len(machines) > 1 else ""
        lines.append(f"Tokens/s and memory{where}: {'; '.join(machines)}.")
    if (rows["parameters_off"].abs() > MATCHED).any():
        lines.append(
            f"Widths are solved so that every model has the baseline's number of parameters within {100 * MATCHED:.0f} "
            "%. In brackets: the deviation of a model for which no width comes that close."
        )
    if rows["reported"].map(len).any():
        if section.protocol != REPRODUCTION:
            lines.append(
                f"Reported scores come from the papers' own full-size training. `{section.protocol}` is not that "
                "protocol, so no difference is shown."
            )
        lines.append("Reported scores enter no average and no rank.")
    return lines


def row_label(row: pd.Series) -> str:
    """A row's name with what sets it apart: "linformer (infilling)", "mamba (causal_lm) (modified)"."""
    words = (_objective(row), *(note.partition(":")[0] for note in row["notes"]))
    return " ".join([row["name"], *(f"({word})" for word in words if word)])


# -- breakdowns ----------------------------------------------------------------------------------------------------


def breakdown_tables(section: Section) -> list[tuple[str, Table]]:
    """Tables of the score along each property of the questions, with their titles; positions in quarters."""
    exact, parts = placed_parts(section), placed_parts(section, coarse=True)
    names = dimensions(exact)
    rows = section.rows[section.rows.index.isin(parts["row"])]
    tables = []
    for name in names:
        scores = along(parts, section.metric, name)
        trained = trained_length(parts) if name == LENGTH else math.nan
        heads = columns(parts, name)
        lines = []
        for index, row in rows.iterrows():
            cells = []
            for longer, value in heads:
                absent = NOT_DEFINED if longer and not row["evaluated_longer"] else NONE
                key = (index, longer, value)
                cells.append(section.metric.format_bare(scores[key]) if key in scores.index else absent)
            lines.append([row_label(row), *cells])
        rest = [other if other.endswith("s") else f"{other}s" for other in names if other != name]
        over = f" (over all {' and '.join(rest)})" if rest else ""
        unit = ", %" if section.metric.is_share else ""
        headers = [_header(exact, name, longer, value, trained) for longer, value in heads]
        title = f"{section.task}: {section.metric.title} by {name}{over}{unit}"
        tables.append((title, Table(pd.DataFrame(lines, columns=["architecture", *headers]))))
    return tables


def _header(parts: pd.DataFrame, dimension: str, longer: bool, value: float, trained: float) -> str:
    text = label(parts, dimension, value).replace(" (", "\n(")
    if longer:
        return "\n".join(filter(None, ("longer", text, factor(value, trained))))
    return f"trained\n{text}" if dimension == LENGTH else text


def breakdown_remark(section: Section) -> str:
    """How to read the tables and charts of a section's breakdowns."""
    lines = ["Means over seeds."]
    if section.has_longer:
        lines.append(
            "Longer: the split length_generalization, with questions that are longer or harder than any in training; "
            "×k: k times the length."
        )
        measured = section.rows.index.isin(section.parts["row"])
        if (measured & ~section.rows["evaluated_longer"]).any():
            lines.append("Not defined: the architecture has no form for lengths beyond those it was built for.")
    return " ".join(lines)


# -- over tasks ----------------------------------------------------------------------------------------------------


def overall_table(overall: Overall) -> Table:
    """Architectures by the tasks of a suite, best average first."""
    rows = overall.rows.assign(
        cell=[
            f"{overall.metrics[row['task']].format(row['score'])} "
            f"{overall.metrics[row['task']].format_range(row['low'], row['high'])}".rstrip()
            if row["failures"] == "" or not math.isnan(row["score"])
            else row["failures"]
            for _, row in overall.rows.iterrows()
        ]
    )
    cells = rows.pivot(index="name", columns="task", values="cell").reindex(overall.average.index).fillna("not run")
    table = pd.DataFrame({"architecture": overall.average.index})
    objectives = [_objectives(rows[rows["name"] == name]) for name in overall.average.index]
    if any(objectives):
        table["objective"] = objectives
    if overall.common:
        averages = ["" if math.isnan(value) else f"{100 * value:.1f} %" for value in overall.average]
        table[f"average of {len(overall.common)}"] = [text or NONE for text in averages]
    for task, metric in overall.metrics.items():
        table[task if metric.is_share else f"{task} ({metric.title})"] = list(cells[task])
    return Table(table)


def _objectives(rows: pd.DataFrame) -> str:
    """The objective of an architecture's rows; where it differs from task to task, with the tasks."""
    tasks: dict[str, list[str]] = {}
    for _, row in rows[rows["objective"] != "classify"].iterrows():
        tasks.setdefault(row["objective"], []).append(row["task"])
    if len(tasks) == 1:
        return next(iter(tasks))
    return ", ".join(f"{objective} ({', '.join(names)})" for objective, names in sorted(tasks.items()))


def overall_line(overall: Overall) -> str:
    """The tasks that the average of a suite is over."""
    odd = sorted({metric.title for metric in overall.metrics.values() if not metric.is_share})
    never = f" No average includes {' or '.join(odd)}." if odd else ""
    if not overall.common:
        kind = "task of accuracies" if odd else "task"
        return f"No average: no {kind} has a score of every architecture.{never}"
    return f"Average over the tasks that all these rows have a score on: {', '.join(overall.common)}.{never}"


def titled_overalls(overalls: Sequence[Overall]) -> list[tuple[str, Overall]]:
    """The suites with several tasks, with their titles."""
    found = [overall for overall in overalls if len(overall.metrics) > 1]
    return [("overall" if len(overalls) == 1 else f"overall: {overall.suite}", overall) for overall in found]


# -- one run -------------------------------------------------------------------------------------------------------


def run_line(stored: StoredRecord) -> str:
    """The outcome of a run in a line or two, and its file."""
    path, record = stored
    what = f"{record.architecture.name} on {record.task.name} ({record.protocol}, seed {record.seed})"
    where = f"\n  record: {path}"
    if record.metrics is None:
        return f"{what}: {record.status}: {record.error}{where}"
    (section,) = compare([stored]).sections()
    row, metric, test = section.rows.iloc[0], section.metric, record.metrics.test
    lines = ((section.majority, majority_word(section)), (section.chance, "chance"))
    baselines = ", ".join(f"{word} {_precise(metric, value)}" for value, word in lines if not math.isnan(value))
    text = f"{what}: test {metric.title} {_precise(metric, test.scores[metric.name])} of {test.n}"
    if objective := _objective(row):
        text += f" {_examples_word(record.task.kind)}, {objective}"
    text += ", stateful" if record.stateful else ""
    text += "".join(f", {Metric(n).title} {Metric(n).format(value)}" for n, value in row["other_scores"].items())
    text += f" ({baselines})" if baselines else ""
    text += f", {record.seconds.train + record.seconds.eval:.0f} s"
    if section.has_longer:
        text += f"\n  {LENGTH_GENERALIZATION}: {longer_text(row, mean_parts(section), metric) or NONE}"
    return text + where


def _precise(metric: Metric, value: float | None) -> str:
    """With one digit more than in tables."""
    return f"{100 * value:.2f} %" if metric.is_share and value is not None else metric.format(value)


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """The skipped files by name, with a count."""
    if not problems:
        return []
    count = (
        "1 file skipped (not a valid record):" if len(problems) == 1 else f"{len(problems)} files skipped (not valid):"
    )
    return [count, *(f"{problem.file}: {problem.reason}" for problem in problems)]


def one_line(text: str) -> str:
    """`text` with a space for each character that is not printable, line breaks included."""
    return "".join(char if char.isprintable() else " " for char in text)
