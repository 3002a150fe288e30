"""Costs on the board, charts of scores against them, and tasks that are shown as cost only."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.board.samples import (
    at,
    board_of,
    classification_costs,
    classification_records,
    mqar,
    section,
    sections,
    stored,
)
from tests.records import changed, language, make, make_cost, recall
from zoo.board import build as board
from zoo.board.charts import to_svg
from zoo.board.export import results_table, to_csv, to_json
from zoo.board.families import FamilyMarks
from zoo.board.markdown import markdown
from zoo.board.metric import ACCURACY, Metric
from zoo.board.overall import overalls
from zoo.board.tables import breakdown_tables, remarks, run_line, section_table
from zoo.board.takeaways import STATE, TIME, takeaways
from zoo.board.terminal import print_board
from zoo.board.tradeoffs import cost_chart, pareto_front, state_chart
from zoo.spec.cost import CostRecord
from zoo.spec.record import Record
from zoo.spec.store import write

HERE, THERE = "here, 1 thread", "there, 1 thread"


def cells(records: list[Record], column: str, costs: list[CostRecord] | None = None) -> dict[str, str]:
    table = section_table(section(records, costs=costs or []))
    if column not in table.headers:
        return {}
    k, name = table.headers.index(column), table.headers.index("architecture")
    return {row[name]: row[k] for row in table.rows}


def of_size(arch: str, **changes: Any) -> Record:
    """A record of a configuration of its own."""
    return make(
        arch, config={"model": {"d_model": len(arch)}}, config_hash=arch.encode().hex().ljust(12, "0"), **changes
    )


def cost_only(record: Record) -> Record:
    return Record.model_validate(changed(record, "task", "cost_only", value=True))


# -- in the tables -------------------------------------------------------------------------------------------------


def test_a_row_has_the_cost_of_its_shape_with_the_spread() -> None:
    records = [of_size("aa"), of_size("bbb")]
    costs = [make_cost(records[0], train=0.004, inference=0.0005, memory_bytes=3 * 2**19)]
    assert cells(records, "train tokens/s", costs) == {"aa": "25,000 (22,700–27,800)", "bbb": ""}
    assert cells(records, "inference tokens/s", costs) == {"aa": "200,000 (182,000–222,000)", "bbb": ""}
    assert cells(records, "training memory", costs) == {"aa": "2 MiB", "bbb": ""}
    (remark,) = [line for line in remarks(section(records, costs=costs)) if line.startswith("Tokens/s")]
    assert remark.endswith("On a processor, 1 thread.")


def test_what_a_run_took_is_no_score() -> None:
    records = [make("a", tokens_per_second=12_345.0, peak_memory_bytes=3 * 2**30)]
    text = markdown(board_of(records)).partition("## What the columns mean")[0]
    assert not any(word in text for word in ("tokens/s", "12,345", "GiB", "Tokens/s"))


def test_trials_of_a_sweep_share_what_they_cost() -> None:
    trials = [{"optim.lr": 0.1}, {"optim.lr": 0.2}]
    records = [
        make("a", config={"optim": trial}, sweep={"seed": 0, "trials": trials}, config_hash=f"{k}" * 12)
        for k, trial in enumerate({"lr": trial["optim.lr"]} for trial in trials)
    ]
    rows = results_table(board_of(records, costs=[make_cost(records[1])]))
    assert list(rows["train_tokens_per_second"]) == [10_000, 10_000]


def test_a_cost_that_knows_a_later_setting_is_that_of_an_earlier_run_and_not_of_one_with_another_value() -> None:
    def cell(measured: dict[str, Any], run: dict[str, Any]) -> str:
        record = make("a", config={"model": {"d_model": 64}, "arch": run})
        known = make("a", config={"model": {"d_model": 64}, "arch": measured})
        return cells([record], "train tokens/s", [make_cost(known)]).get("a", "")

    assert cell({"n_heads": 1, "n_kv_heads": 0}, {"n_heads": 1})
    assert cell({"n_heads": 1}, {"n_heads": 1, "n_kv_heads": 0})
    assert not cell({"n_heads": 1, "n_kv_heads": 0}, {"n_heads": 2})
    assert not cell({"n_heads": 1, "n_kv_heads": 0}, {"n_heads": 1, "n_kv_heads": 1})


def test_a_table_shows_costs_of_one_machine_that_of_most_rows_or_else_the_latest() -> None:
    records = [of_size(name) for name in ("a", "bb", "ccc")]
    here = [make_cost(record, machine=HERE, train=0.01) for record in records[:2]]
    there = [make_cost(record, machine=THERE, train=0.001) for record in records[2:]]
    assert [bool(text) for text in cells(records, "train tokens/s", here + there).values()] == [True, True, False]
    there.append(make_cost(records[0], machine=THERE, train=0.001, measured="2026-02-02T03:04:05+00:00"))
    assert cells(records, "train tokens/s", there + here)["a"].startswith("100,000")
    assert any(THERE in line for line in remarks(section(records, costs=here + there)))


def test_a_cost_that_was_measured_while_others_ran_is_named() -> None:
    records = [of_size("a"), of_size("bb")]
    costs = [make_cost(records[0], others=0.4), make_cost(records[1], others=0.6)]
    (remark,) = [line for line in remarks(section(records, costs=costs)) if line.startswith("Tokens/s")]
    assert remark.endswith("other processes ran meanwhile: bb.")


def test_csv_and_json_have_medians_and_where_they_were_measured() -> None:
    records = [of_size("a"), of_size("bb")]
    result = board_of(records, costs=[make_cost(records[0], train=0.004)])
    first, second = csv.DictReader(io.StringIO(to_csv(results_table(result))))
    assert (first["train_tokens_per_second"], first["extra_memory_bytes"]) == ("25000.0", str(64 * 2**20))
    cost = json.loads(first["cost"])
    assert (cost["machine"], cost["train"]["seconds"], cost["tokens"]) == ("a processor, 1 thread", 0.004, 100.0)
    assert (second["train_tokens_per_second"], second["extra_memory_bytes"], second["cost"]) == ("", "", "")
    rows = json.loads(json.dumps(to_json(result)))["boards"][0]["rows"]
    assert rows[0]["inference_tokens_per_second"] == 50_000
    assert rows[1]["cost"] is None


# -- charts --------------------------------------------------------------------------------------------------------


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = [{"x": x, "score": s} for x, s in ((3, 0.9), (1, 0.5), (2, 0.4), (2, 0.6), (4, 0.9), (5, 0.95))]
    assert [(p["x"], p["score"]) for p in pareto_front(points, ACCURACY)] == [(1, 0.5), (2, 0.6), (3, 0.9), (5, 0.95)]
    assert [(p["x"], p["score"]) for p in pareto_front(points, Metric("perplexity", False))] == [(1, 0.5), (2, 0.4)]


def values(chart: Any) -> list[dict[str, Any]]:
    return [row for panel in chart.to_dict()["concat"] for layer in panel["layer"] for row in layer["data"]["values"]]


def test_scores_are_drawn_against_the_seconds_of_a_thousand_examples() -> None:
    records = classification_records()
    chart = cost_chart(sections(records, costs=classification_costs(records)))
    (panel,) = chart.to_dict()["concat"]  # pathfinder and paper have no costs
    assert panel["title"]["text"] == "quick: listops, accuracy"
    found = {row["name"]: (row["x"], row["front"]) for row in values(chart) if "front" in row}
    assert found == {"alpha": (4.0, True), "beta": (20.0, True), "gamma": (1.0, True)}
    (bars,) = (layer for layer in panel["layer"] if layer["encoding"].get("y2") == {"field": "high"})
    ends = {row["name"]: (round(row["low"], 3), round(row["high"], 3)) for row in bars["data"]["values"]}
    assert ends == {"alpha": (0.383, 0.437), "beta": (0.382, 0.448), "gamma": (0.133, 0.227)}
    text = "".join(ElementTree.fromstring(to_svg(chart)).itertext())
    for word in ("alpha", "beta", "training, seconds per 1,000 examples"):
        assert word in text


def test_scores_of_recall_are_drawn_against_the_size_of_the_state() -> None:
    records = [
        mqar("alpha", 0.9, None, state_size=256),
        mqar("beta", 0.95, None, state_size=1024),
        mqar("gamma", 0.99, None, state_size=None),
        *(make(arch, state_size=64) for arch in ("alpha", "beta")),  # no recall
    ]
    chart = state_chart(sections(records))
    (panel,) = chart.to_dict()["concat"]
    assert panel["title"]["subtitle"][1:] == ["objective: next token", "without a state of fixed size: gamma"]
    assert {row["name"]: row["x"] for row in values(chart)} == {"alpha": 256, "beta": 1024}


def test_a_takeaway_says_how_little_state_is_enough_and_is_silent_where_rows_are_not_told_apart() -> None:
    sizes = (("alpha", 0.5, 64), ("beta", 0.96, 256), ("gamma", 0.95, 1024), ("delta", 0.3, 4096))
    records = [mqar(name, score, None, state_size=size) for name, score, size in sizes]
    assert takeaways(sections(records), STATE) == [
        "mqar: 2 of these 4 rows could be the best of all; of them beta (attention) has the smallest state, 256 "
        "numbers. Shown to be worse: the one with a smaller state and 1 of the 2 with a larger state."
    ]
    assert takeaways(sections([records[0], records[3], mqar("omega", 0.9, None, state_size=None)]), STATE) == [
        "mqar: none of these 2 rows could be the best of all."
    ]
    assert takeaways(sections(records[:2]), STATE) == [
        "mqar: of these 2 rows only beta (attention) could be the best of all, with 256 numbers. Shown to be worse: "
        "the one with a smaller state."
    ]
    assert takeaways(sections(records[1:3]), STATE) == takeaways(sections(records[:1]), STATE) == []
    assert takeaways(sections(records), TIME) == []


def test_families_have_marks_of_their_own_beyond_the_number_of_colours() -> None:
    many = FamilyMarks(f"family {k}" for k in range(81))
    assert len(set(zip(many.colors, many.shapes, strict=True))) == 81
    few = FamilyMarks(["b", "a", "b"])
    assert (few.names, few.colors) == (["a", "b"], many.colors[:2])


def test_there_is_no_chart_of_one_point_or_none(tmp_path: Path) -> None:
    records = [of_size("a"), of_size("bb"), mqar("alpha", 0.9, None), mqar("beta", 0.9, None, state_size=None)]
    assert cost_chart(sections(records, costs=[make_cost(records[0])])) is None
    assert state_chart(sections(records)) is None
    results = tmp_path / "results"
    for record in records:
        write(record, results)
    board.build(results)
    assert not list(tmp_path.glob("cost-*.svg"))
    for record in records[:2]:
        make_cost(record).write(results)
    board.build(results)
    assert "](cost-quick.svg)" in (tmp_path / "README.md").read_text()
    assert tmp_path / "cost-quick.svg" in board.board_paths(results)
    for file in (tmp_path / "costs").rglob("*.json"):
        file.unlink()
    board.build(results)
    assert not list(tmp_path.glob("cost-*.svg"))


# -- cost only -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hopeless() -> list[Record]:
    """Three architectures on a task that its budget cannot teach, and on one that it can."""
    records = [make(arch, "long", accuracy=a, chance=0.5) for arch, a in (("a", 0.52), ("b", 0.48), ("c", 0.5))]
    records.append(make("d", "long", status="out-of-memory"))
    return [*map(cost_only, records), *(make(arch, accuracy=0.4) for arch in ("a", "b"))]


def test_a_task_that_its_budget_cannot_teach_is_shown_as_cost(hopeless: list[Record]) -> None:
    costs = [make_cost(hopeless[k], train=seconds) for k, seconds in ((0, 0.03), (1, 0.01), (2, 0.02))]
    long = section(hopeless, "long", costs=costs)
    table = section_table(long)
    rows = [dict(zip(table.headers, row, strict=True)) for row in table.rows]
    # the cheapest first; a failure is the word that it is
    assert [(row["architecture"], row["accuracy"], row["seeds"]) for row in rows] == [
        ("b", "cost only", "1"),
        ("c", "cost only", "1"),
        ("a", "cost only", "1"),
        ("d", "out-of-memory", "1"),
    ]
    assert {row["rank"] for row in rows} == {"–"}
    assert not {"rank range", "95 % interval", "each seed", "paired difference"} & set(table.headers)
    assert remarks(long)[0].startswith("Cost only: the budget of `quick` is too small to learn this task.")


def test_it_enters_no_average_no_chart_and_no_breakdown(hopeless: list[Record]) -> None:
    others = [make(arch, "image", accuracy=0.3) for arch in ("a", "b")]
    (overall,) = overalls(sections([*hopeless, *others]))
    assert set(overall.metrics) == set(overall.common) == {"image", "listops"}
    assert set(overall.rows.index) == {"a", "b"}
    costs = [make_cost(record) for record in hopeless]
    assert [panel["title"]["text"] for panel in cost_chart(sections(hopeless, costs=costs)).to_dict()["concat"]] == [
        "quick: listops, accuracy"
    ]
    grouped = recall("a", "long", test={at(length=k): 0.5 for k in (8, 16)})
    assert breakdown_tables(section([grouped]))
    assert not breakdown_tables(section([cost_only(grouped)]))


def test_board_files_and_terminal_show_no_score_of_it(hopeless: list[Record], tmp_path: Path) -> None:
    for record in [*hopeless, cost_only(recall("a", "deep", test={at(length=k): 0.515 for k in (8, 16)}))]:
        write(record, tmp_path / "results")
    board.build(tmp_path / "results")
    out = io.StringIO()
    print_board(stored(hopeless), console=Console(file=out, width=200))
    texts = [(tmp_path / "README.md").read_text(), (tmp_path / "board.svg").read_text(), out.getvalue()]
    for text in texts:
        assert not any(score in text for score in ("52.0", "48.0", "51.5"))
        assert "40.0" in text or "listops" in text
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["board.svg"]
    rows = list(csv.DictReader((tmp_path / "board.csv").open()))
    assert {row["cost_only"] for row in rows if row["task"] == "long"} == {"true"}
    assert {row["rank"] for row in rows if row["task"] == "long"} == {""}


def test_the_line_of_its_run_says_so(hopeless: list[Record]) -> None:
    line = run_line(stored(hopeless)[0])
    assert "a on long (quick, seed 0): cost only: this budget is too small to learn the task, 2 s" in line
    assert "52" not in line
    assert "test accuracy 40.00 %" in run_line(stored(hopeless)[-1])


def test_perplexities_are_drawn_with_the_least_best() -> None:
    records = [language(arch, nats=nats) for arch, nats in (("alpha", 3.0), ("beta", 3.5))]
    records = [
        Record.model_validate(changed(r, "config", value={"model": {"d_model": k}})) for k, r in enumerate(records)
    ]
    costs = [make_cost(record, train=seconds) for record, seconds in zip(records, (0.1, 0.2), strict=True)]
    found = {row["name"]: row["front"] for row in values(cost_chart(sections(records, costs=costs))) if "front" in row}
    assert found == {"alpha": True, "beta": False}
