"""`zoo new`: start a plugin package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from zoo.scaffold.write import Kind

app = typer.Typer(help="Start a plugin package: an architecture or a task of your own.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Lower-case letters, digits, underscores: the name it registers under.")]
Parent = Annotated[Path, typer.Option("--in", help="The folder that the package's folder is made in.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a folder of that name.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


@app.command()
def arch(name: Name, parent: Parent = Path(), force: Force = False, as_json: Json = False) -> None:
    """A package with a small architecture that works: change its mixer into yours."""
    _write("arch", name, parent, force, as_json)


@app.command()
def task(name: Name, parent: Parent = Path(), force: Force = False, as_json: Json = False) -> None:
    """A package with a small generated task that works: change its examples into yours."""
    _write("task", name, parent, force, as_json)


def _write(kind: Kind, name: str, parent: Path, force: bool, as_json: bool) -> None:
    from zoo.scaffold import write
    from zoo.spec.registry import registry

    made = write(kind, name, parent, force=force)
    if as_json:
        told = {"folder": str(made.folder), "distribution": made.distribution, "files": list(made.files)}
        print(json.dumps(told, indent=2))
        return
    for file in made.files:
        print(made.folder / file)
    known = registry()
    arch, task = (name, next(iter(known.tasks))) if kind == "arch" else (next(iter(known.architectures)), name)
    run = f"zoo bench --arch {arch} --task {task} --protocol smoke"
    print(f"\nNext:\n  pip install -e {made.folder}\n  zoo check {name}\n  {run}")
