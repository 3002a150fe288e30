"""Runs -> results: one row per configuration, ranked within each task. Pure functions, sorted output.

Protocols are never mixed, and `smoke`, which only proves that the pieces fit, is left out. Rows are ranked against each
other only where that is fair: nothing changed by the user, the architecture's current configuration under the protocol,
the same data, the same metric; the others stand below the ranked ones and have notes that say why.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from zoo.board.costs import costs_of
from zoo.board.frame import groups_frame, records_frame
from zoo.board.metric import Metric, sorted_names
from zoo.board.paired import compare_with, measure_paired_errors
from zoo.board.reported import ReportedScores
from zoo.board.statistics import Estimate, Run, estimate_rows, rank_rows
from zoo.spec.cost import CostRecord
from zoo.spec.record import Record
from zoo.spec.store import StoredRecord, best_trial, describe_trial, ended_trials, in_order, sweep_key

UNRANKED_PROTOCOLS = ("smoke",)
"""Protocols whose scores mean nothing."""

REPRODUCTION = "paper"
"""The one protocol that is meant to repeat what papers did, so that the difference to their scores is shown."""

UNFINISHED = "not all trials have ended"

SECTION = ["protocol", "task", "task_version"]
CONFIGURATION = [*SECTION, "architecture", "distribution", "config_hash", "data_key", "metric", "higher_is_better"]


class Board(NamedTuple):
    """What is shown of a set of records.

    results  one row per configuration, see `_summarize` and `_compare`; sorted as it is shown
    groups   one row per seed and group of the test questions: `row` (index of results), `seed`, and the columns of
             `groups_frame`
    """

    results: pd.DataFrame
    groups: pd.DataFrame

    def sections(self) -> Iterator[Section]:
        """Every version of every task under every protocol."""
        for _, rows in self.results.groupby(SECTION, sort=False) if len(self.results) else ():
            of = rows[rows["reference"]].iloc[0]
            shown = rows[~rows["lost"]]
            same = rows[(rows["data_key"] == of["data_key"]) & (rows["metric"] == of["metric"])]
            yield Section(
                protocol=of["protocol"],
                task=of["task"],
                version=of["task_version"],
                suite=of["suite"],
                current=bool(of["current"]),
                cost_only=bool(of["cost_only"]),
                partial=of["data"] == "part",
                metric=Metric(of["metric"], bool(of["higher_is_better"])),
                chance=float(of["chance"]),
                majority=float(same["majority"].max()),  # records from before a baseline was computed have none
                rows=shown,
                groups=self.groups[self.groups["row"].isin(shown.index)],
                lost_trials=len(rows) - len(shown),
            )

    def protocols(self) -> Iterator[tuple[str, list[Section]]]:
        """The sections of each protocol."""
        for protocol, sections in groupby(self.sections(), lambda section: section.protocol):
            yield protocol, list(sections)


@dataclass(frozen=True)
class Section:
    """One version of one task under one protocol: metric and baselines (NaN: none) of the ranked rows; all rows and
    their groups, but for trials of a sweep that has a better one.

    cost_only  whether no row is ranked, because scores say nothing under a budget so small
    partial    whether its data are a part of the published ones, so that nothing that is said of several tasks holds it
    """

    protocol: str
    task: str
    version: str
    suite: str
    current: bool
    cost_only: bool
    partial: bool
    metric: Metric
    chance: float
    majority: float
    rows: pd.DataFrame
    groups: pd.DataFrame
    lost_trials: int

    @cached_property
    def mean_groups(self) -> pd.DataFrame:
        """The groups of each row, averaged over seeds: row, longer, dimensions, score, weight."""
        keys = ["row", "longer", *dimension_columns(self.groups)]
        weights = self.groups.groupby(keys, dropna=False)["weight"].max().rename("weight").reset_index()
        return weighted_means(self.groups.assign(weight=1), keys, self.metric).assign(weight=weights["weight"])

    @property
    def answers(self) -> dict[str, np.ndarray]:
        """(seeds, n) bool by ranked row: which test questions were answered right, where that is known."""
        ranked = self.rows[self.rows["rank"].notna() & self.rows["right"].notna()]
        return dict(zip(ranked["name"], ranked["right"], strict=True))

    @property
    def baseline(self) -> str:
        """The row that the others' `difference` is to; "" for none."""
        compared = self.rows[self.rows["difference"].notna()]
        return str(compared["baseline"].iloc[0]) if len(compared) else ""

    @property
    def has_longer(self) -> bool:
        """Whether the task has a length_generalization split."""
        return bool((self.rows["evaluated_longer"] | self.rows["offers_longer"]).any())


