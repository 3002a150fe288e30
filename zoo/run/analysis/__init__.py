"""What a trained model does with its context: `zoo analyze`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from zoo.convert.checkpoint import sum_of_weights
from zoo.data.module import TaskData
from zoo.run.analysis import context, induction, positions
from zoo.run.compose import Experiment
from zoo.run.execute import open_data
from zoo.run.generation import encode_prompt
from zoo.run.memory import is_out_of_memory, limit_memory
from zoo.run.provenance import versions
from zoo.run.rundir import now
from zoo.run.subject import Subject, load_on_task
from zoo.run.trained import RunLike, StrPath, TrainedModel, kept_checkpoints
from zoo.spec.analysis import ANALYSES, AnalysisRecord
from zoo.spec.errors import UserError, did_you_mean

MAX_TOKENS = 1 << 17
MAX_MAP = 64
"""Tokens of a prompt whose attention is drawn."""


def analyze(
    run: RunLike | TrainedModel,
    only: Sequence[str] = (),
    *,
    task: str = "",
    overrides: Sequence[str] | Mapping[str, Any] = (),
    max_tokens: int = MAX_TOKENS,
    seed: int = 0,
    runs: StrPath = "",
    on_analysis: Callable[[str], None] = lambda name: None,
) -> AnalysisRecord:
    """Analyse what a trained model does with its context.

    run          a finished run's folder or record; with `task` also a checkpoint's folder
    only         context, induction, positions; empty = those that are defined for the run
    task         on another task, for which it is not trained: its own tokens must be the model's
    overrides    settings of that task
    max_tokens   of the inputs on which each loss is measured
    seed         of what is drawn
    on_analysis  called with the name of each before it begins

    Raises UserError for an analysis that is unknown or not defined for the run, before any begins.
    """
    began = time.monotonic()
    for name in only:
        if name not in ANALYSES:
            raise UserError(f"--only {name!r}: unknown{did_you_mean(name, ANALYSES)}")
    trained = run if isinstance(run, TrainedModel) else load_on_task(run, task, overrides, runs=runs)
    experiment, model = trained.experiment, trained.model
    data = open_data(experiment, None)
    refusals = {
        "context": context.refusal(experiment),
        "induction": induction.refusal(experiment),
        "positions": positions.refusal(experiment, data),
    }
    chosen = [name for name in ANALYSES if name in only or not (only or refusals[name])]
    refused = [refusals[name] for name in only if refusals[name]] or ([] if chosen else list(refusals.values()))
    if refused:
        raise UserError("; ".join(refused))
    found: dict[str, Any] = {}
    try:
        with limit_memory():
            for name in chosen:
                on_analysis(name)
                if name == "context":
                    found[name] = context.analyze_context(experiment, model, data, max_tokens=max_tokens, seed=seed)
                elif name == "induction":
                    found[name] = _over_training(trained, data, max_tokens, seed)
                else:
                    found["score"], found[name] = positions.analyze_positions(experiment, model)
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(f"{name}: memory ran out at {experiment.seq_len:,} tokens") from error
        raise
    return AnalysisRecord(
        run=trained.name,
        weights=sum_of_weights(trained.folder),
        architecture=experiment.architecture,
        task=experiment.task,
        protocol=experiment.protocol,
        seed=experiment.seed,
        trained_len=experiment.seq_len,
        draw_seed=seed,
        seconds=time.monotonic() - began,
        ended=now(),
        versions=versions(),
        **found,
    )


def _over_training(trained: TrainedModel, data: TaskData, max_tokens: int, seed: int) -> tuple[Any, ...]:
    """Induction at each checkpoint that was kept, and in the model itself."""
    experiment: Experiment = trained.experiment
    options: dict[str, Any] = {"max_tokens": max_tokens, "seed": seed}
    steps = [
        induction.analyze_induction(experiment, model, data, step=step, **options)
        for step, model in kept_checkpoints(trained)
    ]
    return (*steps, induction.analyze_induction(experiment, trained.model, data, **options))


def attention_maps(subject: Subject, prompt: str) -> tuple[list[str], list[np.ndarray]]:
    """The attention maps of a prompt: its tokens as text, and the weights (H, L, L) of each layer.

    Raises UserError for a prompt that cannot be read or is longer than a picture, and for a model without heads.
    """
    if subject.objective != "causal_lm":
        raise UserError(f"--prompt: for models that predict the next token; {subject.name} is {subject.objective}")
    ids = encode_prompt(subject, prompt)
    if len(ids) > MAX_MAP:
        raise UserError(f"--prompt: {len(ids)} tokens, of which a picture has room for {MAX_MAP}")
    with torch.inference_mode():
        traces = induction.head_traces(subject.model, torch.tensor([ids]))
    if not traces:
        raise UserError(f"--prompt: {subject.architecture} has no attention heads over its whole input")
    words = ["⟨end⟩" if subject.tokenizer and token == subject.end else subject.decode([token]) for token in ids]
    return words, [trace.weights[0].numpy() for trace in traces]
