"""`zoo extend`: a trained model beyond its training length."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.trained import Model, OnTask, Runs, Settings, check_results, write_chart
from zoo.spec.errors import UserError

if TYPE_CHECKING:
    from zoo.spec.evaluation import ExtensionRecord


def extend(
    model: Model,
    methods: Annotated[str, typer.Option(help="Comma-separated, or all that the model's positions allow.")] = "all",
    lengths: Annotated[str, typer.Option(help="Multiples of the training length.")] = "1,2,4,8,16",
    finetune_steps: Annotated[int, typer.Option(min=0, help="Optimiser steps at each length before.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of running text that are read.")] = 1 << 17,
    task: OnTask = "",
    set_: Settings = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of extend.json and extend.svg [MODEL, with --task MODEL/TASK].")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Show it on the board of these results as well.")] = None,
    runs: Runs = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the records, and nothing else.")] = False,
) -> None:
    """Measure a trained model at multiples of its training length, under each method that extends its context.

    none (as trained), linear (position interpolation), ntk, dynamic, yarn, llama3 and self_extend, where positions are
    rotary. extend.json in the run's folder has each record as it comes; what the same command measured before is taken
    from there, and records on other text (another longest length) are kept as extend-1.json. extend.svg is drawn anew.
    Of a checkpoint the length of --task stands for that of its training.
    """
    from pydantic import ValidationError
    from tabulate import tabulate

    from zoo.board.extension import extension_chart, extension_table
    from zoo.run.extend import extend as extend_model
    from zoo.run.subject import load_on_task
    from zoo.spec.evaluation import Extensions
    from zoo.spec.files import write_atomically
    from zoo.spec.store import dumps

    try:
        times = sorted({int(part) for part in lengths.split(",")})
    except ValueError:
        times = []
    if not times or times[0] < 1:
        raise UserError(f"--lengths {lengths!r}: expected whole numbers from 1, separated by commas")
    check_results(task, results)
    trained = load_on_task(model, task, set_ or (), runs=runs or "")
    folder = output or trained.folder / task
    target = folder / "extend.json"
    try:
        known = Extensions.model_validate_json(target.read_text("utf-8")).root
    except (FileNotFoundError, ValidationError):
        known = []
    came: list[ExtensionRecord] = []

    def keep(record: ExtensionRecord) -> None:
        came.append(record)
        measured = {each.study for each in came if each.scores}
        if measured and known and measured.isdisjoint(each.study for each in known):
            keep_aside(target)
            known.clear()
        if measured:
            write_atomically(target, dumps(Extensions(merged(known, came))))
        if not json_:
            score = next((f"{name} {value:.4g}" for name, value in record.scores.items() if value is not None), "")
            before = " (measured before)" if record in known else ""
            print(f"{record.label}, {record.seq_len:,} tokens: {score or record.error}{before}", flush=True)

    extend_model(
        trained,
        [name.strip() for name in methods.split(",")],
        times,
        finetune_steps=finetune_steps,
        max_tokens=max_tokens,
        known=known,
        on_record=keep,
    )
    if not any(record.scores for record in came):
        raise UserError(came[0].error)
    records = merged(known, came)
    if json_:
        print(dumps(Extensions(records)), end="")
    else:
        headers, cells = extension_table(records)
        print("\n" + tabulate(cells, headers=headers, disable_numparse=True, stralign="right") + "\n")
        print(f"records: {target}")
    write_chart(folder / "extend.svg", lambda: extension_chart(records), quiet=json_)
    if results is not None:
        from zoo.board.build import refresh

        shown = Extensions(records).write(results)
        write_chart(shown.with_suffix(".svg"), lambda: extension_chart(records), quiet=True)
        refresh(results)


def keep_aside(file: Path) -> None:
    """Give records that were measured otherwise, and their chart, the first name that is free, and say so."""
    for k in itertools.count(1):
        free = file.with_stem(f"{file.stem}-{k}")
        if not free.exists():
            break
    if file.with_suffix(".svg").exists():
        file.with_suffix(".svg").rename(free.with_suffix(".svg"))
    file.rename(free)
    print(f"zoo: {file} was measured on other text or with other settings, and is {free.name} now", file=sys.stderr)


def merged(known: Sequence[ExtensionRecord], new: Sequence[ExtensionRecord]) -> list[ExtensionRecord]:
    """Earlier records of the same study that were not measured anew, and the new ones, method by method."""
    from zoo.spec.evaluation import METHODS

    def place(record: ExtensionRecord) -> tuple[str, int, int]:
        return record.method, record.finetune_steps, record.seq_len

    studies = {each.study for each in new if each.scores}
    left = {place(each): each for each in known if each.scores and each.study in studies}
    every = left | {place(each): each for each in new}
    return [every[key] for key in sorted(every, key=lambda key: (METHODS.index(key[0]), *key[1:]))]
