"""The published key-value files: their layout, what is made of them, and damage by name."""

from __future__ import annotations

import gzip
import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from tests.benchmarks.test_recall import by_hand
from zoo.data.paths import save_location
from zoo.data.prepare import open_task
from zoo_recall.kv_retrieval import KvRetrievalData


def layout(folder: Path, pairs: int, rows: int = 6) -> Path:
    """A made-up file in the published layout; the queried pair is anywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(pairs)  # its stream is frozen by NumPy's promise
    path = folder / f"kv-retrieval-{pairs}_keys.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for _ in range(rows):
            words = [str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(2 * pairs)]
            records = [list(pair) for pair in zip(words[::2], words[1::2], strict=True)]
            key, value = records[rng.randint(pairs)]
            file.write(json.dumps({"ordered_kv_records": records, "key": key, "value": value}) + "\n")
    return path


def opened(path: Path | str, root: Path | None = None, /, **options: Any) -> KvRetrievalData:
    small = {
        "form": "text",
        "seq_len": 900,
        "train_pairs": [5],
        "test_pairs": [5],
        "generalization_pairs": [9],
        "positions": 3,
    }
    given = {f"task.{k}": v for k, v in {**small, "group_size": 4, "path": str(path), **options}.items()}
    data = open_task(zoo.registry().task("kv_retrieval").record, "smoke", given, root)
    assert isinstance(data, KvRetrievalData)
    return data


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("below", ["", "kv_retrieval_data", "lost-in-the-middle/kv_retrieval_data"])
def test_questions_are_those_of_the_files_with_the_pair_moved(tmp_path: Path, below: str) -> None:
    files = {n: layout(tmp_path / below, n) for n in (5, 9)}
    data = opened(tmp_path)
    data.prepare()
    assert data.verify() == []
    for split, pairs in (("test", 5), ("length_generalization", 9)):
        rows, groups = data.dataset(split), data.groups(split)  # type: ignore[arg-type]
        assert [g["position"] for g in groups] == [0, (pairs - 1) // 2, pairs - 1]
        assert len(rows) == 3 * 4
        for i, question in enumerate(rows[k] for k in range(len(rows))):
            record = read(files[pairs])[i % 4]
            assert by_hand("kv_retrieval", data, question) == question.answer.tolist()
            text = bytes((question.prompt - 1).tolist()).decode()
            assert bytes((question.answer - 1).tolist()).decode() == record["value"]
            assert text.endswith(f'Key: "{record["key"]}"\nCorresponding value:')
            listed = [list(pair) for pair in re.findall(r'"(\S{36})": "(\S{36})"', text)]
            assert listed.pop(groups[question.group]["position"]) == [record["key"], record["value"]]
            assert listed == [pair for pair in record["ordered_kv_records"] if pair[0] != record["key"]]
            assert len(question.prompt) + 37 == groups[question.group]["length"]
    told = data.provenance()
    assert told["kind"] == "part"
    assert sorted(told["files"]) == sorted(path.name for path in files.values())
    assert told["notes"][0] == f"{files[5].name} has 6 questions, the published one 500"


def test_training_is_generated_beside_published_questions(tmp_path: Path) -> None:
    layout(tmp_path, 5)
    ours, theirs = opened("").dataset("train"), opened(tmp_path).dataset("train")
    assert all(np.array_equal(ours[i].prompt, theirs[i].prompt) for i in range(10))


def test_files_that_were_named_once_are_found_again(tmp_path: Path) -> None:
    layout(tmp_path / "files", 5)
    root = tmp_path / "root"
    assert opened("", root).provenance()["kind"] == "regenerated"
    save_location(root, "kv_retrieval", tmp_path / "files")
    assert opened("", root).provenance()["kind"] == "part"
    assert opened("", root, form="symbols", key_len=2).provenance()["kind"] == "regenerated"


def test_a_missing_larger_file_is_said_and_a_missing_one_of_test_refused(tmp_path: Path) -> None:
    layout(tmp_path, 5)
    data = opened(tmp_path)
    assert not data.has("length_generalization")
    assert "no kv-retrieval-9_keys.jsonl.gz: no questions with 9 pairs" in data.provenance()["notes"]
    with pytest.raises(zoo.MissingFiles, match="no kv-retrieval-4_keys"):
        opened(tmp_path, test_pairs=[4, 5]).prepare()
    with pytest.raises(zoo.MissingFiles, match="no kv-retrieval-5_keys"):
        opened(tmp_path / "nowhere").prepare()


def rewritten(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        rows = read(path)
        change(rows)
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))

    return damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def no_gzip(path: Path) -> None:
    path.write_text("{}\n")


def empty(path: Path) -> None:
    path.write_bytes(gzip.compress(b""))


def not_utf8(path: Path) -> None:
    path.write_bytes(gzip.compress(b'{"key": "\xff"}\n'))


def no_json(path: Path) -> None:
    path.write_bytes(gzip.compress(b"{}\nkey\n"))


def fewer(rows: list[dict[str, Any]]) -> None:
    rows[2]["ordered_kv_records"].pop()


def no_uuid(rows: list[dict[str, Any]]) -> None:
    rows[2]["ordered_kv_records"][0][1] = "seven"


def other_value(rows: list[dict[str, Any]]) -> None:
    rows[2]["value"] = str(uuid.UUID(int=1, version=4))


def twice(rows: list[dict[str, Any]]) -> None:
    rows[2]["ordered_kv_records"][0] = rows[2]["ordered_kv_records"][1]


def same_question(rows: list[dict[str, Any]]) -> None:
    rows[2] = rows[0]


def no_key(rows: list[dict[str, Any]]) -> None:
    del rows[2]["key"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "cut short or damaged after line"),
        (no_gzip, "cut short or damaged after line 0"),
        (empty, "no questions"),
        (not_utf8, "cut short or damaged after line 0"),
        (no_json, r"gz:1: not a question"),
        (rewritten(fewer), ":3: 4 pairs, expected 5"),
        (rewritten(no_uuid), ":3: 'seven' is not a UUID"),
        (rewritten(other_value), ":3: the queried pair"),
        (rewritten(twice), ":3: a key occurs twice"),
        (rewritten(same_question), ":3: queries the same key as line 1"),
        (rewritten(no_key), ":3: not a question .KeyError: 'key'."),
    ],
)
def test_damage_is_named_by_file_and_line(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    path = layout(tmp_path, 5)
    damage(path)
    with pytest.raises(zoo.DataError, match=f"{re.escape(str(path.parent))}.*{says}"):
        opened(tmp_path).prepare()
    assert any(re.search(says, fault) for fault in opened(tmp_path).verify())
