"""`zoo eval`: a trained model or a checkpoint on tasks that need no training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.trained import Model, Runs, write_chart

if TYPE_CHECKING:
    from zoo.spec.evaluation import EvaluationRecord


def eval_(
    model: Model,
    task: Annotated[str, typer.Option(help="Tasks, comma-separated.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="task.OPTION=value; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the records and charts [MODEL/eval].")] = None,
    results: Annotated[
        Path | None, typer.Option(help="Put the records beside these results instead, and refresh their board.")
    ] = None,
    runs: Runs = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the records, and nothing else.")] = False,
) -> None:
    """Evaluate a trained model on the test split of tasks that need no training, and on its own task.

    MODEL is a run, a directory of zoo convert, or a Hugging Face directory that converts (safetensors, tokenizer.json).
    """
    from zoo.spec.errors import UserError
    from zoo.spec.files import check_can_hold

    if output is not None and results is not None:
        raise UserError("--output and --results: one of the two")
    if not model.exists():  # before torch is imported
        raise UserError(f"{model}: no such run or checkpoint")
    from zoo.run.evaluate import evaluate
    from zoo.run.subject import load_subject
    from zoo.spec.evaluation import EvaluationRecord

    subject = load_subject(model, runs=runs or "")
    folder = EvaluationRecord.place(results) / subject.name if results else output or subject.folder / "eval"
    check_can_hold("--results" if results else "--output", folder)

    def keep(record: EvaluationRecord) -> None:
        _write(record, folder, chart=not results)
        if not json_:
            _show(record, folder)

    records = evaluate(subject, task, overrides=set_ or (), on_record=keep)
    if json_:
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    if results:
        from zoo.board.build import refresh

        refresh(results)


def _write(record: EvaluationRecord, folder: Path, *, chart: bool) -> None:
    """Write the record, and of scores by position the chart."""
    from zoo.board.evaluated import positions_chart
    from zoo.spec.files import write_atomically
    from zoo.spec.store import dumps

    write_atomically(folder / record.file, dumps(record))
    if chart and record.groups:
        write_chart((folder / record.file).with_suffix(".svg"), lambda: positions_chart([record]), quiet=True)


def _show(record: EvaluationRecord, folder: Path) -> None:
    """Print the scores."""
    from tabulate import tabulate

    from zoo.board.evaluated import evaluated_table, positions_table

    headers, rows, _ = evaluated_table([record])
    shown = [k for k, name in enumerate(headers) if name not in ("checkpoint", "architecture", "weights")]
    lines = [[row[k] for k in shown] for row in rows]
    print(tabulate(lines, [headers[k] for k in shown], disable_numparse=True, stralign="right"))
    if positions := positions_table(record):
        print("\n" + tabulate(positions.rows, positions.headers, disable_numparse=True, stralign="right"))
    print(f"\nrecord: {folder / record.file}\n", flush=True)
