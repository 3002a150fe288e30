"""A path is the one that was given: no parser changes it, and no neighbour with a shorter name is read instead."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

import zoo
from zoo.cli import app
from zoo.spec.files import user_path

NAMES = (
    *(
        "lra #2",
        "1.10",
        "010",
        "a: b",
        "a=b",
        "${HOME}",
        "${x}",
        "None",
        "null",
        "[a]",
        "{a}",
        "x,y",
        " blank ",
        "é 中",
    ),
    *("quo'te", 'quo"te', "star*", "-x", "~y", "%41", "a\\b", "new\nline"),
)


def listops(folder: Path, digit: int) -> Path:
    """Published files whose every value is `digit`."""
    folder.mkdir(parents=True)
    for k, split in enumerate(("train", "val", "test")):
        rows = "".join(f"( ( ( [MAX {digit} ) {i % 3} ) ] )\t{max(digit, i % 3)}\n" for i in range(k, k + 1))
        (folder / f"basic_{split}.tsv").write_text("Source\tTarget\n" + rows)
    return folder


def run(*args: str) -> str:
    result = CliRunner().invoke(app, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_from_and_task_path_read_the_named_folder(tmp_path: Path, name: str) -> None:
    place = listops(tmp_path / name, 9)
    for cut in {name[:n].strip() for n in range(1, len(name))} - {""}:
        if not (tmp_path / cut).exists():
            listops(tmp_path / cut, 5)
    common = ["--protocol", "smoke", "--json"]
    for args in (["--from", str(place)], ["--set", f"task.path={place}"]):
        shown = json.loads(run("data", "prepare", "listops", *args, *common))[0]
        assert shown["provenance"]["kind"] == "part"
    shown = json.loads(run("data", "stats", "listops", "--set", f"task.path={place}", *common))[0]
    assert shown["labels"][9] == 1
    run("data", "verify", "listops", "--set", f"task.path={place}", "--protocol", "smoke")


@pytest.mark.parametrize("name", ["notes #2.txt", "1.10", "a: b", "${x}", "None"])
def test_a_corpus_is_the_named_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("".join(f"A paragraph of words, number {i}.\n\n" for i in range(400)))
    smoke = ["--protocol", "smoke", "--set", f"task.corpus={tmp_path / name}", "--json"]
    row = json.loads(run("data", "prepare", "wikitext", *smoke))[0]
    assert list(row["provenance"]["files"]) == [name]


@pytest.mark.parametrize("name", NAMES)
def test_folders_that_are_written_are_the_named_ones(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / name
    run("data", "sample", "mqar", "--protocol", "smoke", "--out", str(out / name))
    assert (out / name).read_text().strip()
    run("data", "export", "mqar", "--protocol", "smoke", "--limit", "20", "--to", str(tmp_path / "to" / name))
    assert (tmp_path / "to" / name / "test.jsonl").exists()
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "data" / name))
    assert json.loads(run("data", "prepare", "listops", "--protocol", "smoke", "--json"))[0]["folder"].startswith(
        str(tmp_path / "data" / name / "lra")
    )


def test_an_empty_path_is_not_the_current_folder() -> None:
    for args in (
        *(["data", "prepare", "listops", "--from", ""], ["data", "export", "mqar", "--to", " "]),
        *(["data", "sample", "mqar", "--out", ""], ["leaderboard", "--results", ""]),
        *(["bench", "--arch", "s4", "--task", "mqar", option, ""] for option in ("--results", "--runs", "--config")),
        *(["convert", "--arch", "bigbird", "--from", ""], ["new", "arch", "mine", "--in", ""]),
    ):
        with pytest.raises(zoo.UserError, match="an empty value"):
            CliRunner().invoke(app, args, catch_exceptions=False)


def test_a_home_that_is_not_there_is_no_fault() -> None:
    assert user_path("~") == Path(os.path.expanduser("~"))
    assert user_path("~nobody-of-this-name/x") == Path.cwd() / "~nobody-of-this-name/x"
    with pytest.raises(zoo.UserError, match="no such file or folder"):
        CliRunner().invoke(app, ["data", "prepare", "text", "--from", "~nobody-of-this-name"], catch_exceptions=False)
