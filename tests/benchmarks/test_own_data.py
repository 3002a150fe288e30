"""A user's own data: from a file to records, what is inferred, and what is refused before anything is trained."""

from __future__ import annotations

import csv
import json
import random
import shutil
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import zoo
from zoo.board.results import make_board
from zoo.cli import app
from zoo.data.progress import quiet
from zoo.run.execute import load_data
from zoo.run.request import BenchRequest, resolve
from zoo.run.trained import load_trained
from zoo.spec.errors import ConfigError, DataError, UserError
from zoo.spec.record import Record
from zoo.spec.registry import registry
from zoo.spec.store import StoredRecord
from zoo_own.scan import Scan
from zoo_own.settings import DataSettings


@pytest.fixture(autouse=True)
def forget_declared_tasks() -> Iterator[None]:
    """Tasks of these data are registered in this process; other tests look at all that are."""
    yield
    for name in list(registry().declared):
        del registry().declared[name], registry().tasks[name]


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def token_rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows = []
    for _ in range(n):
        tokens = [draw.randint(3, 9) for _ in range(draw.randint(5, 12))]
        rows.append({"input": tokens, "label": "many" if sum(tokens) > 50 else "few"})
    return rows


def bench(tmp_path: Path, data: Path, arch: str = "transformer", **options: Any) -> list[StoredRecord]:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    stored = zoo.bench(arch, data=data, protocol=options.pop("protocol", "smoke"), **folders, **options)
    assert [(each.record.status, each.record.error) for each in stored] == [("ok", "")] * len(stored)
    return stored


def bench_one(tmp_path: Path, data: Path, **options: Any) -> Record:
    (stored,) = bench(tmp_path, data, **options)
    return stored.record


def open_examples(data: Path, split: Any, **overrides: Any) -> tuple[Any, list[Any]]:
    """The data of a folder, and all examples of a split."""
    (experiment,) = resolve(BenchRequest.parse("transformer", data=data, protocol="smoke", overrides=overrides))
    opened = load_data(experiment, None)
    opened.prepare()
    examples = opened.dataset(split)
    return opened, [examples[i] for i in range(len(examples))]


# -- what is inferred --------------------------------------------------------------------------------------------------


def test_a_table_of_tokens_becomes_a_record_that_says_what_was_inferred(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_jsonl(tmp_path / "Two Sums" / "rows.jsonl", token_rows(200)).parent
    record = bench_one(tmp_path, data)
    assert (record.task.name, record.task.kind, record.task.suite) == ("two_sums", "classification", "own")
    assert (record.data.kind, sum(record.data.counts.values())) == ("own", 200)
    assert list(record.data.files or {}) == ["rows.jsonl"]
    inferred: Any = record.data.model_dump()["inferred"]
    assert inferred["columns"] == {"input": ["input"], "label": "label"}
    assert (inferred["read"], inferred["classes"], inferred["vocabulary"]) == ("tokens", ["few", "many"], 7)
    assert (record.overrides, record.baselines.chance) == ({}, 0.5)
    shown = capsys.readouterr().err
    assert "two_sums: input 'input': tokens, 7 different, at most 12 long (data.read=text|numbers reads" in shown
    assert "two_sums: label 'label': a class for each input; 2 classes: few, many" in shown
    assert "(test and val by a hash of each input, seed 0)" in shown


def test_the_examples_are_the_rows(tmp_path: Path) -> None:
    rows = token_rows(120)
    data, _ = open_examples(write_jsonl(tmp_path / "rows.jsonl", rows), "train")
    found = []
    for split in ("train", "val", "test"):
        examples = data.dataset(split)
        for i in range(len(examples)):
            ids, label = examples[i]
            tokens = [int(data.codec["vocabulary"][k - 2]) for k in ids.tolist()]
            found.append({"input": tokens, "label": data.codec["classes"][label]})
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, rows))


