"""`zoo new`: names that cannot be used, folders that are there, whole or nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from zoo.scaffold import write
from zoo.spec.errors import UserError


@pytest.mark.parametrize("kind", ["arch", "task"])
def test_a_package_is_written_whole(kind: str, tmp_path: Path) -> None:
    made = write(kind, "a_thing", tmp_path)  # type: ignore[arg-type]
    assert made.distribution == "zoo-a-thing"
    written = sorted(str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file())
    assert tuple(written) == made.files
    project = tomllib.loads((made.folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["zoo"] == {"a_thing": "zoo_a_thing"}
    for path in made.folder.rglob("*.py"):
        text = path.read_text()
        compile(text, path, "exec")
        assert "$" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["a_thing"]


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("arch", "My-Mixer", "lower-case letters"),
        ("arch", "class", "lower-case letters"),
        ("arch", "../up", "lower-case letters"),
        ("arch", "mamba", "taken by seqzoo"),
        ("task", "listops", "taken by seqzoo"),
        ("task", "lra", "package zoo_lra is already installed"),
    ],
)
def test_names_that_cannot_be_used(kind: str, name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        write(kind, name, tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_kept_without_force(tmp_path: Path) -> None:
    mine = tmp_path / "my_mixer" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(UserError, match="--force"):
        write("arch", "my_mixer", tmp_path)
    assert mine.read_text() == "mine"
    write("arch", "my_mixer", tmp_path, force=True)
    assert not mine.exists()


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zoo", "new", "arch"]
    done = subprocess.run([*command, "my_mixer", "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pyproject.toml" in json.loads(done.stdout)["files"]
    again = subprocess.run([*command, "my_mixer"], cwd=tmp_path, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("zoo: my_mixer exists already")
