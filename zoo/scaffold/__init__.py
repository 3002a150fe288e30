"""Write a plugin package from the templates beside this file."""

from __future__ import annotations

import datetime
import importlib.util
import keyword
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

from zoo.spec.architecture import NAME
from zoo.spec.errors import UserError
from zoo.spec.files import placed_folder
from zoo.spec.registry import Registry, own_version, registry

Kind = Literal["arch", "task"]
TEMPLATES = Path(__file__).parent / "templates"
"""Files `KIND/PATH.tmpl`, where NAME in PATH stands for the plugin's name."""


@dataclass(frozen=True)
class Package:
    """A written package: its folder, the name of its distribution, and its files."""

    folder: Path
    distribution: str
    files: tuple[str, ...]


def write(kind: Kind, name: str, parent: Path, *, force: bool = False) -> Package:
    """Write `parent/name`, a package that registers the architecture or task `name`, completely or not at all.

    Raises UserError for an unusable name, and for a folder that exists, unless `force` replaces it.
    """
    package = f"zoo_{name}"
    _check_name(kind, name, package, registry())
    folder = parent / name
    if folder.exists() and not force:
        raise UserError(f"{folder} exists already; --force replaces it")
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
        with placed_folder(folder) as complete:
            names = []
            for template in (TEMPLATES / kind).rglob("*.tmpl"):
                target = template.relative_to(TEMPLATES / kind).with_suffix("").as_posix().replace("NAME", name)
                text = Template(template.read_text(encoding="utf-8")).substitute(values)
                (complete / target).parent.mkdir(parents=True, exist_ok=True)
                (complete / target).write_text(text, encoding="utf-8")
                names.append(target)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error
    return Package(folder, values["distribution"], tuple(sorted(names)))


def _check_name(kind: Kind, name: str, package: str, known: Registry) -> None:
    """Raise UserError for a name that is invalid, registered, or whose package is installed."""
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UserError(f"{name!r}: a plugin's name has lower-case letters, digits and underscores, such as my_mixer")
    taken = known.architectures if kind == "arch" else known.tasks
    if name in taken:
        source = taken[name].plugin
        raise UserError(f"{name!r} is taken by {source.distribution} {source.version}; `zoo list` shows all names")
    if importlib.util.find_spec(package) is not None:
        raise UserError(f"{name!r}: a package {package} is already installed")
