"""`zoo predict`, `zoo generate` and `zoo export`: what a finished run's model answers, and the model as a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Run = Annotated[Path, typer.Argument(help="The folder of a finished run, or its record.", metavar="RUN")]
Model = Annotated[
    Path, typer.Argument(help="A finished run's folder or record, or a checkpoint's folder.", metavar="MODEL")
]
OnTask = Annotated[
    str, typer.Option("--task", help="On this task, without training for it [a run's own]; a checkpoint needs one.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key=value of that task; may be repeated.")]
Runs = Annotated[Path | None, typer.Option(help="Where the run of a record lies [ZOO_RUNS_DIR, else runs].")]


def write_chart(path: Path, make: Callable[[], Any], *, quiet: bool = False) -> None:
    """Write an Altair chart as SVG, and say where; without the extra `board`, that there is none."""
    from zoo.spec.files import write_atomically

    try:
        from zoo.board.charts import to_svg
    except ModuleNotFoundError:
        print("zoo: no chart: pip install 'seqzoo[board]'", file=sys.stderr)
        return
    write_atomically(path, to_svg(make()))
    if not quiet:
        print(f"chart: {path}")


def check_results(task: str, results: Path | None) -> None:
    """Refuse what the board has no row for. Raises UserError."""
    from zoo.spec.errors import UserError

    if task and results is not None:
        raise UserError("--results: of runs on their own tasks, which a board shows; with --task they go to --output")


def predict(
    run: Run,
    source: Annotated[Path, typer.Option("--input", help="A table (.jsonl, .csv, .tsv, .parquet), or a text file.")],
    target: Annotated[Path, typer.Option("--output", help="The file to write: .jsonl or .csv.")],
    runs: Runs = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that file.")] = False,
) -> None:
    """Write a trained model's answer to each row: labels with probabilities, numbers, or perplexities of texts."""
    from zoo.spec.files import check_target

    check_target("--output", target, force=force)
    from zoo.run.predict import predict as predict_rows
    from zoo.run.trained import load_trained

    trained = load_trained(run, runs=runs or "")
    n = predict_rows(trained, source, target)
    print(f"{target}: {n} row{'' if n == 1 else 's'} by {trained.experiment.name}")


def generate(
    run: Annotated[
        Path, typer.Option(help="A finished run's folder or record, or a checkpoint's folder.", metavar="MODEL")
    ],
    prompt: Annotated[str, typer.Option(help="A text, or token ids for tasks without text; - reads standard input.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="New tokens at most.")] = 50,
    temperature: Annotated[float, typer.Option(min=0, help="Divides the logits; 0 = the likeliest token.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw among the k likeliest tokens; 0 = all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest whose probabilities reach p.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    runs: Runs = None,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Continue a prompt by a trained model that predicts the next token."""
    from zoo.run.generation import continue_prompt
    from zoo.run.subject import load_subject

    subject = load_subject(run, runs=runs or "")
    text = sys.stdin.read() if prompt == "-" else prompt
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    tokens, new = continue_prompt(subject, text, max_new_tokens, **options)
    print(json.dumps({"prompt": text, "text": new, "tokens": tokens, **options}, ensure_ascii=False) if json_ else new)


def export(
    run: Run,
    form: Annotated[str, typer.Option("--format", help="safetensors | pt2 | onnx.")] = "safetensors",
    target: Annotated[
        Path | None, typer.Option("--output", help="The file to write [ARCHITECTURE-TASK.FORMAT here].")
    ] = None,
    runs: Runs = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that file.")] = False,
) -> None:
    """Write a trained model as a file for other programs; what a format has no form for is said, and nothing written.

    A program (pt2, onnx) is kept only if it gives the model's outputs.
    """
    from zoo.spec.errors import UserError, did_you_mean
    from zoo.spec.files import check_target

    known = ("safetensors", "pt2", "onnx")
    if form not in known:
        raise UserError(f"--format {form!r}: unknown{did_you_mean(form, known)}")
    from zoo.run.export import export as export_model
    from zoo.run.trained import load_trained

    trained = load_trained(run, runs=runs or "")
    experiment = trained.experiment
    target = target or Path(f"{experiment.arch_spec.name}-{experiment.task_spec.name}.{form}")
    check_target("--output", target, force=force)
    takes = export_model(trained, form, target)
    print(f"{target}: {experiment.name}: {takes}")
