"""What the site needs beyond Markdown: links to files outside docs/, and docstrings' lists of arguments.

Loaded by mkdocs.yml, as a hook of mkdocs and as an extension of griffe, which reads the docstrings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
ARGUMENT = re.compile(r"\S+(?:, \S+)*  +(?=\S)")
"""`name, name   description`, as docstrings list arguments, shapes and results; descriptions stand in one column."""


def on_page_markdown(markdown: str, *, page: Any, config: Any, **kwargs: Any) -> str:
    """Let links to files that are no pages of the site lead to the repository, and refuse those to no file."""

    def resolve(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        file = (ROOT / "docs" / page.file.src_uri).parent.joinpath(target).resolve()
        if not file.exists():
            raise PluginError(f"{page.file.src_uri}: {target} is no file")
        path = file.relative_to(ROOT)
        if path.suffix == ".md" and path.parts[0] == "docs" and path.parts[1] != "examples":
            return match.group()
        return f"{image}{text}({config.repo_url}/{'raw' if image else 'blob'}/main/{path.as_posix()}{anchor or ''})"

    return LINK.sub(resolve, markdown)


class Arguments(Extension):
    """Show docstrings' aligned lists of arguments as lists, line by line as they were written."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = "\n\n".join(map(as_list, obj.docstring.value.split("\n\n")))


def as_list(paragraph: str) -> str:
    """A paragraph whose every line is an argument, or continues one, as a Markdown list; others as they are."""
    lines = paragraph.splitlines()
    columns = {match.end() for line in lines if (match := ARGUMENT.match(line))}
    if len(columns) != 1:
        return paragraph
    (column,) = columns
    items: list[str] = []
    for line in lines:
        name, description = line[:column].strip(), line[column:].strip()
        if name and not line.startswith(" ") and line[column - 1 : column] == " ":
            items.append(f"- `{name}` {description}")
        elif items and not name:
            items[-1] += " " + description
        else:
            return paragraph
    return "\n".join(items)
