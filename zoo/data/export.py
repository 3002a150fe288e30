"""Export prepared data in the layout of the published files, for other people's code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from zoo.data.cached import CachedData
from zoo.data.module import LENGTH_GENERALIZATION, SPLITS, Split, TaskData
from zoo.data.questions import IGNORE, Continuation, Question
from zoo.spec.errors import UserError
from zoo.spec.files import placed_folder, user_path


def limit_counts(sizes: Mapping[Split, int], limit: int | None) -> dict[Split, int]:
    """Reduce the sizes of splits in proportion to at most `limit` examples in all, at least one each."""
    total = sum(sizes.values())
    if limit is None or limit >= total:
        return dict(sizes)
    if limit < len(sizes):
        raise UserError(f"--limit {limit}: expected at least {len(sizes)}, one example of each split")
    small: dict[Split, int] = {
        split: max(1, limit * size // total) for split, size in sizes.items() if split != "train"
    }
    return {split: small.get(split, limit - sum(small.values())) for split in sizes}


def with_limit(data: TaskData, limit: int | None) -> TaskData:
    """Return the data with no more examples than an export of `limit` needs, unless all are prepared already."""
    if limit is None or not isinstance(data, CachedData) or data.not_exported or data.prepared():
        return data
    sizes: dict[Split, int] = {split: getattr(data.options, f"{split}_size") for split in SPLITS}
    smaller = {f"{split}_size": n for split, n in limit_counts(sizes, limit).items()}
    return type(data)(replace(data.options, **smaller), data.root, data.loading)


def export(data: TaskData, to: Path, *, limit: int | None = None, force: bool = False) -> dict[str, int]:
    """Write a prepared task's examples into the folder `to`, all or `limit` of them; return the number per split.

    In the published layout, or, of questions that are generated, SPLIT.jsonl. `to` appears whole or not at all. Raises
    UserError when it is there and not empty, or the task cannot be exported; with `force` it is replaced, but only if
    it holds nothing but an earlier export.
    """
    write = _writer(data)
    splits = [split for split in (*SPLITS, LENGTH_GENERALIZATION) if data.has(split)]
    counts = limit_counts({split: data.n_examples(split) for split in splits}, limit)
    to = user_path(to)
    present = sorted(p.name for p in to.iterdir()) if to.is_dir() else [to.name] if to.exists() else []
    if present and not force:
        raise UserError(f"{to} is not empty; choose another folder or add --force")
    with placed_folder(to) as folder:
        names = write(folder, counts)
        foreign = set(present) - set(names)
        if foreign:
            raise UserError(f"{to} holds other files than an export ({', '.join(sorted(foreign)[:3])}); not replaced")
    return {str(split): counts[split] for split in splits}


def _writer(data: TaskData) -> Callable[[Path, Mapping[Split, int]], list[str]]:
    if isinstance(data, CachedData):
        if data.not_exported:
            raise UserError(f"{data.name}: {data.not_exported}")
        if type(data).write_published is not CachedData.write_published:
            return data.write_published
    elif isinstance(data.dataset("train")[0], Question):
        return partial(_write_questions, data)
    raise UserError("this task has no published layout to export to")


def _write_questions(data: TaskData, folder: Path, counts: Mapping[Split, int]) -> list[str]:
    """Write SPLIT.jsonl, a line per question."""
    names = []
    for split, count in counts.items():
        examples, groups = data.dataset(split), data.groups(split)
        path = folder / f"{split}.jsonl"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for i in range(count):
                file.write(json.dumps(question_to_json(examples[i], groups)) + "\n")
        names.append(path.name)
    return names


def question_to_json(question: Any, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a question as JSON values: {"prompt", "answer"} of a continuation, else {"ids", "labels"} with null where
    there is no label; and the entries of its group."""
    group = dict(groups[question.group]) if groups else {}
    if isinstance(question, Continuation):
        return {"prompt": question.prompt.tolist(), "answer": question.answer.tolist(), **group}
    labels = [None if label == IGNORE else label for label in question.labels.tolist()]
    return {"ids": question.ids.tolist(), "labels": labels, **group}