def test_texts_are_read_as_bytes_from_csv_with_quotes_and_line_ends(tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = [f'Wörter, "quoted"\nand {draw.random()}' for _ in range(60)]
    rows = [{"id": k, "text": text, "class": ("ja", "nein")[k % 2]} for k, text in enumerate(texts)]
    data, examples = open_examples(write_csv(tmp_path / "letters.csv", rows), "train")
    assert data.codec["form"] == "text"
    assert data.codec["columns"] == {"input": ["text"], "label": "class"}
    decoded = {(bytes(b - 1 for b in ids.tolist()).decode(), label) for ids, label in examples}
    assert decoded <= {(row["text"], k % 2) for k, row in enumerate(rows)}
    assert len(decoded) == len(examples) > 30


def test_numbers_with_channels_are_standardised_by_the_training_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    rng = np.random.RandomState(0)
    series = [(rng.randn(rng.randint(4, 9), 3) * (1, 10, 0) + (0, 500, 7)).tolist() for _ in range(90)]
    table = pa.table({"values": series, "label": [int(np.mean(rows) > 169) for rows in series]})
    for split, part in (("train", table[:60]), ("val", table[60:75]), ("test", table[75:])):
        pyarrow.parquet.write_table(part, _made(tmp_path / "sensors") / f"{split}.parquet")
    _, examples = open_examples(tmp_path / "sensors", "train")
    assert len(examples) == 60
    whole = np.concatenate([values for values, _ in examples])
    assert whole.shape[1] == 3
    np.testing.assert_allclose(whole[:, :2].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(whole[:, :2].std(0), 1, atol=1e-4)
    assert not whole[:, 2].any()  # a channel that never changes
    record = bench_one(tmp_path, tmp_path / "sensors")
    assert record.data.model_dump()["inferred"]["read"] == "numbers"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (["3 4 5", "6 7"], "tokens"),
        (["[3, 4]", "[5]"], "tokens"),
        (["0.5 1.5", "2,3"], "numbers"),
        (["the cat", "3 4"], "text"),
        ([[1, 2], 3, None, [1, None], []], "tokens"),
        ([[1, 2], [3]], "tokens"),
        ([["a", "b"], ["c"]], "tokens"),
        ([[0.5, 1], [2, 3]], "numbers"),
        ([[[1, 2], [3, 4]]], "numbers"),
    ],
)
def test_what_inputs_are_is_guessed_by_their_cells(cells: list[Any], form: str) -> None:
    from zoo_own.columns import guess_form

    assert guess_form(cells) == form


@pytest.mark.parametrize(
    ("cells", "pairs", "kind"),
    [
        (["a", "b"], False, "classification"),
        ([1, 0], False, "classification"),
        (["1", "0"], True, "pair_classification"),
        ([0.5, 1], False, "regression"),
        (["0.5", "1"], False, "regression"),
        ([["B", "O"], ["O"]], False, "token_classification"),
    ],
)
def test_what_is_learned_is_guessed_by_the_labels(cells: list[Any], pairs: bool, kind: str) -> None:
    from zoo_own.columns import guess_kind

    assert guess_kind(cells, pairs) == kind


# -- splits ------------------------------------------------------------------------------------------------------------


def test_the_names_of_files_divide_the_rows_and_what_is_missing_is_held_out_of_training(tmp_path: Path) -> None:
    folder = tmp_path / "named"
    write_jsonl(folder / "train-00000.jsonl", token_rows(150, 1))
    write_jsonl(folder / "train-00001.jsonl", token_rows(150, 2))
    write_jsonl(folder / "my_test.jsonl", token_rows(40, 3))
    data, _ = open_examples(folder, "train", **{"data.duplicates": "drop"})
    counts = data.provenance()["counts"]
    assert counts["test"] == 40
    assert 15 <= counts["val"] <= 50
    assert sum(counts.values()) <= 340


