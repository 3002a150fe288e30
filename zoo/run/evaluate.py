"""A trained model on tasks that it was not trained for, and on its own under other settings.

What needs no training is a task on text whose answers are tokens: it has the option `tokenizer`, takes the model's, and
is put as the prediction of the next token. A text that a model of running text reads begins behind its begin symbol, as
in training. Other tasks are those of the run alone: their symbols mean nothing to another model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.board.metric import Metric
from zoo.board.statistics import Run, run_interval
from zoo.data.batch import Batch
from zoo.data.module import LoaderConfig, TaskData
from zoo.data.paths import data_dir
from zoo.data.questions import Continuation
from zoo.kinds import TaskKind
from zoo.kinds.metrics import Scores
from zoo.model.segments import entering_state
from zoo.nn.state import return_state
from zoo.run.compose import length_options
from zoo.run.memory import is_out_of_memory, limit_memory
from zoo.run.provenance import versions
from zoo.run.rundir import now
from zoo.run.subject import Subject, as_subject, load_subject
from zoo.run.trained import RunLike, StrPath
from zoo.spec.config import flatten
from zoo.spec.constraints import build_config, field_types, validate_value
from zoo.spec.errors import ConfigError, UnknownName, UserError, did_you_mean
from zoo.spec.evaluation import EvaluationRecord
from zoo.spec.registry import registry
from zoo.spec.task import Task
from zoo.spec.written import parse_overrides

TOKENS_PER_BATCH, LOGITS_PER_BATCH = 1 << 14, 1 << 27


@dataclass(frozen=True)
class Exam:
    """A task as it is put to a model.

    overrides  the options that the user changed
    model      the subject's, for inputs of this length
    begin      a symbol that is put before each question; None: none is
    """

    task: Task
    kind: TaskKind
    options: Any
    overrides: Mapping[str, Any]
    data: TaskData
    model: Any
    seq_len: int
    begin: int | None


def evaluate(
    model: RunLike | Subject | nn.Module,
    tasks: str | Sequence[str],
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    tokenizer: str = "bytes",
    begin: int = 0,
    runs: StrPath = "",
    on_record: Callable[[EvaluationRecord], None] = lambda record: None,
) -> list[EvaluationRecord]:
    """Evaluate a trained model on the test split of tasks that need no training, and on its own task.

    model      a run's folder or its record, a checkpoint's folder: of `zoo convert` or of Hugging Face; or a
               `zoo.LanguageModel` or what `zoo.convert.load` gave
    tasks      names, separated by commas or as a list
    overrides  options of the tasks, `["task.seq_len=512"]` or a mapping; each changes the tasks that have it
    tokenizer  of such a model: bytes, or the path of a tokenizer.json, whose ids it reads
    begin      and its id of the symbol that begins a text
    runs       the folder of runs in which that of a record lies (`ZOO_RUNS_DIR`, else runs)

    The defaults are the run's own settings for its own task, else those of the task as published. Texts are read in
    pieces as long as in training, at most. Raises UserError or DataError, before anything is computed, for a
    task that a model cannot answer.
    """
    if isinstance(model, nn.Module):
        training, subject = model.training, as_subject(model, tokenizer, begin)
        try:
            return evaluate(subject, tasks, overrides=overrides, on_record=on_record)
        finally:
            model.train(training)
    subject = model if isinstance(model, Subject) else load_subject(model, runs=runs)
    names = [name.strip() for name in tasks.split(",")] if isinstance(tasks, str) else list(tasks)
    known = parse_overrides(overrides)
    exams = [prepare_exam(subject, name, known) for name in dict.fromkeys(names)]
    for key in flatten(known):
        if not any(key in exam.overrides for exam in exams):
            keys = [f"task.{field.name}" for exam in exams for field in fields(exam.options)]
            raise ConfigError(key, f"no such option of {', '.join(names)}{did_you_mean(key, keys)}", origin="--set")
    records = []
    for exam in exams:
        records.append(_examine(subject, exam))
        on_record(records[-1])
    return records


def needs_no_training(task: Task) -> bool:
    """Whether a model of text can be evaluated on the task as it is."""
    causal, options = task.load_kind().objective("causal") == "causal_lm", task.load_options()
    return causal and "causal_lm" in task.objectives and any(f.name == "tokenizer" for f in fields(options))


def prepare_exam(subject: Subject, name: str, overrides: Mapping[str, Any]) -> Exam:
    """The task under its options, its test split prepared.

    Raises UserError or DataError where the model cannot answer it.
    """
    experiment = subject.trained.experiment if subject.trained else None
    own = experiment is not None and registry().resolve_alias(name) in (experiment.task, experiment.task_spec.name)
    task = experiment.task_spec if own and experiment else _find_task(name)
    cls: Any = task.load_options()
    values: dict[str, Any]
    if own and experiment:
        values = dict(experiment.config["task"])
        kind, objective = experiment.kind, experiment.objective
    else:
        _check_in_text(subject, task)
        kind, objective, values = task.load_kind(), "causal_lm", asdict(cls())
        values["tokenizer"] = subject.tokenizer_file
        if "train_size" in values:  # nothing is trained on it, so any number of questions may be alike
            values["train_size"] = 1
        if kind.running_text and subject.trained_len:
            values["seq_len"] = min(values["seq_len"], subject.trained_len)
    types, changed = field_types(cls), {}
    for key, value in flatten(overrides).items():
        option = key.removeprefix("task.")
        if option != key and option in types:
            changed[key] = values[option] = validate_value(key, value, types[option], origin="--set")
    if "task.seq_len" in changed:
        following = length_options(values, values["seq_len"])
        values |= {name: value for name, value in following.items() if f"task.{name}" not in changed}
    options = build_config(cls, values)
    task.check(options)
    begin = None if own or not _begins_texts(subject, kind) else subject.end
    seq_len = int(values.get("seq_len") or task.length) + (begin is not None)
    rows = max(min(TOKENS_PER_BATCH, LOGITS_PER_BATCH // max(subject.vocab_size, 1)) // seq_len, 1)
    loading = LoaderConfig(kind=kind, objective=objective, eval_batch_size=rows, length_generalization=False)
    data = task.load_data()(options, data_dir(), loading)
    if own and subject.trained:
        data.codec = subject.trained.data.codec
    elif data.tokenizer is None:
        raise UserError(f"{task.name}: these are symbols of an artificial language, not text; --set task.form=text")
    size = int(getattr(options, "vocab_size", task.vocab_size))
    if subject.vocab_size and size != subject.vocab_size:
        raise UserError(f"{task.name}: questions in {size:,} token ids, and {subject.name} has {subject.vocab_size:,}")
    model = subject.for_length(seq_len)
    data.prepare_test()
    if not data.n_examples("test"):
        raise UserError(f"{task.name}: the test split is empty")
    return Exam(task, kind, options, changed, data, model, seq_len, begin)


def _begins_texts(subject: Subject, kind: TaskKind) -> bool:
    """Whether the symbol that begins a text is put before a question: for models of running text, whose tasks put it
    there themselves."""
    trained_on_text = subject.trained is None or subject.trained.experiment.kind.running_text
    return trained_on_text and not kind.running_text


def _find_task(name: str) -> Task:
    try:
        return registry().task(name).record
    except UnknownName:
        suite = [each for each, entry in registry().tasks.items() if entry.record.suite == name]
        if suite:
            raise UserError(f"--task {name}: a suite; name its tasks: {', '.join(suite)}") from None
        raise


def _check_in_text(subject: Subject, task: Task) -> None:
    """Raise UserError for a task that must be trained for, and for a model that reads no text."""
    own = subject.trained.experiment.task if subject.trained else ""
    if not needs_no_training(task):
        there = [name for name, entry in registry().tasks.items() if needs_no_training(entry.record)]
        raise UserError(
            f"{task.name} has to be trained for (zoo bench --task {task.name}); without training a model of text is "
            f"evaluated on {', '.join(there)}"
        )
    if subject.tokenizer is None:
        raise UserError(
            f"{subject.name} reads the symbols of {own}, and {task.name} asks in text: it is evaluated on {own}, and "
            f"{task.name} is for models of text"
        )
    if subject.objective != "causal_lm":
        raise UserError(
            f"{subject.name} was trained for {subject.objective} and predicts no next token, which {task.name} needs; "
            f"--task {own}"
        )


def _examine(subject: Subject, exam: Exam) -> EvaluationRecord:
    began, task, options = time.monotonic(), exam.task, exam.options
    stateful = exam.kind.running_text and subject.carries
    try:
        with limit_memory():
            scores = score_test(exam.model, task, exam.kind, exam.data, stateful=stateful, begin=exam.begin)
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(
                f"{task.name}: memory ran out at {exam.seq_len:,} tokens; --set task.seq_len={exam.seq_len // 2}"
            ) from error
        if isinstance(error, ValueError):  # such as positions that end
            raise UserError(f"{task.name}: {subject.name} cannot read it: {error}") from error
        raise
    ranked = getattr(options, "metric", None) or (task.metrics[0], task.higher_is_better)
    metric = Metric(*ranked)
    tokenizer = subject.tokenizer
    return EvaluationRecord.model_validate(
        {
            "checkpoint": subject.name,
            "form": subject.form,
            "weights": subject.weights,
            "architecture": subject.architecture,
            "parameters": sum(p.numel() for p in subject.model.parameters()),
            "trained_len": subject.trained_len,
            "tokenizer": tokenizer and {"name": tokenizer.name, "sha256": tokenizer.digest},
            "task": task.name,
            "task_version": task.version,
            "objective": exam.data.loading.objective,
            "stateful": stateful,
            "overrides": dict(exam.overrides),
            "options": asdict(options),
            "data": exam.data.test_provenance(),
            "metric": {"name": metric.name, "higher_is_better": metric.higher_is_better},
            "interval": _interval(scores, metric),
            "groups": [{**group, "interval": _interval(group, metric)} for group in scores.pop("groups", ())],
            **{name: value for name, value in scores.items() if name != "right"},
            "seconds": time.monotonic() - began,
            "ended": now(),
            "versions": versions(),
        }
    )


def _interval(scores: Scores, metric: Metric) -> dict[str, Any] | None:
    score = scores["scores"].get(metric.name)
    if score is None or not np.isfinite(score):
        return None
    found = run_interval(Run(score, scores["n"], scores.get("stderr")), metric)
    return asdict(found) if found else None


@torch.inference_mode()
def score_test(model: Any, task: Task, kind: TaskKind, data: TaskData, *, stateful: bool, begin: int | None) -> Scores:
    """The scores of a model on the test split.

    stateful  whether the state is carried from batch to batch of a running text
    begin     the symbol behind which questions stand; None = they stand alone
    """
    metric = kind.build_metrics(task, "test", data)
    loader = data.eval_dataloader("test")
    if begin is not None:
        loader.collate_fn = partial(_collate_behind, begin, kind.build_collate_fn(data))
    backbone, state = getattr(model, "encoder", model).backbone, None
    with return_state(stateful):
        for batch in loader:
            output = model(batch, entering_state(backbone, state, batch.fresh, len(batch.inputs)))
            state = output.state if stateful else None
            metric.update(output, batch, kind.loss(output))
    return metric.compute()


def _collate_behind(begin: int, collate: Callable[[Sequence[Any]], Batch], questions: Sequence[Continuation]) -> Batch:
    """A batch of questions whose prompts stand behind a symbol."""
    return collate([question._replace(prompt=np.append(begin, question.prompt)) for question in questions])
