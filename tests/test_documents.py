"""What documents say about the command line and the registered names is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


SMALL = {
    "own-data": ["--set", "train.max_samples=128", "--set", "train.val_every=64", "--set", "model.d_model=8"],
    "board": ["--set", "train.max_samples=64", "--set", "task.group_size=8", "--set", "task.val_size=20"],
}
"""What is added to each `zoo bench` and `zoo cost` of a page, whose own budgets take minutes."""
PARTS = re.compile(r"^\*\*`(?P<name>[^`]+)`\*\*\n\n```python\n(?P<file>.*?)^```$|^ {4}(?P<line>\S[^\n]*)$", re.M | re.S)


@pytest.mark.parametrize("page", SMALL)
def test_the_commands_of_a_page_succeed_one_after_another_in_an_empty_folder(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZOO_RESULTS_DIR")
    executed = []
    for part in PARTS.finditer((ROOT / "docs" / f"{page}.md").read_text("utf-8")):
        if part["file"]:
            (tmp_path / part["name"]).write_text(part["file"], "utf-8")
            continue
        program, *arguments = shlex.split(part["line"], comments=True)
        if arguments[:2] == ["leaderboard", "serve"]:  # until it is ended
            continue
        if program == "python":
            command = [sys.executable, *arguments, "400"]
        else:
            assert program == "zoo"
            small = SMALL[page] if arguments[0] in ("bench", "cost") else []
            command = [sys.executable, "-m", "zoo", *arguments, *small]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (part["line"], done.stderr)
        executed.append(arguments[0])
    assert {"bench", "leaderboard"} <= set(executed)
    assert list((tmp_path / "leaderboard" / "results").rglob("*-s0.json"))


def test_the_script_of_own_data_is_the_one_in_the_examples_and_is_read_as_the_page_says(tmp_path: Path) -> None:
    script, page = ROOT / "docs" / "examples" / "make_marker.py", (ROOT / "docs" / "own-data.md").read_text("utf-8")
    assert f"```python\n{script.read_text('utf-8')}```" in page
    subprocess.run([sys.executable, script, "marker"], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "zoo", "show", "s4", "--data", "marker"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"```console\n{done.stderr}```" in page