def test_the_same_input_is_in_one_split_wherever_the_folder_lies(tmp_path: Path) -> None:
    rows = token_rows(150)
    write_jsonl(tmp_path / "a" / "data.jsonl", rows + rows[:50])
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "a")
    seen: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        _, examples = open_examples(tmp_path / "a", split)
        for ids, _ in examples:
            seen.setdefault(str(ids.tolist()), set()).add(split)
    assert {len(splits) for splits in seen.values()} == {1}
    ids = set()
    for place in (tmp_path / "a", tmp_path / "elsewhere" / "a"):
        ids |= {each.id for each in resolve(BenchRequest.parse("transformer", data=place))}
    assert len(ids) == 1
    (tmp_path / "a" / "data.jsonl").write_text((tmp_path / "a" / "data.jsonl").read_text().replace("few", "not many"))
    ids |= {each.id for each in resolve(BenchRequest.parse("transformer", data=tmp_path / "a"))}
    assert len(ids) == 2


def test_duplicates_are_dropped_from_the_later_of_test_val_and_train(tmp_path: Path) -> None:
    folder, rows = tmp_path / "d", token_rows(100)
    write_jsonl(folder / "train.jsonl", rows[:80])
    write_jsonl(folder / "val.jsonl", [*rows[80:90], rows[3]])
    write_jsonl(folder / "test.jsonl", [*rows[90:], rows[85]])
    data, _ = open_examples(folder, "train", **{"data.duplicates": "drop"})
    assert data.provenance()["counts"] == {"train": 79, "val": 10, "test": 11}


# -- kinds -------------------------------------------------------------------------------------------------------------


