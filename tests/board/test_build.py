"""The board as files and in the terminal: golden text, purity, foreign files, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.records import make
from zoo.board import build as board
from zoo.board.export import COLUMNS, csv_text, to_json
from zoo.board.markdown import markdown
from zoo.board.model import boards
from zoo.board.picture import picture
from zoo.board.terminal import print_board
from zoo.spec.architecture import Reported
from zoo.spec.errors import UserError
from zoo.spec.record import Problem, write

GOLDEN = Path(__file__).with_name("golden")

REPORTED = {
    "seqzoo:alpha": [
        Reported(task="listops", metric="accuracy", value=0.5835, source="Author et al. 2020 (a|b)", table="Table 1"),
        Reported(task="listops", metric="accuracy", value=0.6, source="Another 2021"),
    ],
    "seqzoo:gamma": [Reported(task="pathfinder", metric="accuracy", value=0.9, source="Another 2021")],
}


def some_records() -> list[dict[str, Any]]:
    """A bit of everything: seeds, ties, failures, a modified row, a repeat, other data, two protocols, smoke."""
    path = {"chance": 0.5, "majority": 0.502, "n": 2000}
    published = {"kind": "published", "version": "1", "files": {"a.tsv": "ab" * 32}, "counts": {"test": 1000}}
    fast = {"cpu": "x", "cores": 8, "gpus": ["A GPU"]}
    return [
        *(make("alpha", seed=s, accuracy=a) for s, a in enumerate((0.41, 0.42, 0.40))),
        *(make("beta", seed=s, accuracy=a) for s, a in enumerate((0.40, 0.43))),
        make("beta", seed=2, status="diverged"),
        make("gamma", accuracy=0.18, mode="bidirectional"),
        make("delta", status="out-of-memory"),
        make("alpha", accuracy=0.6, overrides={"model.d_model": 256}, config_hash="ff" * 6, parameters=1_900_000),
        make("epsilon", accuracy=0.44, data=published, hardware=fast, peak_memory_bytes=3 * 2**30),
        make("alpha", "pathfinder", accuracy=0.71, **path),
        make("alpha", "pathfinder", accuracy=0.70, **path, ended="2026-01-02T03:04:04+00:00"),
        make("gamma", "pathfinder", accuracy=0.55, match={"architecture": "alpha", "parameters": 90_000}, **path),
        make("alpha", protocol="paper", accuracy=0.55),
        make("alpha", protocol="smoke", accuracy=0.99),
    ]


PROBLEMS = [Problem("cut.json", "not JSON: Expecting value (line 1)")]


def fill(results: Path) -> Path:
    for record in some_records():
        write(record, results)
    (results / "cut.json").write_text("")
    return results


@pytest.mark.parametrize("name", ["README.md", "results.csv", "board.svg", "board.json"])
def test_golden(name: str) -> None:
    """The whole text. To renew after a wanted change: ZOO_GOLDEN=write pytest tests/board, then read the diff."""
    found = boards(some_records(), REPORTED)
    texts = {
        "README.md": lambda: markdown(found, PROBLEMS, picture="board.svg"),
        "results.csv": lambda: csv_text(found),
        "board.svg": lambda: picture(found, comment="generated"),
        "board.json": lambda: json.dumps(to_json(found, PROBLEMS), indent=1, ensure_ascii=False) + "\n",
    }
    text = texts[name]()
    if os.environ.get("ZOO_GOLDEN") == "write":
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_two_builds_give_the_same_bytes_wherever_and_in_whatever_order(tmp_path: Path) -> None:
    first = fill(tmp_path / "a" / "results")
    second = tmp_path / "b" / "results"
    files = [f for f in first.rglob("*") if f.is_file()]
    random.Random(3).shuffle(files)
    for file in files:
        target = second / file.relative_to(first)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    for results in (first, second):
        board.build(results)
    for path in board.board_paths(first):
        assert path.read_bytes() == (second.parent / path.name).read_bytes()
    assert len(board.board_paths(first)) == 3


def test_a_build_that_changes_nothing_touches_nothing(tmp_path: Path) -> None:
    results = fill(tmp_path / "results")
    paths, problems, faults = board.build(results)
    assert [p.name for p in paths] == ["README.md", "results.csv", "board.svg"]
    assert [p.file for p in problems] == ["cut.json"]
    assert faults == []
    before = {p: p.stat().st_ino for p in paths}
    board.build(results)
    assert {p: p.stat().st_ino for p in paths} == before


def test_where_the_board_lies(tmp_path: Path) -> None:
    assert board.board_dir(tmp_path / "leaderboard" / "results") == tmp_path / "leaderboard"
    assert board.board_dir(tmp_path / "elsewhere") == tmp_path / "elsewhere"
    assert board.board_paths(tmp_path) == []


def test_what_we_did_not_generate_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = fill(tmp_path / "results")
    mine = tmp_path / "README.md"
    mine.write_text("# My project\n")
    with pytest.raises(UserError, match=r"README\.md"):
        board.build(results)
    board.refresh(results)
    assert "the board was not refreshed" in capsys.readouterr().err
    assert mine.read_text() == "# My project\n"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["README.md"]
    board.build(results, force=True)
    assert mine.read_text().startswith("<!-- generated by")
    write(make("zeta"), results)
    board.build(results)
    assert "zeta" in mine.read_text()


def test_refresh_survives_foreign_files_and_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = fill(tmp_path / "results")
    (results / "binary.json").write_bytes(bytes(range(256)))
    board.refresh(results)
    text = (tmp_path / "README.md").read_text()
    assert "2 files are no sound record and skipped:" in text
    assert "- binary.json: not UTF-8 text" in text

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    write_before = (tmp_path / "README.md").read_text()
    (results / "binary.json").unlink()
    board.refresh(results)
    assert "No space left" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == write_before


def test_an_empty_directory_has_an_empty_board(tmp_path: Path) -> None:
    board.refresh(tmp_path / "results")
    assert "No records yet." in (tmp_path / "README.md").read_text()
    assert (tmp_path / "results.csv").read_text() == ",".join(COLUMNS) + "\n"
    ElementTree.parse(tmp_path / "board.svg")


def test_csv_holds_one_row_per_row_and_no_zero_for_a_failure() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(boards(some_records(), REPORTED)))))
    assert len(rows) == 9
    failed = next(row for row in rows if row["architecture"] == "delta")
    assert (failed["accuracy"], failed["rank"], failed["failures"]) == ("", "", "out-of-memory")
    assert {row["protocol"] for row in rows} == {"paper", "quick"}
    alpha = next(row for row in rows if row["architecture"] == "alpha" and row["protocol"] == "quick")
    assert json.loads(alpha["each_seed"]) == {"0": 0.41, "1": 0.42, "2": 0.4}
    assert alpha["delta"] == ""
    paper = [row for row in rows if row["protocol"] == "paper" and row["reported"] and row["accuracy"]]
    assert paper
    assert all(row["delta"] for row in paper)


def test_what_quick_shows_beside_reported_scores_is_said_to_be_another_protocol() -> None:
    quick = markdown(boards(some_records(), REPORTED, protocol="quick"))
    paper = markdown(boards(some_records(), REPORTED, protocol="paper"))
    assert "`quick` is not that protocol" in quick
    assert "is not that protocol" not in paper
    assert "58.35 % [1], 60 % [2]" in paper
    assert "[1] Author et al. 2020 (a\\|b), Table 1" in paper


def test_text_from_records_cannot_become_structure() -> None:
    override = {"arch.x": "a|b <script>\n# heading\x1b[31m"}
    record = make("alpha", overrides=override)
    text = markdown(boards([record]), [Problem("<b>|\n# x.json", "no")])
    assert "<script>" not in text
    assert "\n# heading" not in text
    assert "\n# x.json" not in text
    bars = [line.replace("\\|", "").count("|") for line in text.split("\n") if line.startswith("|")]
    assert len(bars) == 3
    assert len(set(bars)) == 1
    svg = ElementTree.fromstring(picture(boards([record])))
    assert "a|b <script>" in "".join(svg.itertext())
    out = io.StringIO()
    print_board([record], [Problem("[bold]\x1b.json", "[red]")], console=Console(file=out, width=200))
    assert "\x1b" not in out.getvalue()
    assert "[bold] .json: [red]" in out.getvalue()


def test_the_picture_draws_every_row_and_both_lines() -> None:
    found = boards(some_records(), REPORTED)
    svg = ElementTree.fromstring(picture(found))
    space = "{http://www.w3.org/2000/svg}"
    rows = [row for b in found for s in b.sections for row in s.rows]
    assert len(svg.findall(f".//{space}circle[@class='mean']")) == sum(row.estimate is not None for row in rows)
    assert len(svg.findall(f".//{space}circle[@class='seed']")) == 5
    sections = sum(len(b.sections) for b in found)
    assert len(svg.findall(f".//{space}line[@class='chance']")) == sections
    assert len(svg.findall(f".//{space}line[@class='majority']")) == sections
    assert [word.text for word in svg.findall(f".//{space}text[@class='word']")] == ["out-of-memory"]


@pytest.mark.parametrize("width", [60, 100, 250])
def test_the_terminal_shows_ranks_scores_and_reasons_at_any_width(width: int) -> None:
    out = io.StringIO()
    print_board(some_records(), PROBLEMS, protocol="quick", console=Console(file=out, width=width))
    text = out.getvalue()
    assert all(len(line.rstrip()) <= width for line in text.split("\n"))
    for word in ("alpha", "out-of-memory", "41.0 %", "modified", "chance 10.0 %", "cut.json"):
        assert word in text
    assert ("512 MiB" in text) == (width == 250)
    assert "99.0" not in text


def test_the_terminal_says_when_there_is_nothing() -> None:
    out = io.StringIO()
    print_board([make(protocol="smoke")], protocol="quick", console=Console(file=out))
    assert out.getvalue() == "no records under protocol quick to show (smoke runs are on no board)\n"


# -- checking records ----------------------------------------------------------------------------------------------


def test_sound_records_are_sound(tmp_path: Path) -> None:
    for seed in range(5):
        write(make(task="unheard_of", seed=seed), tmp_path)
    assert board.check(tmp_path) == (5, [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "quick/unheard_of/beta/0123456789ab-s0"}, "id: "),
        ({"path": "quick/unheard_of/alpha/0123456789ab-s1.json"}, "path: "),
        ({"tokens_per_second": 64_000.0}, "tokens_per_second: "),
        ({"samples": 95}, "samples: 95, but the history reach 96"),
        ({"ended": "2026-01-02T02:59:59Z"}, "ended: "),
        ({"data": {"kind": "regenerated", "version": "1", "seed": 0, "counts": {"test": 10}}}, "metrics.test.n: "),
    ],
)
def test_contradictions_are_found(change: dict[str, Any], says: str) -> None:
    record = make(task="unheard_of")
    assert board.derived_faults(record) == []
    faults = board.derived_faults(record | change)
    assert len(faults) == 1
    assert faults[0].startswith(says)


def test_an_impossible_score_is_found() -> None:
    record = make(task="unheard_of", accuracy=0.5004)
    assert board.derived_faults(record) == ["metrics.test.accuracy: 0.5004 is no share of 1000 examples"]
    record = make(task="unheard_of")
    record["metrics"]["val"]["accuracy"] = 0.55
    assert board.derived_faults(record) == ["metrics.val.accuracy: 0.55, the best of its curve is 0.5"]
    record["history"].append(record["history"][1] | {"samples": 32, "metric": 0.55})
    assert board.derived_faults(record) == ["history: not in the order of training"]


@pytest.mark.usefixtures("toys")
def test_a_changed_configuration_is_found() -> None:
    from zoo.run.identity import config_hash

    config = {"model": {"d_model": 64}, "train": {"logger": "csv"}}
    names = {"architecture": "seqzoo:alpha", "task": "tests.run.toy:toytask", "task_version": "1"}
    record = make(
        "alpha", "toytask", config=config, config_hash=config_hash(**names, protocol="quick", values=config, later={})
    )
    assert board.derived_faults(record) == []
    # what cannot change a number is no part of the identity
    assert board.derived_faults(record | {"config": config | {"train": {"logger": "none"}}}) == []
    faults = board.derived_faults(record | {"config": {"model": {"d_model": 65}}})
    assert len(faults) == 1
    assert faults[0].startswith("config_hash: ")