def weighted_means(groups: pd.DataFrame, keys: list[str], metric: Metric) -> pd.DataFrame:
    """The weighted mean score of the groups that agree in `keys`; NaN where any of theirs is."""
    weight = groups["weight"].astype(float)
    # NaN would be left out of a sum, infinity is not
    total = (groups["score"].map(metric.to_mean) * weight).fillna(math.inf)
    sums = groups[keys].assign(total=total, weight=weight).groupby(keys, dropna=False).sum()
    means = (sums["total"] / sums["weight"]).replace(math.inf, math.nan)
    return means.map(metric.from_mean, na_action="ignore").rename("score").reset_index()


def make_board(
    stored: Sequence[StoredRecord],
    reported: ReportedScores | None = None,
    costs: Sequence[CostRecord] = (),
    *,
    protocol: str | None = None,
    tasks: Collection[str] | None = None,
    architectures: Collection[str] | None = None,
) -> Board:
    """The board of all protocols (or of one), restricted to `tasks` and `architectures` where they are given."""
    chosen = [
        one
        for one in ranked_protocols(stored)
        if (protocol is None or one.record.protocol == protocol)
        and (tasks is None or one.record.task.name in tasks)
        and (architectures is None or one.record.architecture.name in architectures)
    ]
    return compare(chosen, reported, costs)


def ranked_protocols(stored: Sequence[StoredRecord]) -> list[StoredRecord]:
    """The records that a board shows: those of protocols whose scores mean something."""
    return [one for one in stored if one.record.protocol not in UNRANKED_PROTOCOLS]


def compare(
    stored: Sequence[StoredRecord], reported: ReportedScores | None = None, costs: Sequence[CostRecord] = ()
) -> Board:
    """The board of exactly these records, with what was measured of their costs."""
    runs = records_frame(stored)
    best = _best_trials(stored)
    runs["repeats"] = runs.groupby([*CONFIGURATION, "seed"])["path"].transform("size") - 1
    counting = _latest_of_each_seed(runs)
    rows = [_summarize(group, reported or {}) for _, group in counting.groupby(CONFIGURATION)]
    results = _compare(pd.DataFrame(rows), best, costs) if rows else pd.DataFrame()
    row_of = {run: row for row, own in results["runs"].items() for run in own} if rows else {}
    groups = groups_frame(stored)
    groups = groups[groups["run"].isin(row_of.keys())]
    groups = groups.assign(row=groups["run"].map(row_of), seed=groups["run"].map(runs["seed"]))
    return Board(results, groups.sort_values(["row", "seed", "longer", *dimension_columns(groups)], ignore_index=True))


def _best_trials(stored: Sequence[StoredRecord]) -> dict[str, Record | None]:
    """The best trial of each sweep whose trials have all ended, by the sweep's key; None where none has a score. Of
    repeated trials the latest counts."""
    sweeps: dict[str, dict[str, Record]] = {}
    for record in in_order(stored):
        sweeps.setdefault(sweep_key(record), {})[record.id] = record
    ended = {key: ended_trials(list(trials.values())) for key, trials in sweeps.items() if key}
    return {key: best_trial(trials) for key, trials in ended.items() if len(trials) == _count_trials(trials)}


