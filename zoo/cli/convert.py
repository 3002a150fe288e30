"""`zoo convert`: checkpoints of others into ours, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def convert(
    arch: Annotated[str, typer.Option(help="The architecture.")],
    source: Annotated[Path, typer.Option("--from", help="A Hugging Face directory, or one that zoo convert wrote.")],
    target: Annotated[
        Path | None, typer.Option("--to", help="The directory to write [beside you: its name, -zoo or -huggingface].")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that directory.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")] = False,
) -> None:
    """Convert a Hugging Face checkpoint (safetensors) into zoo's form, or zoo's into Hugging Face's; logits are equal.

    Weights that are missing, superfluous or misshapen are listed, and nothing is written.
    """
    from zoo.convert import convert as run

    done = run(arch, source, target, force=force)
    told = {
        "folder": str(done.folder),
        "form": done.form,
        "architecture": done.architecture,
        "tensors": done.tensors,
        "parameters": done.parameters,
    }
    if as_json:
        print(json.dumps(told, indent=2))
        return
    print(
        f"{done.folder}: {done.architecture}, {done.tensors} tensors, {done.parameters:,} parameters, {done.form} form"
    )
    if done.form == "zoo":
        print(f'Use it: from zoo.convert import load; model = load("{done.folder}"); model(ids).logits')
