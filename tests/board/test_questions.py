"""Tasks whose answers are tokens, on the board: several scores, perplexities, objectives, and scores part by part."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.records import language, make, recall
from zoo.board import build as board
from zoo.board.breakdown import Column, along, beyond_text, dimensions, label, trained_length
from zoo.board.export import csv_text, to_json
from zoo.board.markdown import markdown
from zoo.board.model import Board, Section, boards
from zoo.board.multiples import multiples, view_of
from zoo.board.tables import breakdowns, grid, overall_grid, overall_line, overalls, remarks, run_line
from zoo.board.terminal import print_board
from zoo.spec.architecture import Reported
from zoo.spec.errors import UserError
from zoo.spec.record import read_all, write

GOLDEN = Path(__file__).with_name("golden") / "questions"
SVG = "{http://www.w3.org/2000/svg}"

Record = dict[str, Any]


def at(**where: float) -> tuple[tuple[str, float], ...]:
    return tuple(where.items())


PAIRS = (4, 8)
FILL_IN = {"objective": "infilling", "mode": "bidirectional"}


def mqar(arch: str, easy: float, far: float | None, **changes: Any) -> Record:
    test = {at(length=length, pairs=p): easy - p / 100 for length in (32, 64) for p in PAIRS}
    lengths = (128, 256) if far is not None else ()
    beyond = {at(length=length, pairs=p): (far or 0.0) * 128 / length for length in lengths for p in PAIRS}
    return recall(arch, test=test, beyond=beyond or None, offered=400, **changes)


def needle(arch: str, near: float, far: float | None, **changes: Any) -> Record:
    depths = (0.0, 0.5, 1.0)
    test = {at(length=128, depth=d): near - d / 10 for d in depths}
    beyond = {at(length=length, depth=d): far * (1 - d / 2) for length in (256, 512) for d in depths if far is not None}
    return recall(arch, "needle", test=test, beyond=beyond or None, offered=600, answers=1, **changes)


def key_values(arch: str, near: float, far: float) -> Record:
    test = {at(length=34, pairs=4, position=k): near for k in (0, 1, 3)}
    beyond = {at(length=130, pairs=16, position=k): far + k / 100 for k in (0, 7, 15)}
    return recall(arch, "kv_retrieval", test=test, beyond=beyond, answers=1)


def lambada(arch: str, accuracy: float, perplexity: float, **changes: Any) -> Record:
    n = 1000
    test = {
        "accuracy": accuracy,
        "perplexity": perplexity,
        "stderr": 0.02,
        "loss": math.log(perplexity) / 5,
        "n": n,
        "answers": 5 * n,
    }
    fields = {
        "metric": {"name": "accuracy", "higher_is_better": True},
        "metrics": {"val": {"accuracy": 0.3, "loss": 0.7, "n": 20, "answers": 5000}, "test": test},
        "baselines": {"chance": None, "majority": 0.016},
        "data": {"kind": "published", "version": "1", "files": {"a.txt": "ab" * 32}, "counts": {"val": 20, "test": n}},
    }
    return language(arch, "lambada_openai", **(fields | changes))


def some_records() -> list[Record]:
    """Every kind of section: two ways to put a task, seeds, failures, nothing beyond, pieces with and without state."""
    return [
        *(mqar("alpha", a, 0.9, seed=s) for s, a in enumerate((0.97, 0.98))),
        mqar("beta", 0.8, 0.5),
        mqar("gamma", 0.7, None, **FILL_IN),
        mqar("delta", 0.7, None, status="out-of-memory"),
        mqar("alpha", 0.99, 0.95, overrides={"model.d_model": 256}, config_hash="ff" * 6),
        needle("alpha", 0.95, 0.6),
        needle("gamma", 0.9, None, **FILL_IN),
        key_values("alpha", 0.9, 0.4),
        key_values("beta", 0.8, 0.3),
        lambada("alpha", 0.2, 30.0),
        lambada("gamma", 0.25, 25.0, **FILL_IN),
        *(language("alpha", nats=nats, seed=s, carried=True) for s, nats in enumerate((3.4, 3.5, 3.6))),
        language("beta", nats=3.7),
        language("delta", nats=3.2, stderr=None),
        make("alpha", accuracy=0.4),
        make("gamma", accuracy=0.3),
    ]


def section(records: list[Record], task: str = "mqar", **kwargs: Any) -> Section:
    (found,) = boards(records, **kwargs)
    return next(s for s in found.sections if s.task == task)


def the_board(records: list[Record]) -> Board:
    (found,) = boards(records)
    return found


def cells(records: list[Record], task: str, column: str) -> dict[str, str]:
    table = grid(section(records, task))
    k = table.headers.index(column)
    return {row[table.headers.index("architecture")]: row[k] for row in reversed(table.rows)}


def test_golden(tmp_path: Path) -> None:
    """Every file of the board. To renew after a wanted change: ZOO_GOLDEN=write pytest tests/board, then read the
    diff."""
    results = tmp_path / "results"
    for record in some_records():
        write(record, results)
    paths, problems, _ = board.build(results)
    assert problems == []
    found = {path.name: path.read_text(encoding="utf-8") for path in paths}
    found["board.json"] = json.dumps(to_json(boards(read_all(results)[0])), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("ZOO_GOLDEN") == "write":
        for name, text in found.items():
            (GOLDEN / name).write_text(text, encoding="utf-8")
    assert sorted(found) == sorted(path.name for path in GOLDEN.iterdir())
    for name, text in found.items():
        assert text == (GOLDEN / name).read_text(encoding="utf-8"), name


# -- scores --------------------------------------------------------------------------------------------------------


def test_of_perplexities_less_is_better() -> None:
    records = [language("alpha", nats=3.0), language("beta", nats=2.5), language("gamma", nats=2.51)]
    found = section(records, "wikitext")
    assert [(row.name, row.rank.place, row.rank.tied) for row in found.rows if row.rank] == [
        ("beta", 1, True),
        ("gamma", 1, True),
        ("alpha", 3, False),
    ]
    assert "Of word perplexity, less is better." in remarks(the_board(records), found)


def test_seeds_of_a_perplexity_are_averaged_as_losses() -> None:
    row = section([language(nats=nats, seed=s) for s, nats in enumerate((3.0, 3.2, 3.4))], "wikitext").rows[0]
    assert row.estimate is not None
    assert row.estimate.interval is not None
    assert row.estimate.mean == pytest.approx(math.exp(3.2))
    # deviation 0.2, t(2) = 4.302653: half-width 4.302653 * 0.2 / sqrt(3) = 0.496828
    assert math.log(row.estimate.interval.high) == pytest.approx(3.2 + 0.496828, abs=1e-6)
    assert row.others is not None
    assert row.others["byte_perplexity"] == pytest.approx(math.exp(0.64))
    assert row.others["bits_per_byte"] == pytest.approx(0.64 / math.log(2))


def test_a_run_without_a_standard_error_is_ranked_apart_from_nobody() -> None:
    records = [language("alpha", nats=3.0), language("beta", nats=1.0, stderr=None), language("gamma", nats=5.0)]
    found = section(records, "wikitext")
    assert {row.name: row.rank.place for row in found.rows if row.rank} == {"alpha": 1, "beta": 1, "gamma": 2}
    assert cells(records, "wikitext", "95 % interval")["beta"] == ""


def test_a_perplexity_has_converged_below_its_baseline_if_there_is_one() -> None:
    lines = {"chance": 256.0, "majority": 30.0}
    runs = [language(nats=nats, seed=s, baselines=lines) for s, nats in enumerate((math.log(29.9), 3.0))]
    found = section(runs, "wikitext")
    assert [seed.converged for seed in found.rows[0].seeds] == [False, True]
    assert section([language(nats=30.0)], "wikitext").rows[0].converged == 1
    text = markdown(boards([language(baselines=lines)]))
    assert "Chance 256.0, trivial answer 30.00; 200 test passages, 50,000 tokens asked for, published data." in text


def test_a_perplexity_that_is_not_finite_is_a_word() -> None:
    record = language("alpha")
    record["metrics"]["test"] |= {"word_perplexity": None, "byte_perplexity": None, "bits_per_byte": None}
    found = section([record, language("beta")], "wikitext")
    assert [(row.name, row.failures) for row in found.rows] == [("beta", ""), ("alpha", "not finite")]
    assert found.rows[1].estimate is None
    assert cells([record, language("beta")], "wikitext", "word perplexity")["alpha"] == "not finite"
    assert cells([record, language("beta")], "wikitext", "bits per byte")["alpha"] == "not finite"
    assert "word perplexity not finite of 200 passages" in run_line(record | {"path": "x"})
    ElementTree.fromstring(board.picture(boards([record])))


def test_further_scores_are_further_columns() -> None:
    table = grid(section(some_records(), "lambada_openai"))
    assert table.headers[:4] == ["rank", "architecture", "objective", "carried"]
    assert table.headers.index("perplexity") > table.headers.index("accuracy")
    assert cells(some_records(), "lambada_openai", "perplexity") == {"alpha": "30.00", "gamma": "25.00"}
    assert "byte perplexity" in grid(section(some_records(), "wikitext")).headers


def test_another_metric_is_not_ranked_against() -> None:
    other = language("beta", metric={"name": "byte_perplexity", "higher_is_better": False})
    found = section([language("alpha"), language("gamma"), other], "wikitext")
    assert [(row.name, row.notes) for row in found.rows if not row.rank] == [
        ("beta", ("other metric: byte perplexity",))
    ]
    ElementTree.fromstring(board.picture(boards([language("alpha"), language("gamma"), other])))


def test_the_objective_and_whether_state_is_carried_are_always_said() -> None:
    assert cells(some_records(), "mqar", "objective")["gamma"] == "infilling"
    assert cells(some_records(), "wikitext", "carried") == {"alpha": "yes", "beta": "no", "delta": "no"}
    assert "carried" not in grid(section(some_records())).headers
    assert "objective" not in grid(section(some_records(), "listops")).headers
    for width in (60, 80, 120):
        out = io.StringIO()
        print_board(some_records(), console=Console(file=out, width=width))
        text = out.getvalue()
        assert all(len(line.rstrip()) <= width for line in text.split("\n"))
        for word in ("infilling", "causal_lm", "carried", "yes"):
            assert word in text
    assert "gamma (infilling)" in board.picture(boards(some_records()))


def test_averages_are_of_accuracies_and_within_a_suite() -> None:
    found = the_board(some_records())
    assert {overall.suite: overall.common for overall in found.overalls} == {
        "lambada": ("lambada_openai",),
        "lra": ("listops",),
        "recall": ("mqar",),
    }
    told = dict(overalls(found))
    assert sorted(told) == ["overall: lambada", "overall: recall"]
    lines = {title: overall_line(overall) for title, overall in told.items()}
    assert lines["overall: lambada"].endswith("lambada_openai. No average has word perplexity in it.")
    table = overall_grid(told["overall: lambada"])
    assert table.headers[:3] == ["architecture", "objective", "average of 1"]
    assert table.headers[3:] == ["lambada_openai", "wikitext (word perplexity)"]
    only_texts = the_board([language("alpha"), language("alpha", "pg19")])
    assert only_texts.overalls[0].common == ()
    assert only_texts.overalls[0].rows[0].average is None


def test_an_architecture_with_two_objectives_names_the_tasks() -> None:
    found = the_board([mqar("alpha", 0.9, 0.5), needle("alpha", 0.9, 0.5, objective="seq2seq", mode="seq2seq")])
    table = overall_grid(found.overalls[0])
    assert table.rows[0][1] == "causal_lm (mqar), seq2seq (needle)"


def test_reported_perplexities_stand_beside_perplexities() -> None:
    told = {
        "seqzoo:alpha": [
            Reported(task="wikitext", metric="word_perplexity", value=18.3, source="a paper"),
            Reported(task="wikitext", metric="accuracy", value=0.5, source="a paper"),
        ]
    }
    (found,) = boards([language("alpha", nats=3.0, protocol="paper")], told)
    table = grid(found.sections[0])
    row = dict(zip(table.headers, table.rows[0], strict=True))
    assert row["reported"] == "18.3 [1]"
    assert row["Δ"] == "+1.79"


# -- parts ---------------------------------------------------------------------------------------------------------


def test_parts_are_put_together_by_how_many_answers_they_have() -> None:
    record = mqar("alpha", 0.9, None)
    groups = record["metrics"]["test"]["groups"]
    groups[0] |= {"n": 300, "answers": 1200, "accuracy": 0.5}
    right = sum(round(g["accuracy"] * g["answers"]) for g in groups)
    record["metrics"]["test"] |= {"n": 600, "answers": 2400, "accuracy": right / 2400}
    row = section([record]).rows[0]
    first, second = (group["accuracy"] for group in groups[:2])
    assert along(row, "length")[Column(False, 32)] == pytest.approx((3 * first + second) / 4)
    assert along(row, "length", {"pairs": 4})[Column(False, 32)] == pytest.approx(first)


def test_whole_questions_are_put_together_by_how_many_they_are() -> None:
    """An accuracy over questions of several tokens, as of words: the parts weigh by questions."""
    groups = [
        {"length": 8, "accuracy": 1.0, "loss": 0.1, "n": 10, "answers": 10},
        {"length": 16, "accuracy": 0.0, "loss": 0.1, "n": 10, "answers": 90},
    ]
    test = {"accuracy": 0.5, "loss": 0.1, "n": 20, "answers": 100, "groups": groups}
    record = recall(test={at(length=1): 1.0}, metrics={"val": {"accuracy": 0.5, "loss": 1.25, "n": 20}, "test": test})
    assert board.derived_faults(unheard_of(record)) == []
    assert [point.weight for point in section([record]).rows[0].points] == [10, 10]


def test_beyond_is_told_by_length_in_a_word_or_not_at_all() -> None:
    found = section(some_records())
    told = {row.name: beyond_text(row) for row in reversed(found.rows)}
    assert told == {
        "alpha": "×2 90.0 %, ×4 45.0 %",
        "beta": "×2 50.0 %, ×4 25.0 %",
        "gamma": "not defined",
        "delta": "",
    }
    assert trained_length(found.rows) == 64
    # where parts differ in no length, all of beyond is one number
    plain = recall(test={at(pairs=4): 0.9, at(pairs=8): 0.8}, beyond={at(pairs=16): 0.25})
    assert beyond_text(section([plain]).rows[0]) == "25.0 %"
    assert section([recall(test={at(length=8): 0.9})]).beyond is False
    # where nobody could be asked beyond, it is said all the same
    assert cells([mqar("gamma", 0.7, None)], "mqar", "length_generalization") == {"gamma": "not defined"}


def test_tables_keep_training_and_beyond_apart() -> None:
    (title, over_length), (_, over_pairs) = breakdowns(section(some_records()))
    assert title == "mqar: accuracy over length (all pairs together), %"
    assert over_length.headers == [
        "architecture",
        "trained\n32",
        "trained\n64",
        "beyond\n128\n×2",
        "beyond\n256\n×4",
    ]
    assert over_pairs.headers == ["architecture", "4", "8", "beyond\n4", "beyond\n8"]
    rows = {row[0]: row[1:] for row in over_length.rows}
    assert rows["beta (causal_lm)"] == ["74.0", "74.0", "50.0", "25.0"]
    assert rows["gamma (infilling)"] == ["64.0", "64.0", "not defined", "not defined"]
    assert "alpha (causal_lm) (modified)" in rows
    assert not any("delta" in name for name in rows)


def test_seeds_that_failed_are_in_no_part() -> None:
    records = [mqar("alpha", 0.9, 0.8), mqar("alpha", 0.9, None, seed=1, status="diverged")]
    row = section(records).rows[0]
    assert along(row, "length")[Column(True, 128)] == pytest.approx(0.8)


def test_what_goes_together_is_shown_once() -> None:
    rows = section(some_records(), "kv_retrieval").rows
    assert dimensions(rows) == ["length", "position"]
    assert label(rows, "length", 130) == "130 (16 pairs)"
    (_, over_length), (_, over_position) = breakdowns(section(some_records(), "kv_retrieval"))
    assert over_length.headers[1:] == ["trained\n34\n(4 pairs)", "beyond\n130\n(16 pairs)\n×3.8"]
    # places of texts of any number of pairs: the first, the second of four, the last
    assert over_position.headers[1:] == ["first", "¼", "last", "beyond\nfirst", "beyond\n½", "beyond\nlast"]


def test_one_part_is_no_breakdown() -> None:
    found = section([recall(test={at(length=64): 0.9})])
    assert breakdowns(found) == []
    assert multiples(the_board([recall(test={at(length=64): 0.9})]), found) == ""


@pytest.mark.parametrize(
    ("task", "across", "by", "is_map"),
    [
        ("mqar", "length", "pairs", False),
        ("needle", "length", "depth", True),
        ("kv_retrieval", "position", "length", False),
    ],
)
def test_the_picture_of_parts_draws_each_row(task: str, across: str, by: str, is_map: bool) -> None:
    found = the_board(some_records())
    of_task = next(s for s in found.sections if s.task == task)
    view = view_of(of_task)
    assert view is not None
    assert (view.across, view.by, view.map) == (across, by, is_map)
    svg = ElementTree.fromstring(multiples(found, of_task, comment="x"))
    panels = svg.findall(f"{SVG}g")
    shown = [row for row in of_task.rows if row.points]
    assert len(panels) == len(shown)
    for row, panel in zip(shown, panels, strict=True):
        assert row.name in "".join(panel.itertext())
        marks = [
            mark
            for kind in ("circle", "polygon", "rect")
            for mark in panel.findall(f"{SVG}{kind}")
            if mark.get("class") != "length_generalization"
        ]
        assert len(marks) == len(row.points)
        hollow = [mark for mark in marks if mark.get("fill") == "#ffffff"]
        if not is_map:
            assert len(hollow) == sum(point.beyond for point in row.points)
        assert ("not defined" in "".join(panel.itertext())) == (not row.defined)
        if across == "length":
            assert panel.findall(f"{SVG}line[@class='edge']")
    if task == "mqar":
        assert "delta: out-of-memory" in "".join(svg.itertext())


def test_many_lines_become_a_map_and_nineteen_architectures_fit() -> None:
    test = {at(length=length, pairs=p): 1 / p for length in (64, 128) for p in (1, 2, 4, 8, 16, 32, 64)}
    records = [recall(f"arch{k}", test=test) for k in range(19)]
    found = the_board(records)
    view = view_of(found.sections[0])
    assert view is not None
    assert view.map
    svg = ElementTree.fromstring(multiples(found, found.sections[0]))
    assert len(svg.findall(f"{SVG}g")) == 19
    assert int(svg.get("width", 0)) <= 900
    assert int(svg.get("height", 0)) <= 1200


def test_perplexities_part_by_part() -> None:
    record = language()
    test = record["metrics"]["test"]
    groups = [
        {"length": length, "word_perplexity": 30.0 + length, "n": 100, "answers": 25_000, "loss": 0.7}
        for length in (256, 512)
    ]
    record["metrics"]["test"] = test | {"groups": groups}
    assert board.derived_faults(unheard_of(record)) == []
    (_, table), *_ = breakdowns(section([record], "wikitext"))
    assert table.rows == [["alpha (causal_lm)", "286.0", "542.0"]]
    assert "less is better" in multiples(the_board([record]), section([record], "wikitext"))


# -- files and terminal --------------------------------------------------------------------------------------------


def test_files_of_parts_come_and_go(tmp_path: Path) -> None:
    results = tmp_path / "results"
    path = write(mqar("alpha", 0.9, 0.5), results)
    picture = tmp_path / "breakdown-quick-mqar.svg"
    picture.write_text("<svg>mine</svg>")
    with pytest.raises(UserError, match="breakdown-quick-mqar"):
        board.build(results)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["breakdown-quick-mqar.svg", "results"]
    board.build(results, force=True)
    assert {p.name for p in board.board_paths(results)} == {
        *("README.md", "results.csv", "board.svg", "groups.csv"),
        "breakdown-quick-mqar.svg",
    }
    assert "](breakdown-quick-mqar.svg)" in (tmp_path / "README.md").read_text()
    path.unlink()
    mine = tmp_path / "breakdown-mine.svg"
    mine.write_text("<svg>mine</svg>")
    board.build(results)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == sorted(
        ["README.md", "board.svg", "breakdown-mine.svg", "results.csv"]
    )


def test_groups_are_a_line_per_seed_and_part() -> None:
    rows = list(csv.DictReader(io.StringIO(board.groups_csv(boards(some_records())))))
    of_mqar = [row for row in rows if row["task"] == "mqar" and row["architecture"] == "alpha" and row["seed"] == "1"]
    assert len(of_mqar) == 8
    assert {row["split"] for row in of_mqar} == {"test", "length_generalization"}
    one = next(row for row in of_mqar if (row["length"], row["pairs"], row["split"]) == ("64", "4", "test"))
    assert (float(one["score"]), one["weight"], one["metric"]) == (0.94, "400", "accuracy")
    assert one["depth"] == ""
    assert {row["position"] for row in rows if row["task"] == "kv_retrieval"} == {"0", "1", "3", "7", "15"}
    assert board.groups_csv(boards([make()])) == ""


def test_results_csv_names_the_metric() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(boards(some_records())))))
    text = next(row for row in rows if row["task"] == "wikitext" and row["architecture"] == "beta")
    assert (text["metric"], text["higher_is_better"], text["accuracy"]) == ("word_perplexity", "false", "")
    assert float(text["score"]) == pytest.approx(math.exp(3.7))
    assert (text["interval"], text["carried"]) == ("normal", "false")
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
        print_board(some_records(), console=Console(file=out, width=width), **kwargs)
        return out.getvalue()

    assert "over length" not in shown(200)
    for width in (60, 100, 200):
        text = shown(width, tasks={"mqar"})
        assert all(len(line.rstrip()) <= width for line in text.split("\n"))
        for word in ("over length", "over pairs", "trained", "length_generalization", "74.0", "25.0", "defined"):
            assert word in text


@pytest.mark.parametrize(
    ("record", "lines"),
    [
        (
            mqar("alpha", 0.98, 0.9),
            [
                "alpha on mqar (quick, seed 0): test accuracy 92.00 % of 400 questions, causal_lm (chance 1.56 %), 2 s",
                "  beyond training: ×2 90.0 %, ×4 45.0 %",
            ],
        ),
        (
            mqar("gamma", 0.98, None, **FILL_IN),
            [
                "gamma on mqar (quick, seed 0): test accuracy 92.00 % of 400 questions, infilling (chance 1.56 %), 2 s",
                "  beyond training: not defined",
            ],
        ),
        (
            lambada("alpha", 0.2, 30.0),
            [
                "alpha on lambada_openai (quick, seed 0): test accuracy 20.00 % of 1000 passages, causal_lm, "
                "perplexity 30.00 (trivial answer 1.60 %), 2 s"
            ],
        ),
        (
            language("alpha", nats=3.0, carried=True),
            [
                "alpha on wikitext (quick, seed 0): test word perplexity 20.09 of 200 passages, causal_lm, "
                "state carried, byte perplexity 1.82, bits per byte 0.866, 2 s"
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
def test_what_a_run_says_at_its_end(record: Record, lines: list[str]) -> None:
    assert run_line(record | {"path": "a.json"}).split("\n") == [*lines, "  record: a.json"]


# -- checking records ----------------------------------------------------------------------------------------------


def unheard_of(record: Record) -> Record:
    """Under a task that is not installed, so that its configuration is not looked at."""
    found = record | {"task": record["task"] | {"name": "unheard_of"}}
    return found | {"id": found["id"].replace(f"/{record['task']['name']}/", "/unheard_of/")}


def test_sound_records_have_no_faults() -> None:
    for record in some_records():
        assert board.derived_faults(unheard_of(record)) == []


def changed(record: Record, split: str, **scores: Any) -> Record:
    return record | {"metrics": record["metrics"] | {split: record["metrics"][split] | scores}}


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (
            changed(mqar("alpha", 0.9, 0.5), "length_generalization", n=401),
            ["metrics.beyond.n: 401, but the beyond split has 400", "metrics.beyond.groups: n of all of them 400"],
        ),
        (changed(mqar("alpha", 0.9, 0.5), "test", exact=0.12345), ["metrics.test.exact: 0.12345 is no share of 400"]),
        (changed(mqar("alpha", 0.9, 0.5), "test", accuracy=0.5), ["metrics.test.groups: their accuracy does not make"]),
        (changed(mqar("alpha", 0.9, 0.5), "val", accuracy=0.6), ["metrics.val.accuracy: 0.6, the best of its curve"]),
        (changed(mqar("alpha", 0.9, 0.5), "val", answers=10), ["metrics.val.answers: 10, of 20 questions"]),
        (
            changed(lambada("alpha", 0.2, 30.0), "test", perplexity=31.0),
            ["metrics.test.perplexity: 31.0, but the mean"],
        ),
        (changed(language(), "test", bits_per_byte=1.5), ["metrics.test.bits_per_byte: 1.5"]),
        (changed(language(), "test", word_perplexity=1.5), ["metrics.test.word_perplexity: 1.5, less than"]),
        (changed(language(), "val", loss=0.8), ["metrics.val.loss: 0.8, the least of its curve is 0.7"]),
        (
            language(metric={"name": "word_perplexity", "higher_is_better": True}),
            ["metric.higher_is_better: true, for word_perplexity"],
        ),
    ],
)
def test_scores_that_contradict_each_other_are_found(record: Record, says: list[str]) -> None:
    faults = board.derived_faults(unheard_of(record))
    assert len(faults) == len(says), faults
    for fault, start in zip(faults, says, strict=True):
        assert fault.startswith(start)


def test_a_part_that_is_no_share_is_named() -> None:
    record = mqar("alpha", 0.9, 0.5)
    record["metrics"]["test"]["groups"][2]["accuracy"] = 0.12345
    faults = board.derived_faults(unheard_of(record))
    assert faults == ["metrics.test.groups.2.accuracy: 0.12345 is no share of 100 examples, nor of 400 answers"]


def test_where_the_kind_is_unknown_either_may_have_chosen_the_weights() -> None:
    record = unheard_of(language())
    del record["task"]["kind"]
    assert board.derived_faults(record) == []
    assert board.derived_faults(changed(record, "val", loss=0.8)) == []
    assert len(board.derived_faults(changed(record, "val", loss=0.8, word_perplexity=40.0))) == 1
