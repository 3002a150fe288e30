"""Records: what is valid, how they are written and never overwritten, how damaged files are reported."""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

import zoo.spec.record
from tests.records import changed, language, make, recall
from zoo.board.checks import record_faults
from zoo.spec.files import default_results_dir, write_atomically
from zoo.spec.record import Record, comparable, pack_bits, schema_text, unpack_bits
from zoo.spec.store import StoredRecord, describe, read_all, write


def faults(fields: dict[str, Any]) -> list[str]:
    """A line for each fault of these fields; none where they are a valid record."""
    try:
        Record.model_validate(fields)
    except ValidationError as error:
        return describe(error)
    return []


def test_the_schema_file_is_current_and_fits() -> None:
    """To renew: python -m zoo.spec.record > zoo/spec/record.schema.json"""
    text = Path(zoo.spec.record.__file__).with_name("record.schema.json").read_text(encoding="utf-8")
    assert text == schema_text()
    schema = json.loads(text)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for record in (make(), make(status="failed"), recall(test={(("length", 64),): 0.5}), language()):
        validator.validate(record.model_dump(mode="json"))
    assert not validator.is_valid(changed(make(), "seed", value=-1))


def test_round_trip(tmp_path: Path) -> None:
    record = make()
    path = write(record, tmp_path)
    assert path.relative_to(tmp_path).as_posix() == "quick/listops/alpha/0123456789ab-s0.json" == f"{record.id}.json"
    assert json.loads(path.read_text()) == record.model_dump(mode="json")
    assert read_all(tmp_path) == ([StoredRecord(path.relative_to(tmp_path).as_posix(), record)], [])


@pytest.mark.parametrize("status", ["out-of-memory", "diverged", "timeout", "interrupted", "failed"])
def test_a_failure_is_a_record_without_scores(status: str) -> None:
    failed = make(status=status)
    assert failed.metrics is None
    scores = make().model_dump(mode="json")["metrics"]
    assert faults(changed(failed, "metrics", value=scores)) == [
        f"metrics: expected null, because the status is {status!r}"
    ]
    assert faults(changed(make(), "metrics", value=None)) == ["metrics: expected scores, because the status is 'ok'"]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (
            ("metrics", "test", "scores", "accuracy"),
            17.5,
            "metrics.test.scores: accuracy: expected a number from 0 to 1",
        ),
        (("metrics", "test", "n"), 0, "metrics.test.n: Input should be greater than or equal to 1, got 0"),
        (("status",), "oom", "status: Input should be 'ok', 'out-of-memory', 'diverged'"),
        (("seed",), -1, "seed"),
        (("seed",), True, "seed: Input should be a valid integer, got True"),
        (("parameters",), "many", "parameters"),
        (("architecture", "name"), "../../etc", "architecture.name"),
        (("protocol",), "a/b", "protocol"),
        (("task", "name"), "listops\n", "task.name"),
        (("started",), "yesterday", "started"),
        (("started",), "2026-01-02T03:00:00+02:00", "started"),
        (("data", "kind"), "invented", "data.kind"),
        (("data", "files"), {"a.tsv": "short"}, "data.files.a.tsv"),
        (("data", "seed"), None, "data: expected 'seed' or 'files'"),
        (("history", 0, "split"), "test", "history.0.split"),
        (("baselines", "majority"), 2, "baselines.majority"),
        (("git", "commit"), 1, "git.commit"),
        (("schema_version",), 3, "schema_version"),
        (("config",), {"x": math.nan}, "config: Out of range float values"),
        (("config",), {"x": object()}, "config: Object of type object is not JSON"),
        (("tokens_per_second",), math.inf, "tokens_per_second: Input should be a finite number, got inf"),
    ],
)
def test_every_departure_is_named_by_its_field(path: tuple[Any, ...], value: Any, says: str) -> None:
    (fault,) = faults(changed(make(), *path, value=value))
    assert fault.startswith(says)


LATER = {"micro_batch_size", "init"}
"""Fields that records of this schema had not from the beginning."""


