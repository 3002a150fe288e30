"""Measure what architectures cost on tasks, one after the other, each in a process of its own. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from zoo.data.progress import progress
from zoo.run import pool, provenance
from zoo.run.compose import Experiment, at_length
from zoo.run.request import BenchRequest, plan
from zoo.spec.cost import BUSY, CostRecord, cost_id, machine_name
from zoo.spec.errors import UserError
from zoo.spec.generation import GenerationCost


def measure_costs(
    request: BenchRequest, on_cost: Callable[[Path, CostRecord], None], lengths: Sequence[int] = ()
) -> list[str]:
    """Measure every shape of a request that has no cost record of this machine (with `force` every one), and write the
    records beside its results. Returns a line for each that could not be measured.

    lengths  of the examples, in tokens, at the width that the model has at its own; empty: at its own

    Seeds, and the trials of a sweep that differ only in rates, cost the same and are measured once.
    Raises what `plan` raises, and UserError at the end for what turned out to be impossible.
    """
    planned = _planned(request)
    if lengths:
        planned = [at_length(experiment, length) for experiment in planned for length in lengths]
    shapes = {experiment.shape: experiment for experiment in planned}
    known = set() if request.force else {cost.id for cost in CostRecord.read_all(request.results)[0]}
    left = [experiment for experiment in shapes.values() if _id(experiment) not in known]
    if len(left) < len(shapes):
        print(f"zoo: {len(shapes) - len(left)} of {len(shapes)} have been measured on this machine", file=sys.stderr)
    failures: list[str] = []
    mistakes: list[str] = []
    for experiment, answer in _call_each("zoo.run.throughput:measure_cost", left, command=request.command):
        name = f"{experiment.architecture} on {experiment.task} ({experiment.protocol})"
        name += f", {experiment.seq_len:,} tokens" if lengths else ""
        if answer.value is None:
            (mistakes if answer.mistake else failures).append(f"{name}: {answer.error}")
            continue
        cost = CostRecord.model_validate(answer.value)
        on_cost(cost.write(request.results), cost)
        if cost.others > BUSY:
            busy = f"others kept {cost.others:.1f} cores busy meanwhile"
            print(f"zoo: {name}: this machine is not idle: {busy}", file=sys.stderr)
    if mistakes:
        raise UserError("\n".join(mistakes))
    return failures


def measure_generation(
    request: BenchRequest, on_cost: Callable[[Path, GenerationCost], None], contexts: Sequence[int], *, latency: bool
) -> list[str]:
    """Measure what generation costs every shape of a request whose model predicts the next token, and write the
    records beside its results. Returns a line for each that could not be measured.

    Raises what `plan` raises, and UserError where none of them does.
    """
    shapes = {experiment.shape: experiment for experiment in _planned(request)}
    generating = [each for each in shapes.values() if each.objective in ("causal_lm", "seq2seq")]
    if not generating:
        raise UserError("none of them predicts the next token: in mode causal or seq2seq, on a task of tokens, they do")
    failures: list[str] = []
    function, arguments = "zoo.run.stepping:measure_generation", {"contexts": list(contexts), "latency": latency}
    for experiment, answer in _call_each(function, generating, **arguments):
        if answer.value is None:
            failures.append(f"{experiment.architecture} on {experiment.task}: {answer.error}")
            continue
        cost = GenerationCost.model_validate(answer.value, strict=False)
        on_cost(cost.write(request.results), cost)
        if cost.others > BUSY:
            print(f"zoo: this machine is not idle: others kept {cost.others:.1f} cores busy", file=sys.stderr)
    return failures


def _planned(request: BenchRequest) -> list[Experiment]:
    """The experiments of a request with its first seed, whether or not they have a record."""
    # nothing goes into the folder of runs
    jobs = plan(replace(request, seeds=request.seeds[:1], skip_recorded=False, runs=request.results))
    return [job.experiment for job in jobs]


def _call_each(
    function: str, experiments: Sequence[Experiment], **arguments: Any
) -> Iterator[tuple[Experiment, pool.Answer]]:
    """Call a function with one experiment after the other, each in a process of its own."""
    with pool.Pool() as processes, progress("measuring", "runs") as update:
        for k, experiment in enumerate(experiments):
            answer = pool.call(processes, function, {"experiment": asdict(experiment), **arguments})
            update(k + 1, len(experiments))
            yield experiment, answer


def _id(experiment: Experiment) -> str:
    machine = machine_name(provenance.computing(experiment.train))
    return cost_id(experiment.protocol, experiment.task_spec.name, experiment.arch_spec.name, experiment.shape, machine)
