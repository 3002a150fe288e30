"""`zoo analyze`: what a trained model does with its context."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.trained import Model, OnTask, Runs, Settings, check_results, write_chart


def analyze(
    model: Model,
    only: Annotated[str, typer.Option(help="Of context, induction, positions [all that are defined].")] = "",
    prompt: Annotated[str, typer.Option(help="Draw the attention maps of a text (or token ids) instead.")] = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="Of the inputs on which each loss is measured.")] = 1 << 17,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    task: OnTask = "",
    set_: Settings = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of analysis.json and its chart [MODEL, with --task MODEL/TASK].")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Show it on the board of these results as well.")] = None,
    runs: Runs = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the record, and nothing else.")] = False,
) -> None:
    """Analyse what a trained model does with its context: how much of it it uses, by which heads, and where.

    context: loss by the length of the context, cut off or shuffled, and gradients by distance. induction: prefix
    matching and copying of each attention head, and learning in context. positions: accuracy by the answer's place.
    analysis.json and analysis.svg in the run's folder are replaced.
    """
    from tabulate import tabulate

    from zoo.board.analysis import analysis_chart, analysis_tables, attention_chart, summaries
    from zoo.run.analysis import analyze as analyze_run
    from zoo.run.analysis import attention_maps
    from zoo.run.subject import load_on_task, load_subject
    from zoo.spec.files import write_atomically
    from zoo.spec.store import dumps

    if prompt:
        subject = load_subject(model, runs=runs or "")
        maps = attention_maps(subject, prompt)
        write_chart((output or subject.folder) / "attention.svg", lambda: attention_chart(*maps), quiet=json_)
        return
    check_results(task, results)
    trained = load_on_task(model, task, set_ or (), runs=runs or "")
    folder = output or trained.folder / task
    record = analyze_run(
        trained,
        [name.strip() for name in only.split(",")] if only else [],
        max_tokens=max_tokens,
        seed=seed,
        on_analysis=lambda name: print(f"zoo: analysing {name}", file=sys.stderr),
    )
    text = dumps(record)
    write_atomically(folder / "analysis.json", text)
    if json_:
        print(text, end="")
    else:
        for title, headers, cells in analysis_tables(record):
            print(f"{title}\n{tabulate(cells, headers=headers, disable_numparse=True, stralign='right')}\n")
        for name, found in summaries(record):
            print(f"{name}: {found}")
        print(f"record: {folder / 'analysis.json'}")
    write_chart(folder / "analysis.svg", lambda: analysis_chart(record), quiet=json_)
    if results is not None:
        write_chart(record.write(results).with_suffix(".svg"), lambda: analysis_chart(record), quiet=True)
