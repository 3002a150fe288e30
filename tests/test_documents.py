"""What documents say about the command line and the registered names is so."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
import typer.main

from tests.conftest import ROOT
from zoo import registry
from zoo.cli import app

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `zoo …` in an indented or fenced block of a document."""
    for line in text.replace("\\\n", " ").splitlines():
        if match := re.match(r"(?: {4}|\$ ?)(.*)", line):
            for part in re.sub(r"(^|\s)# .*|\(.*", "", match[1]).split("&&"):
                if called := re.match(r"\s*(?:[A-Z_]+=\S* )*zoo (.*)", part):
                    yield shlex.split(called[1].replace("…", ""))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_the_command_line_takes_the_commands_of_the_documents(document: object) -> None:
    for args in commands(document.read_text("utf-8")):
        command, name = typer.main.get_command(app), "zoo"
        try:
            while isinstance(command, click.Group) or hasattr(command, "get_command"):
                context = command.make_context(name, list(args))
                args = [*context._protected_args, *context.args]
                if not args:
                    break
                name, command, args = command.resolve_command(context, args)
            else:
                command.make_context(name, list(args))
        except Exception as error:
            pytest.fail(f"zoo {name} {shlex.join(args)}: {error}")


def test_the_readme_shows_enough_commands() -> None:
    shown = [args[0] for args in commands((ROOT / "README.md").read_text("utf-8"))]
    assert {"bench", "new", "check", "extend", "leaderboard", "data", "convert", "doctor"} <= set(shown)


def test_the_list_of_architectures_says_what_they_declare() -> None:
    text = (ROOT / "docs" / "contents.md").read_text("utf-8")
    rows = {cells[0]: cells for line in text.splitlines() if len(cells := line.strip("| ").split(" | ")) == 5}
    for name, entry in registry().architectures.items():
        if not entry.plugin.distribution.startswith("seqzoo"):
            continue
        declared = entry.record.capabilities
        _, family, modes, state, _ = rows[name]
        assert family == entry.record.family, name
        assert set(modes.split(", ")) == set(declared.modes), name
        assert state == declared.state + (", step" if declared.step else ""), name


def test_the_list_of_tasks_names_them_all() -> None:
    text = (ROOT / "docs" / "contents.md").read_text("utf-8")
    for name, entry in registry().tasks.items():
        if entry.plugin.distribution.startswith("seqzoo"):
            assert re.search(rf"^\| .*\b{name}\b", text, re.MULTILINE), name
