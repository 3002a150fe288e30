"""What runs will take on this machine, from a few steps of each shape. Imports no torch."""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from zoo.data.progress import progress
from zoo.run import pool
from zoo.run.compose import Experiment

SECONDS = 8.0
"""How long the steps of one shape are measured."""
NOTICE_SECONDS = 20.0
"""Most seconds that `zoo bench` spends on estimates before it runs, without --estimate."""
LIMIT = 75.0
"""Seconds after which a measurement is stopped; what is known then is a lower bound."""


@dataclass(frozen=True)
class Estimate:
    """What runs of one configuration take, each.

    runs          how many there are: seeds, and trials of a sweep that cost the same
    steps         optimiser steps of one
    hours         training, validations and test; None: not known
    at_least      whether `hours` is a lower bound: a step took longer than was waited for
    memory_bytes  what a step needs at least; None: not known
    remark        what the estimate rests on, where that is not the run's own examples and micro-batch; or why there is
                  none
    others        cores that other processes kept busy meanwhile
    """

    architecture: str
    task: str
    protocol: str
    runs: int
    steps: int
    hours: float | None
    at_least: bool
    memory_bytes: int | None
    remark: str
    others: float = 0.0


def estimate_all(experiments: Sequence[Experiment], further: int = 0) -> list[Estimate]:
    """Estimate runs, those of one shape and length once.

    further  how many runs of each swept pair of architecture and task follow those, with settings that cost the same
    """
    counts = Counter((each.shape, each.steps) for each in experiments)
    swept = (each for each in experiments if each.sweep)
    for _, trials in itertools.groupby(swept, key=lambda each: (each.architecture, each.task)):
        first = next(trials)
        counts[first.shape, first.steps] += further
    several = {(each.shape, each.steps): replace(each, seed=0) for each in experiments}
    estimates = []
    with pool.Pool() as processes, progress("measuring", "runs") as update:
        for k, (key, experiment) in enumerate(several.items()):
            estimates.append(estimate_one(processes, experiment, counts[key]))
            update(k + 1, len(several))
    return estimates


def estimate_one(processes: pool.Pool, experiment: Experiment, runs: int = 1, limit: float | None = None) -> Estimate:
    """Estimate one run, within `limit` seconds, or LIMIT."""
    limit = LIMIT if limit is None else limit
    arguments = {"experiment": asdict(experiment), "seconds": min(SECONDS, limit / 2)}
    answer = pool.call(processes, "zoo.run.throughput:time_steps", arguments, limit)
    found = dict(answer.reported) | (answer.value or {})
    remarks = []
    at_least = False
    if "train" not in found:
        if "memory_bytes" in found and answer.seconds:  # it was stopped in the first step
            found["train"], at_least = answer.seconds, True
            remarks.append(f"one example takes more than {answer.seconds:.0f} s")
        else:
            remarks.append(answer.error)
    elif 2 * found["at_once"] < found["micro"]:
        remarks.append(f"from {found['at_once']} of {found['micro']} examples at once")
    if found.get("prepared") is False:
        remarks.append("random examples of the full length: the data are not prepared")
    samples = experiment.steps * experiment.train.batch_size
    hours = None
    if "train" in found:
        counts = found["counts"]
        if not all(counts.values()) or "inference" not in found:
            remarks.append("evaluation is not counted")
        evaluated = found["intervals"] * counts["val"] + sum(n for split, n in counts.items() if split != "val")
        hours = (samples * found["train"] + evaluated * found.get("inference", 0.0)) / 3600
    return Estimate(
        experiment.architecture,
        experiment.task,
        experiment.protocol,
        runs,
        experiment.steps,
        hours,
        at_least,
        found.get("memory_bytes"),
        "; ".join(remarks),
        found.get("others", 0.0),
    )


def tell_cost_only(experiments: Sequence[Experiment], published: Sequence[Experiment], *, swept: bool) -> None:
    """Say on stderr that these runs will be shown as cost only, and what those of `published` would take, as far as it
    can be found out within NOTICE_SECONDS.

    swept  whether they are part of a request with a sweep, which leaves them out
    """
    until = time.monotonic() + NOTICE_SECONDS
    for task, runs in itertools.groupby(experiments, key=lambda each: each.task):
        why = f"the budget of {next(runs).protocol} is too small to learn this task"
        once = "; it is run once, with no sweep" if swept else ""
        print(f"zoo: {task}: {why}; the record shows what training costs, and no score{once}", file=sys.stderr)
    with pool.Pool() as processes:
        for k, experiment in enumerate(published):
            left = until - time.monotonic()
            found = estimate_one(processes, experiment, limit=left) if left > 1 else None
            if found is None or found.hours is None:
                published = published[:k]
                break
            memory = "" if found.memory_bytes is None else f", more than {found.memory_bytes / 2**30:.1f} GiB"
            hours = format_hours(found.hours, found.at_least)
            name = f"{found.architecture} on {found.task} under {found.protocol}"
            print(f"zoo: {name}: {hours}{memory}, here", file=sys.stderr)
    estimated = {(each.architecture, each.task) for each in published}
    if any((each.architecture, each.task) not in estimated for each in experiments):
        task = ",".join(dict.fromkeys(each.task for each in experiments))
        command = f"zoo bench --task {task} --protocol paper --estimate --arch NAME"
        print(f"zoo: what the published budget takes here says {command}", file=sys.stderr)


def format_hours(hours: float | None, at_least: bool = False) -> str:
    """ "0.021 h", "13 h", "> 2,540 h"."""
    if hours is None:
        return "?"
    text = f"{float(f'{hours:.3g}'):,.0f}" if hours >= 10 else f"{hours:.2g}"
    return f"{'> ' if at_least else ''}{text} h"


def total_hours(estimates: Sequence[Estimate]) -> tuple[float, bool]:
    """Hours of all runs one after the other, and whether that is a lower bound."""
    known = [each.runs * each.hours for each in estimates if each.hours is not None]
    return sum(known), len(known) < len(estimates) or any(each.at_least for each in estimates)