def test_every_field_is_required_and_no_other_is_allowed() -> None:
    fields = make().model_dump(mode="json")
    assert set(fields) == set(Record.model_fields)
    for key in set(fields) - {"schema_version"} - LATER:
        assert faults({k: v for k, v in fields.items() if k != key}) == [f"{key}: Field required"]
    assert faults(fields | {"surplus": 1}) == ["surplus: Extra inputs are not permitted"]


def test_records_of_questions_and_of_running_text(tmp_path: Path) -> None:
    grid = {(("length", 64), ("pairs", pairs)): accuracy for pairs, accuracy in ((4, 0.9), (8, 0.5))}
    far = {(("length", 512), ("pairs", 8)): 0.25}
    for record in (recall(test=grid), recall(test=grid, beyond=far), language(), language(stateful=True)):
        assert json.loads(write(record, tmp_path).read_text()) == record.model_dump(mode="json")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("metric", "name"), "Word perplexity", "metric.name"),
        (("metric",), {"name": "accuracy"}, "metric.higher_is_better: Field required"),
        (("metric", "name"), "f1", "metrics.test.scores: has no 'f1'"),
        (
            ("metrics", "test", "scores", "word_perplexity"),
            0.9,
            "metrics.test.scores: word_perplexity: expected a number from 1, got 0.9",
        ),
        (("metrics", "test", "scores", "word_end_accuracy"), 1.5, "metrics.test.scores: word_end_accuracy"),
        (("metrics", "test", "scores", "word_end_accuracy"), None, "metrics.test.scores: word_end_accuracy"),
        (("metrics", "test", "stderr"), -0.1, "metrics.test.stderr"),
        (("metrics", "test", "answers"), 0, "metrics.test.answers"),
        (("metrics", "test", "answers"), 1.5, "metrics.test.answers"),
        (("metrics", "test", "scores", "f1"), "high", "metrics.test.scores.f1"),
        (("metrics", "test", "scores", "f1"), None, "metrics.test.scores: f1: expected a finite number, got None"),
        (("metrics", "test", "scores", "two words"), 1.0, "metrics.test.scores.two words: String should match"),
        (
            ("metrics", "test", "groups"),
            [{"at": {"length": 64}, "scores": {}}],
            "metrics.test.groups.0.n: Field required",
        ),
        (
            ("metrics", "test", "groups"),
            [{"n": 1, "at": {"length": "long"}, "scores": {}}],
            "metrics.test.groups.0.at.length",
        ),
        (
            ("metrics", "test", "groups"),
            [{"n": 1, "at": {}, "scores": {}, "groups": []}],
            "metrics.test.groups.0.groups: Extra inputs",
        ),
        (("metrics", "other"), {}, "metrics.other: Extra inputs are not permitted"),
        (("stateful",), "yes", "stateful"),
        (("task", "kind"), "", "task.kind"),
        (("baselines", "chance"), -1, "baselines.chance"),
    ],
)
def test_every_departure_of_a_language_record_is_named(path: tuple[Any, ...], value: Any, says: str) -> None:
    fault, *_ = faults(changed(language(), *path, value=value))
    assert fault.startswith(says)


def test_a_perplexity_that_is_not_finite_becomes_null_and_an_accuracy_may_not_be_so() -> None:
    test = language().model_dump(mode="json")["metrics"]["test"]
    group = {"n": 3, "at": {"length": 8}, "scores": {"word_perplexity": math.inf}, "stderr": math.nan}
    scores = test["scores"] | {"word_perplexity": math.inf, "bits_per_byte": math.nan}
    bad = test | {"scores": scores, "stderr": math.inf, "groups": [group]}
    record = language(metrics={"val": test, "test": bad})
    assert record.metrics is not None
    read = record.metrics.test
    assert (read.scores["word_perplexity"], read.scores["bits_per_byte"], read.stderr) == (None, None, None)
    (part,) = read.groups
    assert (part.at, part.scores, part.stderr) == ({"length": 8}, {"word_perplexity": None}, None)
    assert scores["word_perplexity"] == math.inf
    with pytest.raises(ValidationError, match="word_end_accuracy: expected a finite number"):
        language(metrics={"val": test, "test": test | {"scores": scores | {"word_end_accuracy": math.nan}}})


