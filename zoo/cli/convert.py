"""`zoo convert`: convert checkpoints between Hugging Face transformers and zoo."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def convert(
    arch: Annotated[str, typer.Option(help="The architecture.")],
    source: Annotated[Path, typer.Option("--from", help="A Hugging Face directory, or one that zoo convert wrote.")],
    target: Annotated[
        Path | None,
        typer.Option("--to", help="The directory to write [in the current folder: its name, -zoo or -huggingface]."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that directory.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")] = False,
) -> None:
    """Convert a Hugging Face checkpoint (safetensors) to zoo's format, or zoo's to Hugging Face's; logits are equal.

    If tensors are missing, unexpected or of another shape, all of them are listed and nothing is written.
    """
    from zoo.convert import convert as convert_checkpoint

    result = convert_checkpoint(arch, source, target, force=force)
    if as_json:
        print(json.dumps(asdict(result), indent=2, default=str))
        return
    print(
        f"{result.folder}: {result.architecture}, {result.tensors} tensors, {result.parameters:,} parameters, "
        f"{result.form} format"
    )
    if result.form == "zoo":
        print(f"Use it: from zoo.convert import load; model = load({str(result.folder)!r}); model(ids).logits")