def dimension_columns(groups: pd.DataFrame) -> list[str]:
    """The columns that hold dimensions of the groups (length, pairs …), by name."""
    fixed = ("run", "row", "seed", "longer", "score", "weight")
    return sorted(str(name) for name in groups if name not in fixed and groups[name].notna().any())


def _latest_of_each_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """The run of each configuration and seed that counts, in order of time: the latest ok run, else the latest."""
    ok = runs["status"] == "ok"
    order = runs.assign(ok=ok).sort_values(["ok", "ended", "repeat", "path"]).drop(columns="ok")
    return order.drop_duplicates([*CONFIGURATION, "seed"], keep="last").sort_values(["ended", "repeat", "path"])


KEPT = [
    *CONFIGURATION,
    *("suite", "kind", "cost_only", "name", "family", "mode", "objective", "stateful", "overrides", "data"),
    *("parameters", "parameters_off", "baseline", "sweep", "trial", "edges", "cost_key", "task_options"),
    *("state_size", "d_model", "n_layers", "offers_longer", "chance", "majority", "ended"),
]
"""Columns that a row has from the latest of its runs."""


def _summarize(runs: pd.DataFrame, reported: ReportedScores) -> dict[str, Any]:
    """The row of one configuration, from the run of each of its seeds.

    scored                       the runs of the seeds that have a score
    score                        mean over the seeds; NaN where none has a score
    each_seed                    seed -> score, or what there is instead of it
    failures                     seeds without a score: "diverged" if all, or "2 diverged, 1 timeout"; empty without any
    other_scores                 means over the seeds of the other test scores; None where one was not finite
    length_generalization        mean over the seeds of the score on that split
    examples, answers            numbers of test examples, and of predicted tokens where those are others
    samples, train_seconds       of the training of each seed that ended well
    right                        (seeds, n) bool: which test questions were answered right; None where that is not known
    runs, records                rows of `records_frame`, and their files
    """
    last = runs.iloc[-1]
    runs = runs.sort_values("seed")
    metric = Metric(last["metric"], bool(last["higher_is_better"]))
    ok = runs[runs["status"] == "ok"]
    scored = ok[ok["score"].notna()]
    spread = scored["stderr"].astype(object).where(scored["stderr"].notna(), None)
    own = [Run(*run) for run in zip(scored["score"], scored["n"], spread, strict=True)]
    score = metric.mean([run.score for run in own]) if own else math.nan
    outcomes = Counter(outcome for outcome in runs["outcome"] if outcome)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    names = sorted_names(name for scores in ok["scores"] for name in scores)
    others = {name: _mean(Metric(name), [scores.get(name) for scores in ok["scores"]]) for name in names}
    longer = ok.loc[ok["evaluated_longer"], "length_generalization"]
    published = reported.get(f"{last['distribution']}:{last['architecture']}", ())
    matching = [one for one in published if one.task == last["task"] and one.metric == metric.name]
    delta = score - matching[0].value if own and matching and last["protocol"] == REPRODUCTION else math.nan
    kept: dict[str, Any] = {name: last[name] for name in KEPT}
    return kept | {
        "seeds": len(runs),
        "superseded": int(runs["repeats"].sum()),
        "converged": int(runs["converged"].sum()),
        "scored": own,
        "score": score,
        "each_seed": {int(s): o or v for s, o, v in zip(runs["seed"], runs["outcome"], runs["score"], strict=True)},
        "failures": counted if runs["outcome"].nunique() > 1 else "".join(outcomes),
        "other_scores": others,
        "length_generalization": metric.mean(list(longer)) if len(longer) else math.nan,
        "evaluated_longer": len(longer) > 0,
        "hardware": sorted(set(ok["machine"])),
        "samples": list(ok["samples"]),
        "train_seconds": list(ok["train_seconds"]),
        "examples": sorted(set(ok["n"])),
        "answers": sorted(set(ok.loc[ok["answers"] != ok["n"], "answers"])),
        "reported": matching,
        "delta": delta,
        "interrupted": bool((runs["status"] == "interrupted").all()),
        "right": _stack(list(scored["right"])),
        "runs": list(runs.index),
        "records": [path for path in runs["path"] if path],
    }