def test_long_values_do_not_drown_the_message() -> None:
    fields = make().model_dump(mode="json")
    assert all(len(fault) < 300 for fault in faults(fields | {"history": "x" * 10_000, "git": ["y" * 10_000]}))


def test_losses_that_are_not_finite_become_null_in_the_history() -> None:
    point = {"step": 1, "samples": 1, "seconds": 0.5, "split": "val", "loss": math.nan, "metric": 0.0}
    record = make(status="diverged", history=[point, point | {"loss": math.inf}])
    assert [p.loss for p in record.history] == [None, None]
    assert math.isnan(point["loss"])
    with pytest.raises(ValidationError, match=r"history\.0\.seconds"):
        make(history=[point | {"seconds": math.inf}])


def test_comparable_leaves_out_times_and_nothing_else() -> None:
    first = make()
    history = [point.model_dump() for point in first.history]
    later = make(
        ended="2027-01-01T00:00:00Z",
        started="2026-12-31T00:00:00Z",
        seconds={"train": 99.0, "eval": 9.0},
        tokens_per_second=97.0,
        peak_memory_bytes=1,
        command="zoo bench --results elsewhere",
        hardware={"cpu": "another"},
        history=[point | {"seconds": 50.0} for point in history],
    )
    assert comparable(first) == comparable(later)
    other = changed(first, "metrics", "test", "scores", "accuracy", value=0.501)["metrics"]
    for change in (
        {"history": [history[0] | {"loss": 2.0000000000000004}, history[1]]},
        {"metrics": other},
        {"seed": 1},
        {"samples": 97},
        {"plugin": first.plugin.model_dump() | {"source_hash": "cd"}},
        {"status": "failed", "metrics": None},
    ):
        assert comparable(make(**change)) != comparable(first)


# -- writing -------------------------------------------------------------------------------------------------------


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    paths = [write(make(accuracy=a), tmp_path) for a in (0.5, 0.6, 0.7)]
    assert [p.name for p in paths] == ["0123456789ab-s0.json", "0123456789ab-s0-2.json", "0123456789ab-s0-3.json"]
    assert [json.loads(p.read_text())["metrics"]["test"]["scores"]["accuracy"] for p in paths] == [0.5, 0.6, 0.7]
    assert write(make(accuracy=0.6), tmp_path) == paths[1]
    assert len(list(tmp_path.rglob("*.json"))) == 3


def test_a_foreign_file_or_a_dangling_link_in_the_place_is_left_alone(tmp_path: Path) -> None:
    path = write(make(), tmp_path)
    path.write_text("mine")
    assert write(make(), tmp_path).name.endswith("-s0-2.json")
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert write(make(accuracy=0.9), tmp_path).name.endswith("-s0-3.json")
    assert path.is_symlink()


@pytest.mark.parametrize("fails", ["fsync", "link"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space left"):
        write(make(), tmp_path)
    assert [f for f in tmp_path.rglob("*") if f.is_file()] == []


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = tmp_path / "deep" / "README.md"
    write_atomically(board, "old\n")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(board, "new\n")
    assert board.read_text() == "old\n"
    assert list(board.parent.iterdir()) == [board]


def test_file_systems_without_links_work_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*args: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    first, second = write(make(), tmp_path), write(make(accuracy=0.6), tmp_path)
    assert (first.name, second.name) == ("0123456789ab-s0.json", "0123456789ab-s0-2.json")
    assert len(list(first.parent.iterdir())) == 2


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    records = [make(accuracy=k / 100) for k in range(24)]
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda r: write(r, tmp_path), records))
    assert len(set(paths)) == 24
    stored, problems = read_all(tmp_path)
    assert problems == []
    scores = [record.metrics.test.scores["accuracy"] for _, record in stored if record.metrics]
    assert sorted(scores) == [k / 100 for k in range(24)]
    assert list(tmp_path.rglob("*.tmp")) == []


