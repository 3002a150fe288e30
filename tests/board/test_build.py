"""The board as files and in the terminal: golden text, purity, foreign files, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from rich.console import Console

from tests.board.samples import (
    PROBLEMS,
    REPORTED,
    board_of,
    classification_costs,
    classification_records,
    mqar,
    sections,
    stored,
)
from tests.records import changed, make
from zoo.board import build as board
from zoo.board.charts import scores_chart, to_svg
from zoo.board.checks import check_records, record_faults
from zoo.board.export import COLUMNS, results_table, to_csv, to_json
from zoo.board.markdown import markdown
from zoo.board.terminal import print_board
from zoo.board.tradeoffs import cost_chart
from zoo.spec.errors import UserError
from zoo.spec.record import Record
from zoo.spec.store import Problem, StoredRecord, write

GOLDEN = Path(__file__).with_name("golden")
VL_CONVERT = "1.9.0"
"""The version that drew the golden charts; another may draw them a little differently."""


def fill(results: Path) -> Path:
    for record in classification_records():
        write(record, results)
    (results / "cut.json").write_text("")
    return results


@pytest.mark.parametrize("name", ["README.md", "board.csv", "board.svg", "cost.svg", "board.json"])
def test_golden(name: str) -> None:
    """The whole text. To renew after an intended change: ZOO_GOLDEN=write pytest tests/board, then read the diff."""
    records = classification_records()
    result = board_of(records, REPORTED, classification_costs(records))
    texts = {
        "README.md": lambda: markdown(result, PROBLEMS, chart="board.svg"),
        "board.csv": lambda: to_csv(results_table(result)),
        "board.svg": lambda: to_svg(scores_chart(list(result.sections()))),
        "cost.svg": lambda: to_svg(cost_chart(list(result.sections()))),
        "board.json": lambda: json.dumps(to_json(result, PROBLEMS), indent=1, ensure_ascii=False) + "\n",
    }
    text = texts[name]()
    if os.environ.get("ZOO_GOLDEN") == "write":
        (GOLDEN / name).write_text(text, encoding="utf-8")
    if not name.endswith(".svg") or vl_convert.__version__ == VL_CONVERT:
        assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_two_builds_give_the_same_bytes_wherever_and_in_whatever_order(tmp_path: Path) -> None:
    first = fill(tmp_path / "a" / "leaderboard" / "results")
    second = tmp_path / "b" / "leaderboard" / "results"
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
    assert len(board.board_paths(first)) == 4


def test_two_builds_at_once_give_what_one_gives(tmp_path: Path) -> None:
    results = fill(tmp_path / "results")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(board.build, [results, results]))
    at_once = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert {path.name for path in board.board_paths(results)} == set(at_once)
    board.build(results)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == at_once


def test_a_build_that_changes_nothing_touches_nothing(tmp_path: Path) -> None:
    results = fill(tmp_path / "results")
    paths, problems, messages = board.build(results)
    assert [p.name for p in paths] == ["README.md", "board.csv", "results.csv", "board.svg"]
    assert [p.file for p in problems] == ["cut.json"]
    assert messages == []
    before = {p: p.stat().st_ino for p in paths}
    board.build(results)
    assert {p: p.stat().st_ino for p in paths} == before


def test_where_the_board_lies(tmp_path: Path) -> None:
    assert board.board_dir(tmp_path / "results") == tmp_path
    for name in ("elsewhere", "elsewhere/results", "leaderboard"):
        assert board.board_dir(tmp_path / name) == tmp_path / name
    assert board.board_paths(tmp_path) == []


def test_what_we_did_not_generate_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    write(make(), results)
    mine = tmp_path / "README.md"
    mine.write_text("# My project\n")
    with pytest.raises(UserError, match=r"README\.md"):
        board.build(results)
    board.refresh(results)
    assert "the board was not refreshed" in capsys.readouterr().err
    assert mine.read_text() == "# My project\n"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["README.md"]
    mine.unlink()
    board.build(results)
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
    assert "2 files skipped, not valid as a record:" in text
    assert "- binary.json: not JSON: 'utf-8' codec" in text

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
    assert (tmp_path / "board.csv").read_text() == ",".join(COLUMNS) + "\n"
    ElementTree.parse(tmp_path / "board.svg")


def test_csv_holds_one_row_per_row_and_no_zero_for_a_failure() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(results_table(board_of(classification_records(), REPORTED))))))
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
    quick = markdown(board_of(classification_records(), REPORTED, protocol="quick"))
    paper = markdown(board_of(classification_records(), REPORTED, protocol="paper"))
    assert "`quick` is not that protocol" in quick
    assert "is not that protocol" not in paper
    assert "58.35 % [1], 60 % [2]" in paper
    assert "[1] Author et al. 2020 (a\\|b), Table 1" in paper


def test_text_from_records_cannot_become_structure() -> None:
    override = {"arch.x": "a|b <script>\n# heading\x1b[31m"}
    record = make("alpha", overrides=override)
    text = markdown(board_of([record]), [Problem("<b>|\n# x.json", "no")])
    assert "<script>" not in text
    assert "\n# heading" not in text
    assert "\n# x.json" not in text
    bars = [line.replace("\\|", "").count("|") for line in text.split("\n") if line.startswith("|")]
    assert len(bars) == 3
    assert len(set(bars)) == 1
    ElementTree.fromstring(to_svg(scores_chart(sections([record]))))
    out = io.StringIO()
    print_board(stored([record]), [Problem("[bold]\x1b.json", "[red]")], console=Console(file=out, width=200))
    assert "\x1b" not in out.getvalue()
    assert "[bold] .json: [red]" in out.getvalue()


def test_the_chart_has_a_row_per_configuration_and_a_word_per_failure() -> None:
    spec = scores_chart(sections(classification_records())).to_dict()
    assert len(spec["vconcat"]) == 3
    listops = spec["vconcat"][1]
    values = [row for layer in listops["layer"] for row in layer["data"]["values"]]
    assert [row["word"] for row in values if row.get("color") == "#cf222e"] == ["out-of-memory"] * 3  # halo, family
    assert sum("low" in row for row in values) == 3 * 5  # interval, mean, and name of the family
    assert {row["score"] for row in values if "word" in row and "score" in row} == {0.1, 0.175}
    text = "".join(ElementTree.fromstring(to_svg(scores_chart(sections(classification_records())))).itertext())
    for word in ("quick: listops", "1 beta", "alpha (modified)", "epsilon (other data)", "out-of-memory"):
        assert word in text.replace("\xa0", " ").replace("  ", " ")


def test_without_the_chart_libraries_there_are_tables_and_a_hint(tmp_path: Path) -> None:
    """In a process where they cannot be imported, as without the extra."""
    results = tmp_path / "results"
    for name, accuracy in (("alpha", 0.9), ("beta", 0.8)):
        write(mqar(name, accuracy, 0.5), results)
    code = """
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("altair", "vl_convert"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Block())
from zoo.board.build import refresh
refresh(sys.argv[1])
refresh(sys.argv[1])
"""
    done = subprocess.run([sys.executable, "-c", code, str(results)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "zoo: the board has no charts and no page: they need pip install 'seqzoo[board]'\n"
    written = ["README.md", "board.csv", "groups.csv", "results.csv"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == written
    assert ".svg" not in (tmp_path / "README.md").read_text()
    board.build(results)
    assert "](breakdown-quick-mqar.svg)" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("width", [60, 100, 300])
def test_the_terminal_shows_ranks_scores_and_reasons_at_any_width(width: int) -> None:
    out = io.StringIO()
    records, console = classification_records(), Console(file=out, width=width)
    print_board(stored(records), PROBLEMS, classification_costs(records), protocol="quick", console=console)
    text = out.getvalue()
    assert all(len(line.rstrip()) <= width for line in text.split("\n"))
    for word in ("alpha", "out-of-memory", "41.0 %", "modified", "chance 10.0 %", "cut.json"):
        assert word in text
    assert ("64 MiB" in text) == (width == 300)
    assert "99.0" not in text


def test_the_terminal_says_when_there_is_nothing() -> None:
    out = io.StringIO()
    print_board(stored([make(protocol="smoke")]), protocol="quick", console=Console(file=out))
    assert out.getvalue() == "no records under protocol quick to show (smoke runs are on no board)\n"


# -- checking records ----------------------------------------------------------------------------------------------


def test_consistent_records_have_no_faults(tmp_path: Path) -> None:
    for seed in range(5):
        write(make(task="unheard_of", seed=seed), tmp_path)
    assert check_records(tmp_path) == (5, [])


def faults(record: Record, path: str = "") -> list[str]:
    return record_faults(StoredRecord(path or f"{record.id}.json", record))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokens_per_second": 64_000.0}, "tokens_per_second: "),
        ({"samples": 95}, "samples: 95, but the history reaches 96"),
        ({"ended": "2026-01-02T02:59:59Z"}, "ended: "),
        ({"data": {"kind": "regenerated", "version": "1", "seed": 0, "counts": {"test": 10}}}, "metrics.test.n: "),
    ],
)
def test_contradictions_are_named(change: dict[str, Any], says: str) -> None:
    assert faults(make(task="unheard_of")) == []
    (fault,) = faults(make(task="unheard_of", **change))
    assert fault.startswith(says)


def test_a_file_in_the_wrong_place_is_named() -> None:
    record = make(task="unheard_of")
    assert faults(record, "quick/unheard_of/alpha/0123456789ab-s0-3.json") == []
    assert faults(record, "quick/unheard_of/alpha/0123456789ab-s1.json") == [
        "path: expected quick/unheard_of/alpha/0123456789ab-s0.json"
    ]


def test_an_impossible_score_is_named() -> None:
    record = make(task="unheard_of", accuracy=0.5004)
    assert faults(record) == ["metrics.test.scores.accuracy: 0.5004 is not a fraction of 1000 examples"]
    fields = changed(make(task="unheard_of"), "metrics", "val", "scores", "accuracy", value=0.55)
    assert faults(Record.model_validate(fields)) == [
        "metrics.val.scores.accuracy: 0.55, the best of the history is 0.5"
    ]
    fields["history"].append(fields["history"][1] | {"samples": 32, "metric": 0.55})
    assert faults(Record.model_validate(fields)) == ["history: not in the order of training"]


@pytest.mark.usefixtures("toys")
def test_a_changed_configuration_is_named() -> None:
    from zoo.spec.config import config_hash
    from zoo.spec.registry import registry

    config = {"model": {"d_model": 64}, "train": {"logger": "csv"}}
    digest = config_hash(registry().architecture("mamba"), registry().task("toytask"), "quick", config)
    fields = {"config": config, "config_hash": digest}
    assert faults(make("mamba", "toytask", **fields)) == []
    # what cannot change a number is not part of the identity
    assert faults(make("mamba", "toytask", **fields | {"config": config | {"train": {"logger": "none"}}})) == []
    (fault,) = faults(make("mamba", "toytask", **fields | {"config": {"model": {"d_model": 65}}}))
    assert fault.startswith("config_hash: ")
