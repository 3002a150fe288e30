"""`zoo extend`: a trained model beyond its training length."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.trained import Run, Runs
from zoo.spec.errors import UserError

if TYPE_CHECKING:
    from zoo.spec.evaluation import ExtensionRecord


def extend(
    run: Run,
    methods: Annotated[str, typer.Option(help="Comma-separated, or all that the model's positions allow.")] = "all",
    lengths: Annotated[str, typer.Option(help="Multiples of the training length.")] = "1,2,4,8,16",
    finetune_steps: Annotated[int, typer.Option(min=0, help="Optimiser steps at each length before.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of running text that are read.")] = 1 << 17,
    output: Annotated[Path | None, typer.Option(help="Folder of extend.json and extend.svg [the run's].")] = None,
    runs: Runs = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the records, and nothing else.")] = False,
) -> None:
    """Measure a trained model at multiples of its training length, under each method that extends its context.

    none (as trained), linear (position interpolation), ntk, dynamic, yarn, llama3 and self_extend, where positions are
    rotary. extend.json and extend.svg in the run's folder are replaced by the newest.
    """
    from tabulate import tabulate

    from zoo.board.extension import extension_chart, extension_table
    from zoo.run.extend import extend as extend_model
    from zoo.run.trained import load_trained
    from zoo.spec.files import write_atomically

    try:
        times = sorted({int(part) for part in lengths.split(",")})
    except ValueError:
        times = []
    if not times or times[0] < 1:
        raise UserError(f"--lengths {lengths!r}: expected whole numbers from 1, separated by commas")
    trained = load_trained(run, runs=runs or "")
    folder = output or trained.folder

    def show(record: ExtensionRecord) -> None:
        if not json_:
            score = next((f"{name} {value:.4g}" for name, value in record.scores.items() if value is not None), "")
            print(f"{record.method}, {record.seq_len:,} tokens: {score or record.error}", flush=True)

    records = extend_model(
        trained,
        [name.strip() for name in methods.split(",")],
        times,
        finetune_steps=finetune_steps,
        max_tokens=max_tokens,
        on_record=show,
    )
    if not any(record.scores for record in records):
        raise UserError(records[0].error)
    text = json.dumps([record.model_dump(mode="json") for record in records], indent=1)
    write_atomically(folder / "extend.json", text + "\n")
    if json_:
        print(text)
    else:
        headers, cells = extension_table(records)
        print("\n" + tabulate(cells, headers=headers, disable_numparse=True, stralign="right") + "\n")
        print(f"records: {folder / 'extend.json'}")
    try:
        from zoo.board.charts import to_svg
    except ModuleNotFoundError:
        print("zoo: no chart: pip install 'seqzoo[board]'", file=sys.stderr)
        return
    write_atomically(folder / "extend.svg", to_svg(extension_chart(records)))
    if not json_:
        print(f"chart: {folder / 'extend.svg'}")