# -- reading -------------------------------------------------------------------------------------------------------

TEXT = json.dumps(make().model_dump(mode="json"), indent=1)
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty.json": (b"", "not JSON: Expecting value: line 1"),
    "cut.json": (TEXT.encode()[:700], "not JSON"),
    "binary.json": (b"\xff\xfe\x00", "not JSON: 'utf-8' codec can't decode byte 0xff in position 0"),
    "list.json": (b"[1, 2]", "expected an object, got list"),
    "package.json": (b'{"name": "something", "version": "1.0"}', "not a record of zoo"),
    "deep.json": (b"[" * 200_000, "not JSON"),
    "nan.json": (b'{"schema_version": 2, "status": NaN}', "not JSON: NaN is not a JSON number"),
    "digits.json": (b'{"schema_version": ' + b"9" * 5000 + b"}", "not JSON"),
    "newer.json": (TEXT.replace('"schema_version": 2', '"schema_version": 7').encode(), "schema_version: 7; this zoo"),
    "text.json": (b'{"schema_version": "2"}', "schema_version: '2'; this zoo reads 2"),
    "older.json": (b'{"schema": 1, "status": "ok"}', "schema_version: 1; this zoo reads 2"),
    "partial.json": (b'{"schema_version": 2, "status": "ok"}', "architecture: Field required (and "),
}


def test_damaged_and_foreign_files_are_named_and_skipped(tmp_path: Path) -> None:
    for name, (content, _) in DAMAGED.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "gone.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "notes.txt").write_text("not ours to judge")
    write(make(), tmp_path)
    stored, problems = read_all(tmp_path)
    assert [record.id for _, record in stored] == ["quick/listops/alpha/0123456789ab-s0"]
    reasons = dict(problems)
    assert sorted(reasons) == sorted([*DAMAGED, "quick/gone.json"])
    for name, (_, says) in DAMAGED.items():
        assert says in reasons[name]
    assert reasons["quick/gone.json"] == "cannot be read: No such file or directory"


def test_no_directory_holds_no_records(tmp_path: Path) -> None:
    assert read_all(tmp_path / "nowhere") == ([], [])


def test_where_records_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_RESULTS_DIR", "/elsewhere")
    assert default_results_dir() == Path("/elsewhere")
    monkeypatch.delenv("ZOO_RESULTS_DIR")
    assert default_results_dir() == Path("leaderboard/results")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import zoo.spec.record, zoo.spec.store", {"torch", "pandas"}),
        ("import zoo, zoo.cli.listing; zoo.registry()", {"torch", "pandas", "pydantic", "altair"}),
    ],
)
def test_what_is_not_imported(code: str, absent: set[str]) -> None:
    code += f"; import sys; sys.exit(', '.join({absent!r} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_record_does_not_change_with_what_it_was_made_of() -> None:
    config = {"model": {"d_model": 64}}
    record = make(config=config)
    config["model"]["d_model"] = 1
    assert record.config == {"model": {"d_model": 64}}


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bits_come_back_from_their_text(bits: list[bool]) -> None:
    packed = pack_bits(bits)
    assert unpack_bits(packed, len(bits)) == bits
    assert len(base64.b64decode(packed)) == -(-len(bits) // 8)
    with pytest.raises(ValueError, match="bytes for"):
        unpack_bits(packed, len(bits) + 8)


def test_answers_that_contradict_the_accuracy_are_a_fault() -> None:
    def with_bits(text: str) -> StoredRecord:
        fields = make(accuracy=0.75, n=4).model_dump(mode="json")
        fields["metrics"]["test"]["right"] = text
        record = Record.model_validate(fields)
        return StoredRecord(f"{record.id}.json", record)

    assert not record_faults(with_bits(pack_bits([True, True, False, True])))
    assert record_faults(with_bits(pack_bits([True, True, False, False]))) == [
        "metrics.test.right: 2 of 4 questions, but accuracy is 0.75"
    ]
    assert record_faults(with_bits(pack_bits([True] * 9))) == ["metrics.test.right: 2 bytes for 4 bits"]
