"""What the results of a protocol say, before all rows: who is best on each task, how sure that is, at what cost; and
what the tasks test."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from zoo.board.headings import majority_word, task_description, training_line, trivial_answer
from zoo.board.results import Section
from zoo.board.tables import NONE, Table
from zoo.spec.registry import registry

CONDITIONS = {
    "quick": "Small models with about the same number of parameters on shortened tasks, each trained on the same "
    "number of examples, within minutes on a CPU: architectures under equal conditions, not what they can do at full "
    "size.",
    "paper": "Full tasks with the sizes, learning rates and budgets that each architecture's paper gives for itself.",
}
"""What the protocols are, in a sentence or two."""
TRIVIAL = "trivial answer"
NAMED = 3
"""Families of the best rows that are named; of more only their number is."""
WINNERS = (
    "Best: all whose scores are equal as they are written. Could be as good: no row is shown to be better than these "
    "(95 %, adjusted for the number of rows, so that intervals, each of one row, may lie apart and not tell). Trivial "
    "answer: the best score that needs no learning. Parameters: of the best, and in brackets of all. Training speed: "
    "tokens per second, measured apart on an idle machine; of several best rows that of the fastest. Rows: an "
    "architecture without a form for a task has none."
)
ONCE = (
    "Every row was trained with one seed: intervals cover the choice of test questions only, and another training "
    "could turn out otherwise."
)
SOME_ONCE = "Where no row of a task has two seeds, intervals cover the choice of test questions only."
CANNOT = "Nothing here says who would win on another task, at another size, or with other learning rates."
FAMILIES = (
    "The best architecture of each family on each task; ★: it could be the best of all. A family with more "
    f"architectures has more chances to be good. {NONE}: not run, or without a ranked score."
)


@dataclass(frozen=True)
class TaskLine:
    """A task in a list: what it tests, what the results say, and what its rows were trained on and with; all but
    `verdict` may be empty."""

    task: str
    description: str
    verdict: str
    training: str


@dataclass(frozen=True)
class Suite:
    """The tasks of a suite that have results, and what they have in common; empty where it is not installed here."""

    name: str
    description: str
    tasks: Sequence[TaskLine]


def ranked_sections(sections: Sequence[Section]) -> list[Section]:
    """The sections of current tasks with any ranked row, on whole data."""
    shown = (section for section in sections if section.current and not section.partial)
    return [section for section in shown if section.rows["rank"].notna().any()]


def winners(sections: Sequence[Section]) -> Table:
    """Task by task the best row, how sure that is, and what it costs beside the fastest."""
    lines = []
    for section in ranked_sections(sections):
        ranked, metric = _ranked(section), section.metric
        best, others = _best(ranked), _candidates(ranked)["name"]
        alone = "no other was run" if len(ranked) == 1 else "no other"
        first, families_ = best.iloc[0], list(dict.fromkeys(best["family"]))
        lines.append(
            {
                "task": section.task,
                "best": ", ".join(best["name"]),
                "family": ", ".join(families_) if len(families_) <= NAMED else f"{len(families_)} families",
                "score and 95 % interval": metric.format_with(first["score"], first["low"], first["high"]),
                "trained": _times(best["seeds"]),
                "could be as good": ", ".join(others) or alone,
                TRIVIAL: _trivial_answer(section),
                "metric": f"{metric.title}\n({'higher' if metric.higher_is_better else 'lower'} is better)",
                "parameters": _parameters(best, ranked),
                "training speed": _relative_speed(best, ranked),
                "rows": f"{len(ranked)}",
            }
        )
    return Table(list(lines[0]), [list(line.values()) for line in lines]) if lines else Table([], [])


def winners_note(sections: Sequence[Section]) -> str:
    """How to read that table, and what it cannot say."""
    return " ".join([WINNERS, ONCE if _all_once(sections) else SOME_ONCE, CANNOT])


def suites(sections: Sequence[Section]) -> list[Suite]:
    """The tasks with ranked rows by suite: what they test, and whether a row is shown to be the best, or which could
    be."""
    shown, once = ranked_sections(sections), _all_once(sections)
    found: dict[str, list[TaskLine]] = {}
    for section in shown:
        verdict = _verdict(section)
        if not once and _ranked(section)["seeds"].max() == 1:
            verdict += " Every row was trained with one seed."
        line = TaskLine(section.task, task_description(section), verdict, _training(section))
        found.setdefault(section.suite, []).append(line)
    return [Suite(name, registry().suite_description(name), tasks) for name, tasks in found.items()]


def families(sections: Sequence[Section]) -> Table:
    """Family by family the best score on each task; ★ where its row could be the best of all."""
    shown = ranked_sections(sections)
    best: dict[str, dict[str, str]] = {}
    for section in shown:
        for _, row in _ranked(section).iterrows():
            star = " ★" if row["best_rank"] == 1 else ""
            text = f"{section.metric.format(row['score'])} {row['name']}{star}"
            best.setdefault(row["family"], {}).setdefault(section.task, text)
    rows = [[name, *(best[name].get(section.task, NONE) for section in shown)] for name in sorted(best)]
    return Table(["family", *(_heading(section) for section in shown)], rows)


def _heading(section: Section) -> str:
    better = "" if section.metric.higher_is_better else f"\n({section.metric.title}, lower is better)"
    return section.task + better


def _ranked(section: Section) -> pd.DataFrame:
    return section.rows[section.rows["rank"].notna()]


def _best(ranked: pd.DataFrame) -> pd.DataFrame:
    """The rows that share the best score, as it is written."""
    return ranked[ranked["rank"] == 1]


def _candidates(ranked: pd.DataFrame) -> pd.DataFrame:
    """The further rows than which no row is shown to be better."""
    return ranked[(ranked["best_rank"] == 1) & (ranked["rank"] > 1)]


def _all_once(sections: Sequence[Section]) -> bool:
    return all(_ranked(section)["seeds"].max() == 1 for section in ranked_sections(sections))


def _verdict(section: Section) -> str:
    ranked = _ranked(section)
    best, others = _best(ranked), _candidates(ranked)
    first, score, (baseline, word, answer) = (
        best.iloc[0],
        section.metric.format(best["score"].iloc[0]),
        _baseline(section),
    )
    if not section.metric.higher_is_better:
        score = f"{section.metric.title} {score}, lower is better"
    if word:
        score += f" ({word}, {answer}: {baseline})" if answer else f" ({word} {baseline})"
    if len(ranked) == 1:
        return f"Only {first['name']} was run: {score}."
    if len(best) == 1 and others.empty:
        rest = (
            f"the other {len(ranked) - 1} rows" if len(ranked) > 2 else f"{ranked['name'].iloc[1]}, the only other row"
        )
        return f"{first['name']} ({first['family']}) is better than {rest}: {score}."
    of_family = list(dict.fromkeys([*best["family"], *others["family"]]))
    alone = f" ({of_family[0]})" if len(of_family) == 1 else ""
    has = "has" if len(best) == 1 else "share"
    text = f"{_join(best['name'], 'and')}{alone} {has} the best score of {len(ranked)} rows, {score}"
    text += f", but {_join(others['name'], 'or')} could be as good." if len(others) else "; no other could be as good."
    return text if alone else f"{text} They are of {len(of_family)} families: {', '.join(of_family)}."


def _training(section: Section) -> str:
    """How long an example is, as it was read where costs were measured, and what the rows were trained with."""
    tokens = [cost.tokens for cost in section.rows["cost"] if cost is not None]
    length = f"An example has {statistics.median(tokens):,.0f} tokens on average; " if tokens else ""
    text = length + training_line(section)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _times(seeds: pd.Series) -> str:
    """ "with 1 seed", "with 3 seeds" or "with 1 to 3 seeds"."""
    low, high = seeds.min(), seeds.max()
    words = f"{high}" if low == high else f"{low} to {high}"
    return f"with {words} {'seeds' if high > 1 else 'seed'}"


def _join(names: pd.Series, word: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else str(last)


def _baseline(section: Section) -> tuple[str, str, str]:
    """The better of the baselines, what it is and what it does: "14.3 %", "majority class", "always the most frequent
    label of training"; empty without any."""
    lines = [(section.chance, "chance", ""), (section.majority, majority_word(section), trivial_answer(section))]
    known = [line for line in lines if not math.isnan(line[0])]
    if not known:
        return "", "", ""
    sign = 1 if section.metric.higher_is_better else -1
    value, word, answer = max(known, key=lambda line: sign * line[0])
    return section.metric.format(value), word, answer


