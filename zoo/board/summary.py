"""What the results of a protocol say, before all rows: who is best on each task, how sure that is, at what cost; and
what the tasks test."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from zoo.board.results import Section
from zoo.board.tables import NONE, Table, majority_word, task_description
from zoo.spec.registry import registry

CONDITIONS = {
    "quick": "Small models with about the same number of parameters on shortened tasks, each trained on the same "
    "number of examples, within minutes on a CPU: architectures under equal conditions, not what they can do at full "
    "size.",
    "paper": "Full tasks with the sizes, learning rates and budgets that each architecture's paper gives for itself.",
}
"""What the protocols are, in a sentence or two."""
TRIVIAL = "trivial answer"
WINNERS = (
    "Could be as good: no row is shown to be better than these (95 %, adjusted for the number of rows). Trivial "
    "answer: the best score that needs no learning. Parameters: of the best row, and in brackets of all. Training "
    "speed: tokens per second, measured apart on an idle machine."
)
ONCE = (
    "Every row was trained once: intervals cover the choice of test questions only, and another training could turn "
    "out otherwise."
)
SOME_ONCE = "Where no row of a task has two seeds, intervals cover the choice of test questions only."
CANNOT = "Nothing here says who would win on another task, at another size, or with other learning rates."
FAMILIES = (
    "The best architecture of each family on each task; ★: it could be the best of all. A family with more "
    f"architectures has more chances to be good. {NONE}: not run, or without a ranked score."
)


@dataclass(frozen=True)
class TaskLine:
    """A task in a list: what it tests, and what the results say; `description` may be empty."""

    task: str
    description: str
    verdict: str


@dataclass(frozen=True)
class Suite:
    """The tasks of a suite that have results, and what they have in common; empty where it is not installed here."""

    name: str
    description: str
    tasks: Sequence[TaskLine]


def ranked_sections(sections: Sequence[Section]) -> list[Section]:
    """The sections of current tasks with any ranked row."""
    return [section for section in sections if section.current and section.rows["rank"].notna().any()]


def winners(sections: Sequence[Section]) -> Table:
    """Task by task the best row, how sure that is, and what it costs beside the fastest."""
    lines = []
    for section in ranked_sections(sections):
        ranked = _ranked(section)
        best, metric = ranked.iloc[0], section.metric
        others = _candidates(ranked)["name"].iloc[1:]
        alone = "no other was run" if len(ranked) == 1 else "no other"
        lines.append(
            {
                "task": section.task,
                "best": best["name"],
                "family": best["family"],
                "score and 95 % interval": metric.format_with(best["score"], best["low"], best["high"]),
                "metric": f"{metric.title}\n({'higher' if metric.higher_is_better else 'lower'} is better)",
                "could be as good": ", ".join(others) or alone,
                TRIVIAL: _trivial_answer(section),
                "parameters": _parameters(best, ranked),
                "training speed": _relative_speed(best, ranked),
                "rows": f"{len(ranked)}",
                "seeds": f"{best['seeds']}",
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
        verdict = " ".join(filter(None, [_verdict(section), _example(section)]))
        if not once and _ranked(section)["seeds"].max() == 1:
            verdict += " Every row was trained once."
        found.setdefault(section.suite, []).append(TaskLine(section.task, task_description(section), verdict))
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


def _candidates(ranked: pd.DataFrame) -> pd.DataFrame:
    """The best row, and then the others than which no row is shown to be better."""
    return ranked[(ranked["best_rank"] == 1) | (ranked.index == ranked.index[0])]


def _all_once(sections: Sequence[Section]) -> bool:
    return all(_ranked(section)["seeds"].max() == 1 for section in ranked_sections(sections))


def _verdict(section: Section) -> str:
    ranked = _ranked(section)
    best, candidates = ranked.iloc[0], _candidates(ranked)
    score, (baseline, word) = section.metric.format(best["score"]), _baseline(section)
    if not section.metric.higher_is_better:
        score = f"{section.metric.title} {score}, lower is better"
    score += f" ({word} {baseline})" if word else ""
    if len(ranked) == 1:
        return f"Only {best['name']} was run: {score}."
    if len(candidates) == 1:
        others = (
            f"the other {len(ranked) - 1} rows" if len(ranked) > 2 else f"{ranked['name'].iloc[1]}, the only other row"
        )
        return f"{best['name']} ({best['family']}) is better than {others}: {score}."
    others, of_family = _join(candidates["name"].iloc[1:], "or"), list(dict.fromkeys(candidates["family"]))
    alone = f" ({of_family[0]})" if len(of_family) == 1 else ""
    text = f"{best['name']}{alone} has the best score of {len(ranked)} rows, {score}, but {others} could be as good."
    return text if alone else f"{text} They are of {len(of_family)} families: {', '.join(of_family)}."


def _example(section: Section) -> str:
    """How long an example is, as it was read where costs were measured; empty where they were not."""
    tokens = [cost.tokens for cost in section.rows["cost"] if cost is not None]
    return f"An example has {statistics.median(tokens):,.0f} tokens on average." if tokens else ""


def _join(names: pd.Series, word: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else str(last)


def _baseline(section: Section) -> tuple[str, str]:
    """The better of the baselines and what it is: "14.3 %" and "majority class"; empty without any."""
    lines = [(section.chance, "chance"), (section.majority, majority_word(section))]
    known = [(value, word) for value, word in lines if not math.isnan(value)]
    if not known:
        return "", ""
    sign = 1 if section.metric.higher_is_better else -1
    value, word = max(known, key=lambda line: sign * line[0])
    return section.metric.format(value), word


def _trivial_answer(section: Section) -> str:
    """ "14.3 %" and, in a second line, "(majority class)"."""
    baseline, word = _baseline(section)
    return f"{baseline}\n({word})" if word and word != TRIVIAL else baseline


def _parameters(best: pd.Series, ranked: pd.DataFrame) -> str:
    """ "102,574" and, in a second line, the least and the most of all rows: "(97,490–103,178)"."""
    low, high = ranked["parameters"].min(), ranked["parameters"].max()
    return f"{best['parameters']:,}" + (f"\n({low:,}–{high:,})" if low < high else "")


def _relative_speed(row: pd.Series, rows: pd.DataFrame) -> str:
    """ "40 % of mamba's, the fastest"."""
    measured = rows[rows["cost"].notna()]
    speeds = {row["name"]: row["cost"].tokens_per_second("train")[0] for _, row in measured.iterrows()}
    if row["name"] not in speeds:
        return "not measured"
    fastest = max(speeds, key=lambda name: speeds[name])
    if fastest == row["name"]:
        return "the fastest"
    return f"{100 * speeds[row['name']] / speeds[fastest]:.0f} % of {fastest}'s, the fastest"
