"""A trained model beyond its training length, as it is and by methods that extend its context.

The same running text is read in pieces of 1, 2, 4 … times the training length, each piece from a fresh state, so that
only what a token can look back on differs (perplexity by context length, as Lu et al. 2024, arXiv 2409.12181, measure
it). Tasks of other kinds are evaluated on test examples of that length.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.convert.checkpoint import sum_of_weights
from zoo.data.language import LanguageData
from zoo.data.module import TaskData, perplexity
from zoo.data.streams import Pieces
from zoo.kinds.metrics import Scores
from zoo.nn import parameter_groups
from zoo.nn.state import return_state
from zoo.run.compose import Experiment, at_length, length_settings, with_settings
from zoo.run.evaluate import score_test
from zoo.run.execute import load_data, open_data
from zoo.run.memory import is_out_of_memory, limit_memory
from zoo.run.module import Schedule
from zoo.run.provenance import versions
from zoo.run.rundir import now
from zoo.run.trained import TrainedModel, rebuild
from zoo.spec.config import sections
from zoo.spec.constraints import field_types
from zoo.spec.errors import ConfigError, UserError, did_you_mean
from zoo.spec.evaluation import AS_TRAINED, METHODS, ROPE_METHODS, ExtensionRecord, Span

LENGTHS = (1, 2, 4, 8, 16)
TOKENS_PER_BATCH = 1 << 14


def extend(
    trained: TrainedModel,
    methods: Sequence[str] = ("all",),
    lengths: Sequence[int] = LENGTHS,
    *,
    finetune_steps: int = 0,
    max_tokens: int = 1 << 17,
    known: Sequence[ExtensionRecord] = (),
    on_record: Callable[[ExtensionRecord], None] = lambda record: None,
) -> list[ExtensionRecord]:
    """Evaluate a model at multiples of its training length under each method.

    methods         names of METHODS; "all" = those that the model's positions allow
    lengths         multiples of the training length
    finetune_steps  optimiser steps at each length and method before the evaluation, with as many tokens each as in
                    training, at a tenth of its rate
    max_tokens      of running text: tokens of the test split that are read
    known           records of an earlier call: what was measured in the same way by the same weights is taken from them
    on_record       called with each record as it comes

    A length that the model cannot read is a record that says why. Raises ConfigError for a method that its positions
    do not allow, UserError for a task whose length cannot be set, and for running text without a document of the
    longest length.
    """
    experiment = trained.experiment
    at_length(experiment, experiment.seq_len)  # refuses tasks without a length
    unknown = [name for name in methods if name not in (*METHODS, "all")]
    if unknown:
        raise UserError(f"--methods {unknown[0]!r}: unknown{did_you_mean(unknown[0], (*METHODS, 'all'))}")
    trained_len, longest = experiment.seq_len, max(lengths) * experiment.seq_len
    if "all" in methods:
        methods = [name for name in METHODS if _refusal(experiment, name, 2 * trained_len) is None]
    for name in methods:
        refusal = _refusal(experiment, name, 2 * trained_len)
        if refusal is not None:
            raise refusal
    text = experiment.kind.running_text
    described: dict[str, Any] = {
        "run": trained.name,
        "weights": sum_of_weights(trained.folder),
        "architecture": experiment.architecture,
        "task": experiment.task,
        "protocol": experiment.protocol,
        "seed": experiment.seed,
        "trained_len": trained_len,
        "finetune_steps": finetune_steps,
        "settings": json.loads(json.dumps(experiment.overrides)),
        "longest": longest,
        "max_tokens": max_tokens,
    }
    alike = {name: value for name, value in described.items() if text or name not in ("longest", "max_tokens")}
    measured = {
        (each.method, each.seq_len): each
        for each in known
        if each.scores and all(getattr(each, name) == value for name, value in alike.items())
    }
    records: list[ExtensionRecord] = []
    prepared = False
    for name in methods:
        for times in lengths:
            began, seq_len = time.monotonic(), times * trained_len
            if (name, seq_len) in measured:
                records.append(measured[name, seq_len])
                on_record(records[-1])
                continue
            overrides: dict[str, Any] = {}
            result: dict[str, Any]
            try:
                overrides = method_overrides(experiment, name, seq_len)
                longer = with_settings(experiment, {**overrides, **length_settings(experiment, seq_len)})
                longer.task_spec.check(longer.task_options)
                model = rebuild(trained, longer.model_spec)
                data = load_data(longer, None) if text and prepared else open_data(longer, None)
                prepared = True
                check_lengths(longer, data)
                with limit_memory():
                    if finetune_steps:
                        _finetune(longer, model, finetune_steps, trained_len)
                    result = _evaluate(longer, model, data, longest, max_tokens)
            except Exception as error:
                if is_out_of_memory(error):
                    result = {"error": f"memory ran out at {seq_len:,} tokens; fewer --lengths"}
                elif isinstance(error, ValueError):
                    result = {"error": " ".join(str(error).split())}
                else:
                    raise
            records.append(
                ExtensionRecord(
                    method=name,
                    overrides=overrides,
                    seq_len=seq_len,
                    seconds=time.monotonic() - began,
                    ended=now(),
                    versions=versions(),
                    **described,
                    **result,
                )
            )
            on_record(records[-1])
    return records


def method_overrides(experiment: Experiment, method: str, seq_len: int) -> dict[str, Any]:
    """The settings of the architecture by which a method reads `seq_len` tokens.

    Raises ConfigError where no groups of SelfExtend bring all distances below the trained length.
    """
    trained_len = experiment.seq_len
    if method == AS_TRAINED or seq_len <= trained_len:
        return {}
    if method in ROPE_METHODS:
        return {
            "arch.rope_scaling.rope_type": method,
            "arch.rope_scaling.factor": seq_len / trained_len,
            "arch.rope_scaling.original_max_position_embeddings": trained_len,
        }
    # half of the trained distances are near; groups make the other half last
    near = trained_len // 2
    for group_size in range(max(math.ceil((seq_len - near) / (trained_len - near)), 2), near + 1):
        window = near // group_size * group_size
        farthest = (seq_len - 1) // group_size + window - window // group_size
        if farthest < trained_len:
            return {"arch.self_extend.group_size": group_size, "arch.self_extend.window": window}
    raise ConfigError("--methods", f"self_extend: no groups reach {seq_len:,} tokens from {trained_len:,}")


def check_lengths(experiment: Experiment, data: TaskData) -> None:
    """Raise ConfigError where the questions of test have other lengths than the experiment says."""
    lengths = {group["length"] for group in data.groups("test") if "length" in group}
    if lengths and lengths != {experiment.seq_len}:
        these = ", ".join(f"{length:,}" for length in sorted(lengths))
        raise ConfigError("task.seq_len", f"{experiment.task}: its test questions have {these} tokens whatever it is")


def _refusal(experiment: Experiment, method: str, seq_len: int) -> ConfigError | None:
    """Why an architecture's positions do not allow a method; None where they do."""
    try:
        overrides = method_overrides(experiment, method, seq_len)
    except ConfigError as error:
        return error
    known: Any = sections(experiment.arch_spec, experiment.task_spec)["arch"]
    for key in overrides:
        if key.removeprefix("arch.") not in field_types(known):
            return ConfigError("--methods", f"{method}: {experiment.architecture} has no rotary positions to extend")
    try:
        changed = with_settings(experiment, overrides)
        changed.arch_spec.check(changed.arch_config, changed.dims)
    except ConfigError as error:
        return ConfigError("--methods", f"{method}: {error}")
    return None


