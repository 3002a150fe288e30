"""Tasks whose answers are tokens, on the board: several scores, perplexities, objectives, and scores by group."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from rich.console import Console

from tests.board.samples import (
    INFILLING,
    at,
    board_of,
    lambada,
    mqar,
    question_records,
    section,
    sections,
    stored,
)
from tests.board.test_build import VL_CONVERT, faults
from tests.records import changed, language, make, make_cost, recall
from zoo.board import build as board
from zoo.board.breakdown import (
    dimensions,
    format_longer,
    format_number,
    placed_groups,
    scores_along,
    trained_length,
    value_label,
)
from zoo.board.charts import breakdown_chart, choose_view, scores_chart, to_svg
from zoo.board.export import groups_table, results_table, to_csv, to_json
from zoo.board.markdown import markdown
from zoo.board.results import make_board
from zoo.board.tables import breakdown_tables, remarks, run_line, section_table
from zoo.board.terminal import print_board
from zoo.board.words import BEYOND, MEMORY
from zoo.spec.errors import UserError
from zoo.spec.presets import Reported
from zoo.spec.record import Record
from zoo.spec.store import StoredRecord, read_all, write

GOLDEN = Path(__file__).with_name("golden") / "questions"


def with_scores(record: Record, split: str = "test", **scores: float | None) -> Record:
    """The record with other scores of a split."""
    fields = record.model_dump(mode="json")
    fields["metrics"][split]["scores"] |= scores
    return Record.model_validate(fields)


def cells(records: list[Record], task: str, column: str, **given: Any) -> dict[str, str]:
    table = section_table(section(records, task, **given))
    k, name = table.headers.index(column), table.headers.index("architecture")
    return {row[name]: row[k] for row in reversed(table.rows)}


def means_along(records: list[Record], *names: str) -> dict[tuple[Any, ...], float]:
    """(longer, *values) -> score of the only row."""
    result = section(records)
    means = scores_along(placed_groups(result), result.metric, *names)
    return {tuple(key[1:]): score for *key, score in means.to_numpy()}


def test_golden(tmp_path: Path) -> None:
    """Every file of the board. To renew after an intended change: ZOO_GOLDEN=write pytest tests/board, then read the
    diff."""
    results = tmp_path / "results"
    for record in question_records():
        write(record, results)
    paths, problems, _ = board.build(results)
    assert problems == []
    result = {path.name: path.read_text(encoding="utf-8") for path in paths}
    result["board.json"] = json.dumps(to_json(make_board(read_all(results)[0])), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("ZOO_GOLDEN") == "write":
        for name, text in result.items():
            (GOLDEN / name).write_text(text, encoding="utf-8")
    assert sorted(result) == sorted(path.name for path in GOLDEN.iterdir())
    for name, text in result.items():
        if not name.endswith(".svg") or vl_convert.__version__ == VL_CONVERT:
            assert text == (GOLDEN / name).read_text(encoding="utf-8"), name


# -- scores --------------------------------------------------------------------------------------------------------


def test_of_perplexities_lower_is_better() -> None:
    records = [language("alpha", nats=3.0), language("beta", nats=2.5), language("gamma", nats=2.51)]
    rows = section(records).rows
    assert list(zip(rows["name"], rows["rank"], rows["best_rank"], rows["worst_rank"], strict=True)) == [
        ("beta", 1, 1, 2),
        ("gamma", 2, 1, 2),
        ("alpha", 3, 3, 3),
    ]
    assert cells(records, "wikitext", "rank range") == {"beta": "1–2", "gamma": "1–2", "alpha": "3"}
    assert "Lower word perplexity is better." in remarks(section(records))


def test_seeds_of_a_perplexity_are_averaged_as_losses() -> None:
    row = section([language(nats=nats, seed=s) for s, nats in enumerate((3.0, 3.2, 3.4))]).rows.iloc[0]
    assert row["score"] == pytest.approx(math.exp(3.2))
    # deviation 0.2, t(2) = 4.302653: half-width 4.302653 * 0.2 / sqrt(3) = 0.496828
    assert math.log(row["high"]) == pytest.approx(3.2 + 0.496828, abs=1e-6)
    assert row["other_scores"]["byte_perplexity"] == pytest.approx(math.exp(0.64))
    assert row["other_scores"]["bits_per_byte"] == pytest.approx(0.64 / math.log(2))


def test_a_run_without_a_standard_error_may_have_any_rank() -> None:
    records = [language("alpha", nats=3.0), language("beta", nats=1.0, stderr=None), language("gamma", nats=5.0)]
    assert cells(records, "wikitext", "rank range") == {"beta": "1–3", "alpha": "1–2", "gamma": "2–3"}
    assert cells(records, "wikitext", "95 % interval")["beta"] == ""


def test_a_perplexity_has_converged_below_its_baseline_if_there_is_one() -> None:
    lines = {"chance": 256.0, "majority": 30.0}
    runs = [language(nats=nats, seed=s, baselines=lines) for s, nats in enumerate((math.log(29.9), 3.0))]
    assert section(runs).rows["converged"].iloc[0] == 1
    assert section(runs[:1]).rows["converged"].iloc[0] == 0
    assert section([language(nats=30.0)]).rows["converged"].iloc[0] == 1
    text = markdown(board_of([language(baselines=lines)]))
    assert "Chance 256.0 (a uniform guess), trivial answer 30.00 (each token as likely as it is in the" in text


def test_a_perplexity_that_is_not_finite_is_a_word() -> None:
    record = with_scores(language("alpha"), word_perplexity=None, byte_perplexity=None, bits_per_byte=None)
    records = [record, language("beta")]
    rows = section(records).rows
    assert list(zip(rows["name"], rows["failures"], strict=True)) == [("beta", ""), ("alpha", "not finite")]
    assert math.isnan(rows["score"].iloc[1])
    assert cells(records, "wikitext", "word perplexity")["alpha"] == "not finite"
    assert cells(records, "wikitext", "bits per byte")["alpha"] == "not finite"
    assert "word perplexity not finite of 200 passages" in run_line(StoredRecord("x", record))
    ElementTree.fromstring(to_svg(scores_chart(sections([record]))))


def test_further_scores_are_further_columns() -> None:
    table = section_table(section(question_records(), "lambada_openai"))
    assert table.headers[:4] == ["rank", "architecture", "accuracy", "95 % interval"]
    assert table.headers.index("perplexity") > table.headers.index("accuracy")
    assert cells(question_records(), "lambada_openai", "perplexity") == {"alpha": "30.00", "gamma": "25.00"}
    assert "byte perplexity" in section_table(section(question_records(), "wikitext")).headers


def test_another_metric_is_not_ranked_against() -> None:
    other = language("beta", metric={"name": "byte_perplexity", "higher_is_better": False})
    records = [language("alpha"), language("gamma"), other]
    rows = section(records).rows
    unranked = rows[rows["rank"].isna()]
    assert list(unranked["name"]) == ["beta"]
    assert unranked["notes"].iloc[0] == ["other metric: byte perplexity"]
    assert cells(records, "wikitext", "word perplexity")["beta"] == "2.01"
    assert "byte perplexity 2.014" in to_svg(scores_chart(sections(records)))


def test_the_objective_and_whether_state_is_carried_are_always_shown() -> None:
    assert cells(question_records(), "mqar", "objective")["gamma"] == "fill-in"
    assert cells(question_records(), "wikitext", "stateful") == {"alpha": "yes", "beta": "no", "delta": "no"}
    assert "stateful" not in section_table(section(question_records(), "mqar")).headers
    assert "objective" not in section_table(section(question_records(), "listops")).headers
    for width in (60, 80, 120):
        out = io.StringIO()
        print_board(stored(question_records()), console=Console(file=out, width=width))
        text = out.getvalue()
        assert all(len(line.rstrip()) <= width for line in text.split("\n"))
        for word in ("fill-in", "next", "token", "stateful", "yes"):
            assert word in text
    assert "gamma (fill-in)" in to_svg(scores_chart(sections(question_records())))


def test_reported_perplexities_stand_beside_perplexities() -> None:
    reported = {
        "seqzoo:alpha": [
            Reported(task="wikitext", metric="word_perplexity", value=18.3, source="a paper"),
            Reported(task="wikitext", metric="accuracy", value=0.5, source="a paper"),
        ]
    }
    table = section_table(section([language("alpha", nats=3.0, protocol="paper")], reported=reported))
    row = dict(zip(table.headers, table.rows[0], strict=True))
    assert row["reported"] == "18.3 [1]"
    assert row["Δ"] == "+1.79"


def test_memory_and_parameters_are_written_with_three_digits_or_so() -> None:
    size = {"match": {"architecture": "alpha", "parameters": 1_000_000}}
    records = [
        make("a", parameters=1_049_000, **size),
        make("b", parameters=1_060_000, **size),
        make("c", parameters=800_000, **size),
    ]
    costs = [make_cost(record, memory_bytes=2**30 - k) for k, record in enumerate(records[:2])]
    assert cells(records, "listops", MEMORY, costs=costs) == {"a": "1.00 GiB", "b": "1024 MiB", "c": ""}
    expected = {"a": "1,049,000", "b": "1,060,000 (+6 %)", "c": "800,000 (-20 %)"}
    assert cells(records, "listops", "parameters") == expected
    assert any("within 5 %" in line for line in remarks(section(records)))
    assert not any("within 5 %" in line for line in remarks(section(records[:1])))


@pytest.mark.parametrize(
    ("value", "text"),
    [(64, "64"), (0.25, "0.25"), (1 / 3, "0.3333"), (99_999, "99999"), (1e5, "100000"), (1e7, "10000000")],
)
def test_values_of_dimensions_are_written_out(value: float, text: str) -> None:
    assert format_number(value) == text


# -- groups of questions -------------------------------------------------------------------------------------------


def test_groups_are_averaged_by_their_number_of_answers() -> None:
    fields = mqar("alpha", 0.9, None).model_dump(mode="json")
    test = fields["metrics"]["test"]
    test["groups"][0] |= {"n": 300, "answers": 1200, "scores": {"accuracy": 0.5}}
    right = sum(round(g["scores"]["accuracy"] * g["answers"]) for g in test["groups"])
    test |= {"n": 600, "answers": 2400, "scores": {"accuracy": right / 2400}}
    records = [Record.model_validate(fields)]
    first, second = (group["scores"]["accuracy"] for group in test["groups"][:2])
    assert means_along(records, "length")[False, 32] == pytest.approx((3 * first + second) / 4)
    assert means_along(records, "pairs", "length")[False, 4, 32] == pytest.approx(first)


def test_whole_questions_are_averaged_by_their_number() -> None:
    """An accuracy over questions of several tokens, as of words: the groups are weighted by questions."""
    groups = [
        {"at": {"length": 8}, "scores": {"accuracy": 1.0}, "loss": 0.1, "n": 10, "answers": 10},
        {"at": {"length": 16}, "scores": {"accuracy": 0.0}, "loss": 0.1, "n": 10, "answers": 90},
    ]
    test = {"scores": {"accuracy": 0.5}, "loss": 0.1, "n": 20, "answers": 100, "groups": groups}
    val = {"scores": {"accuracy": 0.5}, "loss": 1.25, "n": 20}
    record = recall(task="unheard_of", test={at(length=1): 1.0}, metrics={"val": val, "test": test})
    assert faults(record) == []
    assert list(section([record]).groups["weight"]) == [10, 10]


def test_length_generalization_is_told_by_length_in_a_word_or_not_at_all() -> None:
    result = section(question_records(), "mqar")
    groups = result.mean_groups
    texts = {row["name"]: format_longer(row, groups, result.metric) for _, row in result.rows.iloc[::-1].iterrows()}
    assert texts == {
        "alpha": "×2 90.0 %, ×4 45.0 %",
        "beta": "×2 50.0 %, ×4 25.0 %",
        "gamma": "not defined",
        "delta": "",
    }
    assert trained_length(groups) == 64
    # where groups differ in no length, the whole split is one number
    plain = section([recall(test={at(pairs=4): 0.9, at(pairs=8): 0.8}, beyond={at(pairs=16): 0.25})])
    assert format_longer(plain.rows.iloc[0], plain.mean_groups, plain.metric) == "25.0 %"
    assert section([recall(test={at(length=8): 0.9})]).has_longer is False
    # where no row could be evaluated on it, it is shown all the same
    assert cells([mqar("gamma", 0.7, None)], "mqar", BEYOND) == {"gamma": "not defined"}


def test_tables_keep_training_and_length_generalization_apart() -> None:
    (title, over_length), (_, over_pairs) = breakdown_tables(section(question_records(), "mqar"))
    assert title == "mqar: accuracy by length (over all pairs), %"
    assert over_length.headers == [
        "architecture",
        "trained\n32",
        "trained\n64",
        "longer\n128\n×2",
        "longer\n256\n×4",
    ]
    assert over_pairs.headers == ["architecture", "4", "8", "longer\n4", "longer\n8"]
    rows = {row[0]: row[1:] for row in over_length.rows}
    assert rows["beta (next token)"] == ["74.0", "74.0", "50.0", "25.0"]
    assert rows["gamma (fill-in)"] == ["64.0", "64.0", "not defined", "not defined"]
    assert next(iter(rows)) == "alpha (next token)"
    assert "alpha (next token) (modified)" in rows
    assert not any("delta" in name for name in rows)


def test_seeds_that_failed_are_in_no_group() -> None:
    records = [mqar("alpha", 0.9, 0.8), mqar("alpha", 0.9, None, seed=1, status="diverged")]
    assert means_along(records, "length")[True, 128] == pytest.approx(0.8)


def test_what_goes_together_is_shown_once() -> None:
    result = section(question_records(), "kv_retrieval")
    groups = placed_groups(result)
    assert dimensions(groups) == ["length", "position"]
    assert dimensions(placed_groups(section(question_records(), "needle"))) == ["length", "depth"]
    assert value_label(groups, "length", 130) == "130 (16 pairs)"
    (_, over_length), (_, over_position) = breakdown_tables(result)
    assert over_length.headers[1:] == ["trained\n34\n(4 pairs)", "longer\n130\n(16 pairs)\n×3.8"]
    # positions in texts of any number of pairs: the first, the second of four, the last
    assert over_position.headers[1:] == ["first", "¼", "last", "longer\nfirst", "longer\n½", "longer\nlast"]


def test_a_value_names_all_that_goes_with_it_and_nothing_that_varies() -> None:
    together = {at(length=8, pairs=2, turns=1): 0.5, at(length=16, pairs=4, turns=2): 0.5}
    assert value_label(placed_groups(section([recall(test=together)])), "length", 16) == "16 (4 pairs, 2 turns)"
    apart = {at(length=8, pairs=2): 0.5, at(length=8, pairs=3): 0.5, at(length=16, pairs=4): 0.5}
    groups = placed_groups(section([recall(test=apart)]))
    assert (value_label(groups, "length", 8), value_label(groups, "pairs", 2)) == ("8", "2")
    positions = [value_label(groups, "position", value) for value in (0.0, 0.25, 1 / 3, 0.5, 0.75, 1.0)]
    assert positions == ["first", "¼", "0.3333", "½", "¾", "last"]


def test_one_group_is_no_breakdown() -> None:
    result = section([recall(test={at(length=64): 0.9})])
    assert breakdown_tables(result) == []
    assert breakdown_chart(result) is None


@pytest.mark.parametrize(
    ("task", "along_", "by", "is_map"),
    [
        ("mqar", "length", "pairs", False),
        ("needle", "length", "depth", True),
        ("kv_retrieval", "position", "length", False),
    ],
)
def test_the_breakdown_chart_has_a_panel_per_row(task: str, along_: str, by: str, is_map: bool) -> None:
    result = section(question_records(), task)
    groups = placed_groups(result)
    assert choose_view(groups) == (along_, by, is_map)
    spec = breakdown_chart(result).to_dict()
    values = spec["data"]["values"]
    shown = result.rows[result.rows.index.isin(groups["row"])]
    panels = spec["facet"]["sort"]
    assert len(panels) == len(shown)
    for panel, (index, row) in zip(panels, shown.iterrows(), strict=True):
        assert row["name"] in panel
        marks = [mark for mark in values if mark["panel"] == panel]
        own = groups[groups["row"] == index]
        kinds = Counter(mark.get("kind") for mark in marks if "score" in mark)
        if is_map:
            assert kinds[None] == len(own)
        else:
            assert (kinds["trained"], kinds["longer"]) == ((~own["longer"]).sum(), own["longer"].sum())
            assert any(mark["kind"] == "region" for mark in marks) == (along_ == "length")
        if along_ == "length":
            undefined = [mark for mark in marks if mark.get("kind") == "word" or "word" in mark]
            assert len(undefined) == (not row["evaluated_longer"])
    text = "".join(ElementTree.fromstring(to_svg(breakdown_chart(result))).itertext())
    assert ("not defined" in text) == (not shown["evaluated_longer"].all())
    assert ("delta: out-of-memory" in text) == (task == "mqar")


def test_charts_of_the_same_records_are_the_same_bytes() -> None:
    result = section(question_records(), "mqar")
    assert to_svg(breakdown_chart(result)) == to_svg(breakdown_chart(section(question_records(), "mqar")))


def test_many_lines_become_a_heat_map_and_nineteen_architectures_fit() -> None:
    test = {at(length=length, pairs=p): 1 / p for length in (64, 128) for p in (1, 2, 4, 8, 16, 32, 64)}
    result = section([recall(f"arch{k}", test=test) for k in range(19)])
    view = choose_view(placed_groups(result))
    assert view is not None
    assert view.heat_map
    svg = ElementTree.fromstring(to_svg(breakdown_chart(result)))
    assert "18" in "".join(svg.itertext())
    assert float(svg.get("width", 0)) <= 1000
    assert float(svg.get("height", 0)) <= 1300


def test_perplexities_by_group() -> None:
    fields = language(task="unheard_of").model_dump(mode="json")
    fields["metrics"]["test"]["groups"] = [
        {"at": {"length": n}, "scores": {"word_perplexity": 30.0 + n}, "n": 100, "answers": 25_000, "loss": 0.7}
        for n in (256, 512)
    ]
    record = Record.model_validate(fields)
    assert faults(record) == []
    ((_, table),) = breakdown_tables(section([record]))
    assert table.rows == [["alpha (next token)", "286.0", "542.0"]]
    assert "lower is better" in to_svg(breakdown_chart(section([record])))


def test_a_part_that_is_not_finite_is_a_word_and_the_others_keep_their_scores() -> None:
    fields = language(task="unheard_of").model_dump(mode="json")
    fields["metrics"]["test"]["scores"] = {"word_perplexity": None}
    fields["metrics"]["test"]["groups"] = [
        {"at": {"length": n}, "scores": {"word_perplexity": score}, "n": 100, "answers": 25_000, "loss": 0.7}
        for n, score in ((256, 30.0), (512, None))
    ]
    result = section([Record.model_validate(fields)])
    assert list(result.groups["weight"]) == [100, 100]
    ((_, table),) = breakdown_tables(result)
    assert table.rows == [["alpha (next token)", "30.00", "not finite"]]


def test_parts_of_length_generalization_alone_are_shown() -> None:
    fields = recall(test={at(length=8): 0.9}, beyond={at(length=16): 0.5, at(length=32): 0.25}).model_dump(mode="json")
    fields["metrics"]["test"]["groups"] = []
    assert means_along([Record.model_validate(fields)], "length") == {(True, 16): 0.5, (True, 32): 0.25}


# -- files and terminal --------------------------------------------------------------------------------------------


def test_files_of_parts_come_and_go(tmp_path: Path) -> None:
    results = tmp_path / "results"
    path = write(mqar("alpha", 0.9, 0.5), results)
    picture = tmp_path / "breakdown-quick-mqar.svg"
    picture.write_text("<svg>mine</svg>")
    with pytest.raises(UserError, match="breakdown-quick-mqar"):
        board.build(results)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["breakdown-quick-mqar.svg", "results"]
    picture.unlink()
    board.build(results)
    assert {p.name for p in board.board_paths(results)} == {
        *("README.md", "board.csv", "results.csv", "board.svg", "groups.csv"),
        "breakdown-quick-mqar.svg",
    }
    assert "](breakdown-quick-mqar.svg)" in (tmp_path / "README.md").read_text()
    path.unlink()
    mine = tmp_path / "breakdown-mine.svg"
    mine.write_text("<svg>mine</svg>")
    board.build(results)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == sorted(
        ["README.md", "board.csv", "board.svg", "breakdown-mine.svg", "results.csv"]
    )


def test_groups_are_a_line_per_seed_and_part() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(groups_table(board_of(question_records()))))))
    of_mqar = [row for row in rows if row["task"] == "mqar" and row["architecture"] == "alpha" and row["seed"] == "1"]
    assert len(of_mqar) == 8
    assert {row["split"] for row in of_mqar} == {"test", "length_generalization"}
    one = next(row for row in of_mqar if (row["length"], row["pairs"], row["split"]) == ("64", "4", "test"))
    assert (float(one["score"]), one["weight"], one["metric"]) == (0.94, "400", "accuracy")
    assert one["depth"] == ""
    assert {row["position"] for row in rows if row["task"] == "kv_retrieval"} == {"0", "1", "3", "7", "15"}
    assert groups_table(board_of([make()])).empty


def test_board_csv_names_the_metric() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(results_table(board_of(question_records()))))))
    text = next(row for row in rows if row["task"] == "wikitext" and row["architecture"] == "beta")
    assert (text["metric"], text["higher_is_better"], text["accuracy"]) == ("word_perplexity", "false", "")
    assert float(text["score"]) == pytest.approx(math.exp(3.7))
    assert (text["interval"], text["stateful"]) == ("pooled", "false")
    assert json.loads(text["other_scores"])["bits_per_byte"] == pytest.approx(0.74 / math.log(2))
    gamma = next(row for row in rows if row["task"] == "mqar" and row["architecture"] == "gamma")
    assert (gamma["length_generalization"], gamma["objective"], gamma["accuracy"]) == (
        "not defined",
        "infilling",
        gamma["score"],
    )


def test_the_terminal_shows_parts_of_chosen_tasks() -> None:
    def shown(width: int, **kwargs: Any) -> str:
        out = io.StringIO()
        print_board(stored(question_records()), console=Console(file=out, width=width), **kwargs)
        return out.getvalue()

    assert "by length" not in shown(200)
    for width in (60, 100, 200):
        text = shown(width, tasks={"mqar"})
        assert all(len(line.rstrip()) <= width for line in text.split("\n"))
        words = " ".join(text.split())
        for word in ("by length", "by pairs", "trained", BEYOND, "74.0", "25.0", "defined"):
            assert word in words


@pytest.mark.parametrize(
    ("record", "lines"),
    [
        (
            mqar("alpha", 0.98, 0.9),
            [
                "alpha on mqar (quick, seed 0): test accuracy 92.00 % of 400 questions, next token (chance 1.56 %), "
                "2 s",
                "  beyond training length: ×2 90.0 %, ×4 45.0 %",
            ],
        ),
        (
            mqar("gamma", 0.98, None, **INFILLING),
            [
                "gamma on mqar (quick, seed 0): test accuracy 92.00 % of 400 questions, fill-in (chance 1.56 %), 2 s",
                "  beyond training length: not defined",
            ],
        ),
        (
            lambada("alpha", 0.2, 30.0),
            [
                "alpha on lambada_openai (quick, seed 0): test accuracy 20.00 % of 1000 passages, next token, "
                "perplexity 30.00 (trivial answer 1.60 %), 2 s"
            ],
        ),
        (
            language("alpha", nats=3.0, stateful=True),
            [
                "alpha on wikitext (quick, seed 0): test word perplexity 20.09 of 200 passages, next token, "
                "stateful, byte perplexity 1.82, bits per byte 0.866, 2 s"
            ],
        ),
        (
            make("alpha", accuracy=0.5),
            [
                "alpha on listops (quick, seed 0): test accuracy 50.00 % of 1000 "
                "(majority class 17.50 %, chance 10.00 %), 2 s"
            ],
        ),
        (mqar("alpha", 0.9, None, status="timeout"), ["alpha on mqar (quick, seed 0): timeout: made timeout"]),
    ],
)
def test_the_line_of_a_run(record: Record, lines: list[str]) -> None:
    assert run_line(StoredRecord("a.json", record)).split("\n") == [*lines, "  record: a.json"]


# -- checking records ----------------------------------------------------------------------------------------------


def elsewhere(record: Record) -> Record:
    """The record under a task that is not installed, so that its configuration is not checked."""
    return Record.model_validate(changed(record, "task", "name", value="unheard_of"))


def test_consistent_records_have_no_faults() -> None:
    for record in question_records():
        assert faults(elsewhere(record)) == []


def with_counts(record: Record, split: str, **counts: int) -> Record:
    fields = record.model_dump(mode="json")
    fields["metrics"][split] |= counts
    return Record.model_validate(fields)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (
            with_counts(mqar("alpha", 0.9, 0.5), "length_generalization", n=401),
            [
                "metrics.length_generalization.n: 401, but the length_generalization split has 400",
                "metrics.length_generalization.groups: n of all of them 400",
            ],
        ),
        (
            with_scores(mqar("alpha", 0.9, 0.5), exact=0.12345),
            ["metrics.test.scores.exact: 0.12345 is not a fraction of 400"],
        ),
        (
            with_scores(mqar("alpha", 0.9, 0.5), accuracy=0.5),
            ["metrics.test.groups: their accuracy does not average to that of the split, 0.5"],
        ),
        (
            with_scores(mqar("alpha", 0.9, 0.5), "val", accuracy=0.6),
            ["metrics.val.scores.accuracy: 0.6, the best of the history"],
        ),
        (with_counts(mqar("alpha", 0.9, 0.5), "val", answers=10), ["metrics.val.answers: 10, of 20 questions"]),
        (
            with_scores(lambada("alpha", 0.2, 30.0), perplexity=31.0),
            ["metrics.test.scores.perplexity: 31.0, but the mean"],
        ),
        (with_scores(language(), bits_per_byte=1.5), ["metrics.test.scores.bits_per_byte: 1.5"]),
        (with_scores(language(), word_perplexity=1.5), ["metrics.test.scores.word_perplexity: 1.5, less than"]),
        (
            Record.model_validate(changed(language(), "metrics", "val", "loss", value=0.8)),
            ["metrics.val.loss: 0.8, the best of the history is 0.7"],
        ),
        (
            language(metric={"name": "word_perplexity", "higher_is_better": True}),
            ["metric.higher_is_better: true, for word_perplexity"],
        ),
    ],
)
def test_scores_that_contradict_each_other_are_named(record: Record, says: list[str]) -> None:
    result = faults(elsewhere(record))
    assert len(result) == len(says), result
    for fault, start in zip(result, says, strict=True):
        assert fault.startswith(start)


def test_a_group_with_an_impossible_accuracy_is_named() -> None:
    record = elsewhere(mqar("alpha", 0.9, 0.5))
    fields = changed(record, "metrics", "test", "groups", 2, "scores", "accuracy", value=0.12345)
    assert faults(Record.model_validate(fields)) == [
        "metrics.test.groups.2.scores.accuracy: 0.12345 is not a fraction of 100 examples, nor of 400 answers"
    ]
