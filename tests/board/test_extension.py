"""Models beyond their training length, and what runs do with their context, on the board."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.records import make, make_analysis
from zoo.board import build as board
from zoo.board.extension import run_label, studies, study_table
from zoo.spec.analysis import AnalysisRecord
from zoo.spec.evaluation import ExtensionRecord, Extensions
from zoo.spec.store import write

ABOUT: dict[str, Any] = {"ended": "2026-01-02T03:04:05+00:00", "versions": {}, "seconds": 1.0, "weights": "ab"}


def records(
    arch: str, scores: dict[str, list[float | None]], *, config: str = "0" * 12, seed: int = 0, **settings: Any
) -> list[ExtensionRecord]:
    """The records of a run at 64, 128 … tokens, by method; None: cannot be read."""
    return [
        ExtensionRecord(
            run=f"quick/wikitext/{arch}/{config}-s{seed}", architecture=arch, task="wikitext", protocol="quick",
            seed=seed, method=method, overrides={}, trained_len=64, seq_len=64 << k, finetune_steps=0,
            settings={key.replace("__", "."): value for key, value in settings.items()},
            error="" if score else "cannot be read", scores={"perplexity": score} if score else {}, **ABOUT,
        )
        for method, each in scores.items()
        for k, score in enumerate(each)
    ]  # fmt: skip


ROPE = records("transformer", {"none": [5.0, 9.0], "yarn": [5.0, 6.0]})
LEARNED = records("transformer", {"none": [8.0, None]}, config="1" * 12, arch__positions="learned")
MAMBA = records("mamba", {"none": [6.0, 6.5]}, seed=1)


RECORDS = [make(), make("beta", accuracy=0.4)]


def add(folder: Path, *runs: list[ExtensionRecord]) -> Path:
    """Results with extension records beside them."""
    results = folder / "leaderboard" / "results"
    for record in RECORDS:
        write(record, results)
    for run in runs:
        Extensions(run).write(results)
    return results


def test_architectures_stand_beside_methods() -> None:
    (study,) = studies([ROPE, LEARNED, MAMBA])
    assert study.title == "wikitext, perplexity (lower is better)"
    table = study_table(study)
    assert table.headers == ["architecture", "method", "64 tokens", "128 tokens"]
    assert table.rows == [
        ["mamba, seed 1", "none", "6.00", "6.50"],
        ["transformer", "none", "5.00", "9.00"],
        ["transformer", "yarn", "5.00", "6.00"],
        ["transformer, positions=learned", "none", "8.00", "-"],
    ]


def test_runs_of_equal_settings_are_told_apart() -> None:
    (study,) = studies([records("s4", {"none": [5.0]}, config=digit * 12) for digit in "ab"])
    assert list(study.named) == ["s4 aaaaaa", "s4 bbbbbb"]
    assert run_label(ROPE) == "transformer"


def test_the_board_has_a_section_a_chart_and_the_same_bytes_again(tmp_path: Path) -> None:
    results = add(tmp_path, ROPE, LEARNED, MAMBA)
    board.build(results, page=True)
    text = (results.parent / "README.md").read_text()
    title = "### Beyond the training length: wikitext, perplexity (lower is better)"
    assert f"{title}\n\nwikitext: Predict every next byte of Wikipedia articles" in text
    assert "Trained on inputs of 64 tokens and tested on longer ones: as trained" in text
    assert "](extension-quick-wikitext.svg)" in text
    assert re.search(r"\| transformer +\| yarn +\| 5.00 +\| 6.00 +\|", text)
    chart, page = (
        (results.parent / "extension-quick-wikitext.svg").read_text(),
        (results.parent / "index.html").read_text(),
    )
    for name in ("mamba, seed 1", "yarn", "transformer, positions=learned"):
        assert name in chart
        assert name in page
    assert "Beyond the training length: wikitext, perplexity (lower is better)</h3>" in page
    before = {path.name: path.read_bytes() for path in board.board_paths(results)}
    for record in (MAMBA, LEARNED, ROPE):  # in another order
        (Extensions.place(results) / f"{record[0].run}.json").unlink()
        Extensions(record).write(results)
    board.build(results, page=True)
    assert {path.name: path.read_bytes() for path in board.board_paths(results)} == before
    (Extensions.place(results) / f"{ROPE[0].run}.json").write_text("[{}]")
    board.build(results)
    text = (results.parent / "README.md").read_text()
    assert "extensions/quick/wikitext/transformer/000000000000-s0.json" in text.partition("## Skipped files")[2]


def test_a_board_without_extensions_has_no_such_section(tmp_path: Path) -> None:
    results = add(tmp_path)
    board.build(results, page=True)
    for name in ("README.md", "index.html"):
        assert "Beyond the training length" not in (results.parent / name).read_text()
    assert not list(tmp_path.rglob("extension-*"))


def test_the_drawer_of_a_row_says_what_its_run_does_with_its_context(tmp_path: Path) -> None:
    results = add(tmp_path)
    record = RECORDS[0]
    analysis = make_analysis(record, 64)
    board.build(results)
    before = (results.parent / "README.md").read_bytes()
    analysis.write(results)
    board.build(results, page=True)
    page = (results.parent / "index.html").read_text()
    data = json.loads(page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])
    shown = [[[data["pool"][k] for k in fact] for fact in row["facts"]] for row in data["rows"]]
    assert sorted(["effective context", "64 of 64 tokens"] in facts for facts in shown) == [False, True]
    (analysed,) = [row["analysis"] for row in data["rows"] if row["analysis"]]
    assert analysed["context"] == [[[0, 1, 2.0], [6, 64, 1.0]]] * 2  # log2 of the tokens, the tokens, the loss
    assert analysed["files"] == [["record", f"analyses/{record.id}.json"]]
    (AnalysisRecord.place(results) / f"{record.id}.svg").write_text("<svg/>")
    board.build(results, page=True)
    assert f'["chart","analyses/{record.id}.svg"]' in (results.parent / "index.html").read_text()
    assert (results.parent / "README.md").read_bytes() == before


def test_records_that_were_written_before_a_field_came_are_read(tmp_path: Path) -> None:
    results = add(tmp_path, ROPE)
    path = Extensions.place(results) / f"{ROPE[0].run}.json"
    late = ("settings", "longest", "max_tokens")
    old = [{key: value for key, value in each.items() if key not in late} for each in json.loads(path.read_text())]
    path.write_text(json.dumps(old))
    (read,), problems = Extensions.read_all(results)
    assert (len(read.root), problems) == (4, [])
    assert read.root[0].settings == {}


def test_a_protocol_without_records_has_no_section(tmp_path: Path) -> None:
    results = add(
        tmp_path / "leaderboard" / "results", [record.model_copy(update={"protocol": "smoke"}) for record in ROPE]
    )
    board.build(results)
    assert "Beyond the training length" not in (results.parent / "README.md").read_text()