@torch.inference_mode()
def _evaluate(experiment: Experiment, model: nn.Module, data: Any, longest: int, max_tokens: int) -> dict[str, Any]:
    if experiment.kind.running_text and isinstance(data, LanguageData):
        return _read_text(experiment, model, data, longest, max_tokens)
    scores = score_run(experiment, model)
    return {"scores": dict(scores["scores"]), "loss": scores["loss"], "n": scores["n"]}


def score_run(experiment: Experiment, model: nn.Module) -> Scores:
    """The scores of a model on the test split, as a run has them."""
    data = open_data(experiment, Schedule.of(experiment, model))
    task, kind = experiment.task_spec, experiment.kind
    return score_test(model, task, kind, data, stateful=experiment.stateful, begin=None)


def _read_text(
    experiment: Experiment, model: nn.Module, data: LanguageData, longest: int, max_tokens: int
) -> dict[str, Any]:
    """Perplexity of the documents of the test split that have `longest` tokens, the first `max_tokens` of them."""
    seq_len = experiment.seq_len
    text = data.text("test")
    documents = [i for i, n in enumerate(text.ends - text.starts) if n >= longest]
    if not documents:
        raise UserError(f"--lengths: no document of the test split has {longest:,} tokens")
    pieces = Pieces(text, seq_len, data.specials.end, documents)
    total, count = np.zeros(seq_len), np.zeros(seq_len, np.int64)
    for batch in _batches(pieces, seq_len, longest, max_tokens):
        collated = experiment.kind.build_collate_fn(data)(batch)
        with return_state(False):
            output = model(collated)
        nats = F.cross_entropy(output.logits, output.labels, reduction="none").double()
        position = _order_in_rows(output.rows)
        total += np.bincount(position, nats.numpy(), seq_len)
        count += np.bincount(position, minlength=seq_len)
    edges = [0, *(seq_len >> k for k in range(5, 0, -1) if seq_len >> k), seq_len]
    spans = [
        Span(start=a, stop=b, n=int(count[a:b].sum()), loss=float(total[a:b].sum() / count[a:b].sum()))
        for a, b in pairwise(edges)
    ]
    loss = float(total.sum() / count.sum())
    return {"scores": {"perplexity": perplexity(loss)}, "loss": loss, "n": int(count.sum()), "positions": tuple(spans)}