def _stack(answers: Sequence[list[bool] | None]) -> np.ndarray | None:
    """(seeds, n), where all seeds say what they answered right, and to equally many questions."""
    known = [each for each in answers if each is not None]
    if not known or len(known) < len(answers) or len({len(each) for each in known}) > 1:
        return None
    return np.array(known)


def _mean(metric: Metric, values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None]
    return metric.mean(finite) if len(finite) == len(values) else None


def _compare(rows: pd.DataFrame, best: Mapping[str, Record | None], costs: Sequence[CostRecord]) -> pd.DataFrame:
    """The rows of all sections, sorted as they are shown, with what `_rank` adds and:

    tuned    "best of 3: optim.lr=0.01" where a row is that; else ""
    lost     whether it is another trial of such a sweep
    current  whether the section's version of the task is the newest
    cost     what was measured of its cost; None: nothing

    best  the best trial of each sweep whose trials have all ended
    """
    winners = {key: describe_trial(record) for key, record in best.items() if record}
    won = {r.config_hash: f"best of {_count_trials([r])}: {winners[key]}" for key, r in best.items() if r}
    ends = dict.fromkeys(best, "no trial has a score")
    ends |= {key: f"the best on validation is {winner}" for key, winner in winners.items()}
    rows = rows.assign(
        tuned=[won.get(config_hash, "") for config_hash in rows["config_hash"]],
        sweep_end=[ends.get(sweep, UNFINISHED) for sweep in rows["sweep"]],
    )
    rows["lost"] = rows["sweep"].isin(winners.keys()) & (rows["tuned"] == "")
    by_task = rows.groupby(["protocol", "task"])["task_version"]
    newest = by_task.transform(lambda versions: max(versions, key=_natural))
    rows = rows.assign(current=rows["task_version"] == newest)
    sections = []
    for key, section in rows.groupby(["protocol", ~rows["current"], "suite", "task", "task_version"]):
        section = section.assign(cost=costs_of(section, costs))
        sections.append((key[:-1], _natural(str(key[-1])), _rank(section)))
    sections.sort(key=lambda item: item[1], reverse=True)
    sections.sort(key=lambda item: item[0])
    return pd.concat([section for *_, section in sections], ignore_index=True)


