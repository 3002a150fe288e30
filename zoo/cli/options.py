"""Types of options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def path_option(*names: str, help: str, metavar: str = "PATH") -> Any:
    """An option whose value is a path as it was given; an empty one (an unset variable, say) is a mistake."""

    def parse(text: str | Path) -> Path:
        if not str(text).strip():
            raise typer.BadParameter("an empty path")
        return Path(text)

    return typer.Option(*names, help=help, parser=parse, metavar=metavar)