def predictions(tmp_path: Path, record: Record, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    source, target = write_jsonl(tmp_path / "ask.jsonl", rows), tmp_path / "answers.jsonl"
    run = tmp_path / "runs" / record.id
    arguments = ["predict", str(run), "--input", str(source), "--output", str(target), "--force"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in target.read_text().splitlines()]


def named_splits(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    n = len(rows)
    write_jsonl(folder / "train.jsonl", rows[: n * 8 // 10])
    write_jsonl(folder / "val.jsonl", rows[n * 8 // 10 : n * 9 // 10])
    write_jsonl(folder / "test.jsonl", rows[n * 9 // 10 :])
    return folder


def test_regression_is_scored_and_predicted_in_the_users_units(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    rows = []
    for _ in range(200):
        x = rng.rand(6)
        rows.append({"values": x.tolist(), "price": 1e5 + 1e4 * float(x.sum()) + 0.5})
    data = named_splits(tmp_path / "prices", rows)
    record = bench_one(tmp_path, data, overrides={"data.label": "price", "train.max_samples": 1_600})
    assert (record.task.kind, record.metric.name, record.metric.higher_is_better) == ("regression", "mse", False)
    test = rows[180:]
    answers = predictions(tmp_path, record, [{"values": row["values"]} for row in test])
    errors = [(answer["value"] - row["price"]) ** 2 for answer, row in zip(answers, test, strict=True)]
    assert record.metrics is not None
    scores = record.metrics.test.scores
    assert scores["mse"] == pytest.approx(np.mean(errors), rel=1e-4)
    spread = np.var([row["price"] for row in test])
    assert scores["r2"] == pytest.approx(1 - np.mean(errors) / spread, abs=1e-4)
    assert scores["r2"] is not None
    assert scores["r2"] > 0.5
    always_the_mean = np.mean([(row["price"] - np.mean([r["price"] for r in rows[:160]])) ** 2 for row in test])
    assert record.baselines.majority == pytest.approx(always_the_mean, rel=1e-6)
    assert record.baselines.chance is None


def test_labels_for_each_position_are_learned_and_predicted(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = []
    for _ in range(200):
        tokens = [draw.choice("abcd") for _ in range(draw.randint(4, 9))]
        rows.append({"tokens": tokens, "tags": ["vowel" if token == "a" else "other" for token in tokens]})
    data = named_splits(tmp_path / "tags", rows)
    record = bench_one(tmp_path, data, overrides={"train.max_samples": 1_600, "optim.lr": 0.01})
    assert record.task.kind == "token_classification"
    answers = predictions(tmp_path, record, [{"tokens": row["tokens"]} for row in rows[180:]])
    right = [a == b for answer, row in zip(answers, rows[180:], strict=True)
             for a, b in zip(answer["labels"], row["tags"], strict=True)]  # fmt: skip
    assert record.metrics is not None
    assert record.metrics.test.scores["accuracy"] == pytest.approx(np.mean(right))
    assert np.mean(right) > 0.95
    tags = [tag for row in rows[180:] for tag in row["tags"]]
    assert record.baselines.majority == pytest.approx(tags.count("other") / len(tags))


def test_pairs_are_two_columns(tmp_path: Path) -> None:
    draw = random.Random(0)
    words = ["rain", "sun", "snow", "fog"]
    rows = []
    for k in range(150):
        first = draw.choice(words)
        second = first if k % 2 else draw.choice(words)
        rows.append({"a": f"{first} {k}", "b": f"{second} {k}", "label": int(first == second)})
    data = write_csv(tmp_path / "same.csv", rows)
    record = bench_one(tmp_path, data)
    assert record.task.kind == "pair_classification"
    assert record.data.model_dump()["inferred"]["columns"]["input"] == ["a", "b"]
    (answer,) = predictions(tmp_path, record, [{"a": "rain", "b": "sun"}])
    assert answer["label"] in ("0", "1")
    _, examples = open_examples(data, "test")
    assert {ids.shape[0] for ids, _ in examples} == {2}


def test_text_files_are_a_language_task(tmp_path: Path) -> None:
    folder = _made(tmp_path / "diary")
    (folder / "notes.txt").write_text("".join(f"On day {k} nothing happened at all.\n\n" for k in range(500)))
    record = bench_one(tmp_path, folder, overrides={"task.seq_len": 64})
    assert (record.task.kind, record.data.kind, record.metric.name) == ("language_modeling", "own", "bits_per_byte")
    assert record.metrics is not None
    assert set(record.metrics.test.scores) == {"bits_per_byte", "word_perplexity", "byte_perplexity"}
    text = tmp_path / "new.txt"
    text.write_text("On day 501 nothing happened at all.")
    run, target = tmp_path / "runs" / record.id, tmp_path / "out.jsonl"
    done = CliRunner().invoke(app, ["predict", str(run), "--input", str(text), "--output", str(target)])
    assert done.exit_code == 0, done.output
    assert json.loads(target.read_text())["tokens"] == 35


def test_unknown_tokens_and_longer_inputs_are_read_as_in_training(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", token_rows(150))
    record = bench_one(tmp_path, data, overrides={"task.seq_len": 8})
    answers = predictions(tmp_path, record, [{"input": [3, 77, 9]}, {"input": [5] * 8}, {"input": [5] * 80}])
    assert answers[1]["probabilities"] == pytest.approx(answers[2]["probabilities"], abs=1e-6)
    trained = load_trained(tmp_path / "runs" / record.id)
    shutil.rmtree(trained.data.folder)
    again = predictions(tmp_path, record, [{"input": [3, 77, 9]}])  # without the data, as on another machine
    assert again[0]["probabilities"] == pytest.approx(answers[0]["probabilities"], abs=1e-6)


def test_models_of_two_data_sets_of_one_name_are_loaded_side_by_side(tmp_path: Path) -> None:
    first = bench_one(tmp_path, write_jsonl(tmp_path / "a" / "rows.jsonl", token_rows(150)))
    other = [{**row, "label": f"class {k % 3}"} for k, row in enumerate(token_rows(150, 1))]
    second = bench_one(tmp_path, write_jsonl(tmp_path / "b" / "rows.jsonl", other))
    assert first.task.name == second.task.name == "rows"
    for record, classes in ((first, 2), (second, 3)):
        (answer,) = predictions(tmp_path, record, [{"input": [3, 4]}])
        assert len(answer["probabilities"]) == classes


# -- comparison --------------------------------------------------------------------------------------------------------


def test_what_is_set_for_all_is_the_protocol_of_ones_data_and_rows_under_other_settings_are_not_ranked_with_it(
    tmp_path: Path,
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", token_rows(150))
    small = {"model.d_model": 16, "train.max_samples": 64, "model.n_layers": 1}
    stored = bench(tmp_path, data, "transformer,s4", protocol="quick", overrides=small)
    stored += bench(tmp_path, data, "retnet", protocol="quick", overrides=small | {"train.max_samples": 128})
    assert all(record.overrides == {} for _, record in stored)
    rows = make_board(stored).results.set_index("architecture")
    assert rows["rank"].notna().to_dict() == {"transformer": True, "s4": True, "retnet": False}
    assert rows.loc["retnet", "notes"] == ["other data"]
    (only,) = bench(tmp_path, data, "s4", protocol="quick", overrides=small | {"arch.d_state": 8})
    assert only.record.overrides == {"arch.d_state": 8}


def test_the_best_trial_of_a_sweep_is_ranked(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", token_rows(150))
    small = {"model.d_model": 16, "train.max_samples": 64, "model.n_layers": 1}
    stored = bench(
        tmp_path, data, "transformer,s4", protocol="quick", overrides=small, sweep={"optim.lr": [0.001, 0.01]}
    )
    rows = make_board(stored).results
    ranked = rows[rows["rank"].notna()]
    assert sorted(ranked["architecture"]) == ["s4", "transformer"]
    assert all(tuned.startswith("best of 2: optim.lr=") for tuned in ranked["tuned"])


def test_plans_and_zoo_show_take_data_too(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", token_rows(150))
    (tmp_path / "plan.yaml").write_text(f"arch: s4\ndata: {data}\nprotocol: smoke\n")
    (planned,) = resolve(BenchRequest.read_plan(tmp_path / "plan.yaml"))
    (named,) = resolve(BenchRequest.parse("s4", data=data, protocol="smoke"))
    assert (planned.task, planned.hash) == ("rows", named.hash)
    shown = CliRunner().invoke(app, ["show", "s4", "--data", str(data), "--protocol", "smoke", "--json"])
    assert json.loads(shown.stdout)["config_hash"] == named.hash
    (tmp_path / "plan.yaml").write_text("arch: s4\nprotocol: smoke\n")
    with pytest.raises(zoo.UserError, match="task is missing"):
        BenchRequest.read_plan(tmp_path / "plan.yaml")


@pytest.mark.processes
def test_a_process_of_its_own_knows_the_task(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "text" / "rows.jsonl", token_rows(150)).parent  # called as a registered task is
    (record,) = (each.record for each in bench(tmp_path, data))
    assert record.task.name == "text_data"


# -- what is refused ---------------------------------------------------------------------------------------------------

GOOD = token_rows(60)


def refused(tmp_path: Path, data: Path, **overrides: Any) -> str:
    with pytest.raises(UserError) as caught, quiet():
        bench(tmp_path, data, overrides=overrides)
    assert not list((tmp_path / "runs").rglob("run.json"))
    assert not list((tmp_path / "results").rglob("*.json"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"input": [], "label": "few"}, "rows.jsonl:61: input: no tokens"),
        ({"input": [3, None], "label": "few"}, "rows.jsonl:61: input: expected text or an integer at position 1"),
        ({"input": 3, "label": "few"}, "rows.jsonl:61: input: expected a list of tokens, got 3"),
        ({"input": [3]}, "rows.jsonl:61: no 'label'"),
        ({"input": [3], "label": None}, "rows.jsonl:61: no 'label'"),
        ({"input": [3], "label": ["few"]}, "rows.jsonl:61: label: expected a label, got"),
        (None, "rows.jsonl:61: expected an object, got NoneType"),
    ],
)
def test_a_row_at_fault_is_named(tmp_path: Path, row: Any, says: str) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [*GOOD, row])
    assert says in refused(tmp_path, data)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([[0.5, 1.0], [float("nan"), 1.0]], "input: expected a finite number at position 1, got nan"),
        ([[0.5, 1.0], [1.0]], "input: ragged channels: 1 at position 1, 2 at the first"),
        ([[0.5], [1.0]], "input: 1 channels, the rows before have 2"),
        ([[0.5, "x"]], 'input: expected a finite number at position 0, got "x"'),
        ([[1e300, 0.0]], "input: a number that is too large for 32 bits"),
    ],
)
def test_numbers_at_fault_are_named(tmp_path: Path, value: Any, says: str) -> None:
    rows = [{"input": [[0.5 + k, 1.0], [2.0, 3.0]], "label": k % 2} for k in range(40)]
    data = write_jsonl(tmp_path / "rows.jsonl", [*rows, {"input": value, "label": 1}])
    assert f"rows.jsonl:41: {says}" in refused(tmp_path, data)


def test_one_class_one_number_and_a_label_that_training_has_not(tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", [{**row, "label": "x"} for row in GOOD])
    assert "column 'label' has one class, 'x', in all rows: nothing to learn" in refused(tmp_path, one)
    same = write_jsonl(tmp_path / "same.jsonl", [{**row, "label": 1.5} for row in GOOD])
    assert "column 'label' has one number in all training rows" in refused(tmp_path, same)
    folder = named_splits(tmp_path / "labels", token_rows(60))
    write_jsonl(folder / "test.jsonl", [{"input": [3, 3, 3], "label": "none"}])
    assert "test.jsonl:1: label: no training row has the label 'none'" in refused(tmp_path, folder)


def test_a_row_that_two_splits_share_is_named_in_both(tmp_path: Path) -> None:
    folder = named_splits(tmp_path / "shared", token_rows(100))
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    write_jsonl(folder / "test.jsonl", [{"input": [9, 9, 9], "label": "few"}, rows[7]])
    message = refused(tmp_path, folder)
    assert f"{folder}/train.jsonl:8 (train) has the same input as {folder}/test.jsonl:2 (test)" in message
    assert "data.duplicates=drop" in message


def test_text_that_is_not_utf8_is_named_by_line_and_byte(tmp_path: Path) -> None:
    data = tmp_path / "latin.csv"
    data.write_bytes(b"text,label\nfine,a\ncaf\xe9,b\n")
    assert "latin.csv:3: byte 21 is not UTF-8" in refused(tmp_path, data)
    folder = _made(tmp_path / "texts")
    (folder / "a.txt").write_bytes(b"one\ncaf\xe9\n")
    assert "a.txt:2: byte 7 is not UTF-8" in refused(tmp_path, folder)


def test_damaged_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("text,label\na,b\nc\n")
    assert "short.csv:3: 1 cells, the header has 2" in refused(tmp_path, tmp_path / "short.csv")
    (tmp_path / "open.csv").write_text('text,label\na,b\n"c,d\n')
    assert "open.csv:3: unexpected end of data" in refused(tmp_path, tmp_path / "open.csv")
    (tmp_path / "half.jsonl").write_text('{"input": [1], "label": 1}\n{"input": [1], "la')
    assert "half.jsonl:2: not JSON" in refused(tmp_path, tmp_path / "half.jsonl")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 is not enough")
    assert "no.parquet: damaged after row 0" in refused(tmp_path, tmp_path / "no.parquet")
    (tmp_path / "empty.csv").write_text("text,label\n")
    assert "empty.csv: no rows" in refused(tmp_path, tmp_path / "empty.csv")
    (tmp_path / "data.json").write_text("[]")
    assert "one JSON object a line is .jsonl" in refused(tmp_path, tmp_path / "data.json")
    assert "no such folder or file" in refused(tmp_path, tmp_path / "nothing")
    assert "no data there; expected *.jsonl, *.csv" in refused(tmp_path, _made(tmp_path / "bare"))


def test_settings_at_fault_are_named_by_key(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", GOOD)
    assert "data.input: rows.jsonl has no column 'text'; there are 'input', 'label'" in refused(
        tmp_path, data, **{"data.input": ["text"]}
    )
    assert "did you mean 'data.label'" in refused(tmp_path, data, **{"data.lable": "x"})
    assert "data.kind" in refused(tmp_path, data, **{"data.kind": "clasification"})
    assert "data.kind: pair_classification needs two columns" in refused(
        tmp_path, data, **{"data.kind": "pair_classification"}
    )
    odd = write_jsonl(tmp_path / "odd.jsonl", [{"first": [1], "second": [2], "third": 3}])
    assert "data.input: which column of odd.jsonl has the inputs? There are 'first', 'second', 'third'" in refused(
        tmp_path, odd
    )
    with pytest.raises(ConfigError, match=r"optim\.lrr: unknown key"):
        bench(tmp_path, data, sweep={"optim.lrr": [1, 2]})
    with pytest.raises(UserError, match="one of the two"):
        zoo.bench("transformer", "listops", data=data)
    with pytest.raises(UserError, match="has no protocol 'paper'; valid: smoke, quick"):
        bench(tmp_path, data, protocol="paper")


def test_a_file_of_no_split_beside_files_of_splits_is_named(tmp_path: Path) -> None:
    folder = named_splits(tmp_path / "f", token_rows(60))
    write_jsonl(folder / "more.jsonl", token_rows(5))
    assert "more.jsonl: its name says no split, as that of" in refused(tmp_path, folder)
    only = write_jsonl(tmp_path / "g" / "test.jsonl", token_rows(60)).parent
    assert "no file for training" in refused(tmp_path, only)
    few = write_jsonl(tmp_path / "few.jsonl", [{"input": [1], "label": 0}, {"input": [2], "label": 1}])
    assert "split is empty, of 2 rows" in refused(tmp_path, few)


# -- size --------------------------------------------------------------------------------------------------------------


def test_a_large_file_is_never_held_whole(tmp_path: Path) -> None:
    draw = random.Random(0)
    size = 0
    with (tmp_path / "large.csv").open("w") as file:
        file.write("text,label\n")
        for k in range(400):
            line = f"{draw.random()}" * 2_000
            file.write(f"w {line},{k % 2}\n")
            size += len(line)
    assert size > 12_000_000
    from zoo_own.table_data import TableRecipe

    tracemalloc.start()
    scan = Scan(tmp_path / "large.csv", DataSettings(), lambda done, total: None)
    _, scanned = tracemalloc.get_traced_memory()
    recipe = TableRecipe(scan, {})
    tracemalloc.reset_peak()
    first = next(iter(recipe.produce("train", 0, lambda split: iter(()))))
    tracemalloc.stop()
    assert scanned < size / 2
    assert len(first.lengths) > 0


def test_a_second_command_reads_no_row_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", token_rows(150))
    (first,) = resolve(BenchRequest.parse("transformer", data=data))

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("read again")

    monkeypatch.setattr("zoo_own.scan.read_rows", refuse)
    (second,) = resolve(BenchRequest.parse("transformer", data=data))
    assert first.id == second.id


def test_prepared_data_that_are_gone_or_damaged_are_named(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", token_rows(150))
    opened, _ = open_examples(data, "train")
    (opened.folder / "rows.data").write_bytes(b"")
    with pytest.raises(DataError, match=r"rows\.data: 0 bytes, expected"):
        opened.prepare()
    shutil.rmtree(opened.folder)
    with pytest.raises(DataError, match="the prepared data are gone; the same zoo bench --data prepares them again"):
        opened.prepare()
