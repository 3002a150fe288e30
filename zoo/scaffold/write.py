"""From a name to a package: templates beside this file, filled in and written whole or not at all."""

from __future__ import annotations

import datetime
import importlib.util
import keyword
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from string import Template
from typing import Literal

from zoo.spec.architecture import NAME
from zoo.spec.errors import UserError
from zoo.spec.registry import Registry, own_version, registry

Kind = Literal["arch", "task"]
SUFFIX = ".tmpl"
PLACE = "NAME"
"""In a template's path: the plugin's name."""


@dataclass(frozen=True)
class Written:
    """A package that was made: its folder, the name of its distribution, and its files."""

    folder: Path
    distribution: str
    files: tuple[str, ...]


def write(kind: Kind, name: str, parent: Path, *, force: bool = False) -> Written:
    """Write `parent/name`, a package that registers the architecture or task `name`.

    Raises UserError for a name that cannot be used, and for a folder that is there, unless `force` replaces it.
    """
    package = f"zoo_{name}"
    _check_name(kind, name, package, registry())
    folder = parent / name
    if folder.exists() and not force:
        raise UserError(f"{folder} is there already; --force replaces it")
    values = {
        "name": name,
        "package": package,
        "distribution": package.replace("_", "-"),
        "Class": "".join(part.capitalize() for part in name.split("_")),
        "title": name.replace("_", " ").capitalize(),
        "year": str(datetime.date.today().year),
        "zoo_version": own_version(),
    }
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=f".{name}-") as beside:
            made = Path(beside) / name
            names = []
            for path, text in _templates(kind):
                target = str(path).replace(PLACE, name).removesuffix(SUFFIX)
                (made / target).parent.mkdir(parents=True, exist_ok=True)
                (made / target).write_text(Template(text).substitute(values), encoding="utf-8")
                names.append(target)
            if folder.exists():
                shutil.rmtree(folder)
            made.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error
    return Written(folder, values["distribution"], tuple(sorted(names)))


def _check_name(kind: Kind, name: str, package: str, known: Registry) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UserError(f"{name!r}: a plugin's name has lower-case letters, digits and underscores, such as my_mixer")
    taken = known.architectures if kind == "arch" else known.tasks
    if name in taken:
        where = taken[name].provenance
        raise UserError(f"{name!r} is taken by {where.distribution} {where.version}; `zoo list` shows all names")
    if importlib.util.find_spec(package) is not None:
        raise UserError(f"{name!r}: a package {package} is installed already")


def _templates(kind: Kind) -> Iterator[tuple[PurePosixPath, str]]:
    """Relative path and text of every template."""

    def walk(place: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
        for entry in sorted(place.iterdir(), key=lambda e: e.name):
            if entry.is_dir():
                yield from walk(entry, path / entry.name)
            elif entry.name.endswith(SUFFIX):
                yield path / entry.name, entry.read_text(encoding="utf-8")

    return walk(files("zoo.scaffold") / "templates" / kind, PurePosixPath())