def _count_trials(records: Sequence[Record]) -> int:
    """How many trials the sweep of these records has."""
    return max((len(record.sweep.trials) for record in records if record.sweep), default=1)


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts "1.10" after "1.9"."""
    pieces = re.findall(r"\d+|[^\d]+", text)
    return tuple((1, int(piece), "") if piece.isdigit() else (0, 0, piece) for piece in pieces)


def _rank(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one section, ranked where they may be and sorted.

    estimate                 mean and its error; None for a row without a score
    low, high, interval      ends and kind of its interval; NaN and "" where there is none
    rank, tied               place by the mean, and whether another has the same; NA for rows that are not ranked
    best_rank, worst_rank    the range of ranks that the data allow
    difference               to the row of the baseline that widths were matched with, on the same questions; None: none
    notes                    why a row is not ranked
    reference                whether it is the reference row

    The reference row, whose data and metric others must share to be ranked, is of those of most unmodified rows, whole
    published sets before parts; of equals the latest.
    """
    lost = (rows["sweep"] != "") & (rows["tuned"] == "")
    unmodified = rows[(rows["overrides"].map(len) == 0) & ~lost]
    # protocols and presets may change between versions of zoo, and records stay; a row that was only interrupted does
    # not displace an earlier configuration
    ran, swept = ~unmodified["interrupted"], unmodified["tuned"] != ""
    order = unmodified.assign(ran=ran, swept=swept).sort_values(["ran", "swept", "ended", "config_hash"])
    current = order.groupby("name")["config_hash"].last()
    candidates = (unmodified if len(unmodified) else rows).assign(whole=lambda found: found["data"] != "part")
    size = candidates.groupby(["data_key", "metric", "higher_is_better"])["name"].transform("size")
    reference = candidates.assign(size=size).sort_values(["whole", "size", "ended", "data_key"]).iloc[-1]
    rows = rows.assign(reference=rows.index == reference.name)
    rows["notes"] = [_notes(row, current, reference) for _, row in rows.iterrows()]
    estimates = _estimates(rows)
    rows = rows.assign(estimate=pd.Series(estimates, rows.index, dtype="object"))
    for name, end in (("low", "low"), ("high", "high"), ("interval", "kind")):
        missing = "" if name == "interval" else math.nan
        rows[name] = [getattr(each.interval, end) if each and each.interval else missing for each in estimates]
    metric = Metric(reference["metric"], bool(reference["higher_is_better"]))
    may = rows["score"].notna() & (rows["notes"].map(len) == 0) & ~rows["cost_only"].astype(bool)
    ranked = [each for each, one in zip(estimates, may, strict=True) if each and one]
    ranks = rank_rows(ranked, metric, measure_paired_errors(ranked, list(rows.loc[may, "right"])))
    columns = ["rank", "best_rank", "worst_rank"]
    rows = rows.join(pd.DataFrame(ranks, index=rows.index[may], columns=columns).astype("Int64"))
    rows["tied"] = rows["rank"].duplicated(keep=False).where(may).astype("boolean")
    answers = {row["name"]: row["right"] for _, row in rows[may].iterrows() if row["right"] is not None}
    matched = Counter(name for name in rows.loc[may, "baseline"] if name)
    differences = compare_with(matched.most_common(1)[0][0], answers) if matched else {}
    found = [differences.get(name) if one else None for name, one in zip(rows["name"], may, strict=True)]
    rows = rows.assign(difference=pd.Series(found, rows.index, dtype="object"))
    signed = rows["score"].where(~rows["higher_is_better"].astype(bool), -rows["score"])
    seconds = [cost.train.seconds if cost else math.nan for cost in rows["cost"]]
    signed = signed.mask(rows["cost_only"].astype(bool), pd.Series(seconds, rows.index))
    keys = {"unranked": rows["rank"].isna(), "failed": rows["score"].isna(), "signed": signed}
    order = rows.assign(**keys).sort_values(["unranked", "failed", "rank", "signed", "name", "config_hash", "data_key"])
    return order.drop(columns=list(keys))


def _estimates(rows: pd.DataFrame) -> list[Estimate | None]:
    """The estimate of each row of a section; the spread over seeds is pooled over those of one metric."""
    estimates: dict[int, Estimate | None] = {}
    for (name, higher), same in rows.groupby(["metric", "higher_is_better"]):
        estimates |= zip(same.index, estimate_rows(list(same["scored"]), Metric(str(name), bool(higher))), strict=True)
    return [estimates[index] for index in rows.index]


def _notes(row: pd.Series, current: pd.Series, reference: pd.Series) -> list[str]:
    """Why a row is not ranked."""
    notes = []
    if row["overrides"]:
        values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in sorted(row["overrides"].items())}
        notes.append("modified: " + ", ".join(f"{key}={value}" for key, value in values.items()))
    elif row["sweep"] and not row["tuned"]:
        notes.append(f"trial {row['trial']}: {row['sweep_end']}")
    elif row["config_hash"] != current[row["name"]]:
        notes.append("earlier configuration")
    elif row["data_key"] != reference["data_key"]:
        notes.append("other data")
    if (row["metric"], row["higher_is_better"]) != (reference["metric"], reference["higher_is_better"]):
        notes.append(f"other metric: {Metric(row['metric']).title}")
    return notes
