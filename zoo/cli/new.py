"""`zoo new`: write a plugin package to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from zoo.scaffold.write import Kind

app = typer.Typer(help="Write a plugin package with an architecture or a task to start from.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name to register: lower-case letters, digits and underscores.")]
Parent = Annotated[Path, typer.Option("--in", help="Folder in which the package's folder is created.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]


@app.command()
def arch(name: Name, parent: Parent = Path(), force: Force = False, as_json: Json = False) -> None:
    """Write a package with a small working architecture; replace its mixer with yours."""
    _write("arch", name, parent, force, as_json)


@app.command()
def task(name: Name, parent: Parent = Path(), force: Force = False, as_json: Json = False) -> None:
    """Write a package with a small working generated task; replace its examples with yours."""
    _write("task", name, parent, force, as_json)


def _write(kind: Kind, name: str, parent: Path, force: bool, as_json: bool) -> None:
    from zoo.scaffold import write
    from zoo.spec.registry import registry

    package = write(kind, name, parent, force=force)
    if as_json:
        fields = {"folder": str(package.folder), "distribution": package.distribution}
        print(json.dumps({**fields, "files": list(package.files)}, indent=2))
        return
    for file in package.files:
        print(package.folder / file)
    known = registry()
    arch, task = (name, next(iter(known.tasks))) if kind == "arch" else (next(iter(known.architectures)), name)
    run = f"zoo bench --arch {arch} --task {task} --protocol smoke"
    print(f"\nNext:\n  pip install -e {package.folder}\n  zoo check {name}\n  {run}")
