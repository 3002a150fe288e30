"""What stands above the rows of a section: the task, its baselines and test set, how the rows were trained."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from zoo.board.results import Section
from zoo.board.words import DATA
from zoo.spec.registry import registry


def section_title(section: Section) -> str:
    """The task, with its version where a newer one is on the board."""
    return section.task if section.current else f"{section.task} (superseded version {section.version})"


def task_description(section: Section) -> str:
    """What the task is, in a sentence; empty where it is not installed here in this version."""
    entry = registry().tasks.get(section.task)
    return entry.record.description if entry and entry.record.version == section.version else ""


def describe_task(task: str) -> str:
    """ "TASK: what it tests. ", to begin a text with; empty where the task is not installed here."""
    entry = registry().tasks.get(task)
    return f"{task}: {entry.record.description} " if entry and entry.record.description else ""


def section_heading(section: Section, *, explained: bool = False) -> str:
    """Baselines and test set in one line; `explained`: with what the baselines do."""
    rows = section.rows
    lines = (
        (section.chance, "chance", "a uniform guess"),
        (section.majority, majority_word(section), trivial_answer(section)),
    )
    baselines = ", ".join(
        f"{word} {section.metric.format(value)}" + (f" ({text})" if explained and text else "")
        for value, word, text in lines
        if not math.isnan(value)
    )
    counts, answers = _join_counts(rows["examples"]), _join_counts(rows["answers"])
    kinds = " and ".join(DATA.get(kind, kind) for kind in sorted(set(rows.loc[rows["score"].notna(), "data"])))
    tested = [
        counts and f"{counts} test {examples_word(rows['kind'].iloc[0])}",
        answers and f"{answers} answer tokens",
        counts and kinds and f"{kinds} data",
    ]
    return "; ".join(filter(None, (baselines, ", ".join(filter(None, tested)))))


def majority_word(section: Section) -> str:
    """The name of the second baseline."""
    if section.rows["kind"].eq("regression").any():
        return "mean of training"
    return "majority class" if section.rows["objective"].eq("classify").any() else "trivial answer"


def trivial_answer(section: Section) -> str:
    """What the second baseline does; empty where the task is not installed here in this version."""
    entry = registry().tasks.get(section.task)
    return entry.record.trivial_answer if entry and entry.record.version == section.version else ""


def training_line(section: Section) -> str:
    """What the ranked rows were trained with, each a number or a range over the rows, and how many are best at an end
    of what their sweep tried; of a section without ranked rows those with a score."""
    ranked = section.rows["rank"].notna()
    rows = section.rows[ranked if ranked.any() else section.rows["score"].notna()]
    samples, seconds = (sorted(x for each in rows[name] for x in each) for name in ("samples", "train_seconds"))
    if not samples:
        return ""
    parts = [f"trained on {_span(samples)} samples in {_span(seconds)} s (wall clock, whatever else ran)"]
    for name, what in (("d_model", "width"), ("n_layers", "depth")):
        known = sorted(rows[name].dropna())
        parts += [f"{what} ({name}) {_span(known)}"] if known else []
    tuned = rows[rows["tuned"] != ""]
    edges = Counter(edge for each in tuned["edges"] for edge in each)
    swept = [f"{n} of {len(tuned)} rows are best at the {edge}" for edge, n in sorted(edges.items())]
    return "; ".join([", ".join(parts), *swept])


def options_line(section: Section) -> str:
    """The task's options that all rows with nothing changed have in common, but for what is empty and for the place of
    the data; empty where there is no such row."""
    unchanged = section.rows[[not overrides for overrides in section.rows["overrides"]]]
    known = [options for options in unchanged["task_options"] if isinstance(options, Mapping)]
    shared = [(name, value) for name, value in (known[0] if known else {}).items() if name != "path" and value != ""]
    said = [f"{name}={_option(value)}" for name, value in shared if all(each.get(name) == value for each in known)]
    return f"task options: {', '.join(said)}" if said else ""


def _option(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else f"{value}"


def _span(values: Sequence[float]) -> str:
    """The least and the greatest of sorted numbers, rounded to whole ones: "44–64"; "2" where they are equal."""
    return "–".join(dict.fromkeys(f"{values[k]:,.0f}" for k in (0, -1)))


def examples_word(kind: str) -> str:
    """What the examples of a kind of task are called."""
    return {"recall": "questions", "language_modeling": "passages"}.get(kind, "examples")


def _join_counts(counts: pd.Series) -> str:
    """The distinct numbers in these lists: "1,000 or 2,000"."""
    return " or ".join(f"{n:,}" for n in sorted({n for each in counts for n in each}))