def _trivial_answer(section: Section) -> str:
    """ "14.3 %" and, in a second line, "(majority class)"."""
    baseline, word, _ = _baseline(section)
    return f"{baseline}\n({word})" if word and word != TRIVIAL else baseline


def _parameters(best: pd.DataFrame, ranked: pd.DataFrame) -> str:
    """ "102,574" and, in a second line, the least and the most of all rows: "(97,490–103,178)"."""
    own, low, high = best["parameters"], ranked["parameters"].min(), ranked["parameters"].max()
    return "–".join(dict.fromkeys(f"{n:,}" for n in (own.min(), own.max()))) + (
        f"\n({low:,}–{high:,})" if low < high else ""
    )


def _relative_speed(best: pd.DataFrame, rows: pd.DataFrame) -> str:
    """ "40 % of mamba's, the fastest"; of several best rows that of the fastest, with its name."""
    measured = rows[rows["cost"].notna()]
    speeds = {row["name"]: row["cost"].tokens_per_second("train")[0] for _, row in measured.iterrows()}
    own = [name for name in best["name"] if name in speeds]
    if not own:
        return "not measured"
    fastest, name = (max(names, key=lambda name: speeds[name]) for names in (list(speeds), own))
    named = f"{name}: " if len(best) > 1 else ""
    if fastest == name:
        return f"{named}the fastest"
    return f"{named}{100 * speeds[name] / speeds[fastest]:.0f} % of {fastest}'s, the fastest"
