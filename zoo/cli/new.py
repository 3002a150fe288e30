"""`zoo new`: write a plugin package to start from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer


def new(
    kind: Annotated[Literal["arch", "task"], typer.Argument(help="arch: an architecture; task: a generated task.")],
    name: Annotated[str, typer.Argument(help="The name to register: lower-case letters, digits and underscores.")],
    parent: Annotated[Path, typer.Option("--in", help="Folder in which the package's folder is created.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing folder.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Write a package with a small working architecture or task; replace its mixer or its examples with yours."""
    from zoo.scaffold import write
    from zoo.spec.registry import registry

    package = write(kind, name, parent, force=force)
    if json_:
        print(json.dumps(asdict(package), indent=2, default=str))
        return
    for file in package.files:
        print(package.folder / file)
    known = registry()
    arch, task = (name, next(iter(known.tasks))) if kind == "arch" else (next(iter(known.architectures)), name)
    run = f"zoo bench --arch {arch} --task {task} --protocol smoke"
    print(f"\nNext:\n  pip install -e {quote(str(package.folder))}\n  zoo check {name}\n  {run}")