def _batches(pieces: Pieces, seq_len: int, longest: int, max_tokens: int) -> Iterator[list[Any]]:
    """Fresh pieces that fill whole stretches of `longest` tokens: the same text whatever seq_len is."""
    left, chosen = max(max_tokens // longest, 1), list[int]()
    for first, n_tokens in zip(pieces.before, pieces.ends - pieces.starts, strict=True):
        stretches = min(int(n_tokens) // longest, left)
        left -= stretches
        chosen += range(int(first), int(first) + stretches * (longest // seq_len))
    rows = max(TOKENS_PER_BATCH // seq_len, 1)
    for start in range(0, len(chosen), rows):
        yield [pieces[len(pieces) + piece] for piece in chosen[start : start + rows]]


def _order_in_rows(rows: Tensor) -> np.ndarray:
    """For each answer how many of its row come before it: rows (N,), which ascend in position within a row."""
    index = rows.numpy()
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], index[order], "left")
    place = np.empty_like(index)
    place[order] = np.arange(len(index)) - starts
    return place


def _finetune(experiment: Experiment, model: nn.Module, steps: int, trained_len: int) -> None:
    """Train for some steps at the experiment's length, with as many tokens a step as it was trained with."""
    torch.manual_seed(experiment.seed)
    train = experiment.train
    rows = max(train.batch_size * trained_len // experiment.seq_len, 1)
    settings = {"train.batch_size": rows, "train.micro_batch_size": rows, "train.max_samples": rows * steps}
    experiment = with_settings(experiment, settings)
    data = open_data(experiment, Schedule.of(experiment, model), interval=rows * steps)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, lr=experiment.optim.lr / 10, weight_decay=experiment.optim.weight_decay)
    )
    model.train()
    for batch in data.train_dataloader():
        output = model(batch)
        loss = experiment.kind.loss(output) + sum(output.aux.values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), experiment.optim.gradient_clip_val or math.inf)
        optimizer.step()
    model.eval()
