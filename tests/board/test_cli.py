"""`zoo leaderboard` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.board.test_build import fill
from tests.records import make
from zoo.cli import main
from zoo.spec.store import write


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return fill(tmp_path / "results")


def zoo(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["zoo", "leaderboard", *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_show(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # the tests' environment points ZOO_RESULTS_DIR to the same place
    assert zoo(monkeypatch) == 0
    out = capsys.readouterr().out
    for text in ("quick: listops", "quick: pathfinder", "paper: listops", "1 file skipped", "cut.json"):
        assert text in out
    assert zoo(monkeypatch, "--protocol", "paper") == 0
    assert "quick: listops" not in capsys.readouterr().out
    assert zoo(monkeypatch, "--task", "pathfinder", "--results", results) == 0
    out = capsys.readouterr().out
    assert "quick: pathfinder" in out
    assert "listops (" not in out
    assert zoo(monkeypatch, "--task", "lra", "--arch", "gamma") == 0
    out = capsys.readouterr().out
    assert "quick: listops" in out
    assert "beta" not in out


def test_json_is_all_there_is_on_stdout(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo(monkeypatch, "--json", "--protocol", "quick") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [b["protocol"] for b in shown["boards"]] == ["quick"]
    assert [p["file"] for p in shown["skipped"]] == ["cut.json"]
    best = shown["boards"][0]["rows"][0]
    assert (best["task"], best["rank"], best["chance"], best["majority"]) == ("listops", 1, 0.1, 0.175)
    assert all((results / name).is_file() for name in best["records"])
    assert len(best["records"]) == best["seeds"] == 3


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--protocol", "quik"), "unknown protocol 'quik'; did you mean 'quick'?"),
        (("--task", "listop"), "unknown task 'listop'; did you mean 'listops'?"),
        (("--arch", "alfa"), "unknown architecture 'alfa'; did you mean 'alpha'"),
        (("--results", "/nowhere/at/all"), "--results /nowhere/at/all: no such directory"),
        (("build", "--results", "/nowhere/at/all"), "--results /nowhere/at/all: no such directory"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    says: str,
) -> None:
    assert zoo(monkeypatch, *args) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""


def test_build(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo(monkeypatch, "--results", results, "build") == 0
    captured = capsys.readouterr()
    names = ("README.md", "board.csv", "results.csv", "board.svg", "index.html")
    assert captured.out.split() == [str(results.parent / name) for name in names]
    assert "cut.json" in captured.err
    (results.parent / "results.csv").write_text("mine")
    assert zoo(monkeypatch, "build") == 2
    assert "results.csv" in capsys.readouterr().err
    assert zoo(monkeypatch, "build", "--force", "--json") == 0
    assert json.loads(capsys.readouterr().out)["skipped"][0]["file"] == "cut.json"


def test_no_torch_is_needed(results: Path) -> None:
    code = """
import sys
from zoo.cli import leaderboard
from zoo.board.build import build
from zoo.board.checks import check_records
for verb in (["--json"], ["build"], ["validate"]):
    try:
        leaderboard.app([*verb, "--results", sys.argv[1]])
    except SystemExit:
        pass
sys.exit(", ".join({"torch", "lightning"} & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code, str(results)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (results.parent / "README.md").exists()


def test_build_without_records_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo(monkeypatch, "build") == 2
    assert "no records at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_validate(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "cut.json").unlink()
    for path in results.rglob("*/listops/*/*.json"):
        path.unlink()
    for path in results.rglob("pathfinder/*/*.json"):
        path.unlink()
    write(make("alpha", "unheard_of"), results)
    assert zoo(monkeypatch, "validate") == 0
    assert capsys.readouterr().out == "1 files: 1 valid, 0 with problems\n"
    write(make("alpha", "unheard_of", seed=1, samples=3), results)
    (results / "foreign.json").write_text("{}")
    assert zoo(monkeypatch, "validate") == 2
    assert capsys.readouterr().out.split("\n")[:3] == [
        "foreign.json: not a record of zoo: no schema_version",
        "quick/unheard_of/alpha/0123456789ab-s1.json: samples: 3, but the history reaches 96",
        "3 files: 1 valid, 2 with problems",
    ]
    assert zoo(monkeypatch, "validate", "--json") == 2
    shown = json.loads(capsys.readouterr().out)
    assert shown["valid"] == 1
    assert shown["problems"][0]["file"] == "foreign.json"
