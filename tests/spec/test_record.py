"""Records: what is sound, how they are written and never overwritten, how damaged ones are told."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.records import language, make, recall
from zoo.spec import record as records
from zoo.spec.errors import ZooError
from zoo.spec.record import comparable, read_all, validate, write, write_atomically


def test_the_schema_is_itself_valid() -> None:
    Draft202012Validator.check_schema(records.schema())


def test_round_trip(tmp_path: Path) -> None:
    record = make()
    assert validate(record) == []
    path = write(record, tmp_path)
    assert path.relative_to(tmp_path).as_posix() == "quick/listops/alpha/0123456789ab-s0.json"
    assert json.loads(path.read_text()) == record
    assert read_all(tmp_path) == ([record | {"path": path.relative_to(tmp_path).as_posix()}], [])


@pytest.mark.parametrize("status", ["out-of-memory", "diverged", "timeout", "interrupted", "failed"])
def test_a_failure_is_a_record_without_scores(status: str) -> None:
    failed = make(status=status)
    assert validate(failed) == []
    assert failed["metrics"] is None
    lying = failed | {"metrics": make()["metrics"]}
    assert validate(lying) == ["metrics: expected null, because the status is not ok"]
    assert any(fault.startswith("metrics: None is not of type 'object'") for fault in validate(make(metrics=None)))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("metrics", "test", "accuracy"), 17.5, "metrics.test.accuracy: 17.5 is greater than the maximum of 1"),
        (("metrics", "test", "n"), 0, "metrics.test.n"),
        (("status",), "oom", "status"),
        (("seed",), -1, "seed"),
        (("seed",), True, "seed: True is not of type 'integer'"),
        (("parameters",), "many", "parameters"),
        (("architecture", "name"), "../../etc", "architecture.name"),
        (("protocol",), "a/b", "protocol"),
        (("task", "name"), "listops\n", "task.name"),
        (("started",), "yesterday", "started"),
        (("started",), "2026-01-02T03:00:00+02:00", "started"),
        (("data", "kind"), "invented", "data.kind"),
        (("data", "files"), {"a.tsv": "short"}, "data.files.a.tsv"),
        (("history", 0, "split"), "test", "history.0.split"),
        (("baselines", "majority"), 2, "baselines.majority"),
        (("git", "commit"), 1, "git.commit"),
        (("schema",), 2, "schema: 2; this zoo reads 1"),
        (("schema",), "1", "schema: '1'; this zoo reads 1"),
    ],
)
def test_every_departure_is_named_by_its_field(path: tuple[Any, ...], value: Any, says: str) -> None:
    record = make()
    node = record
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    # an unknown status is not "ok" either, so its metrics are told as well
    faults = [fault for fault in validate(record) if path == ("metrics",) or not fault.startswith("metrics: ")]
    assert len(faults) == 1
    assert faults[0].startswith(says)


def test_every_field_is_required_and_no_other_is_allowed() -> None:
    record = make(metric={"name": "accuracy", "higher_is_better": True}, carried=False)
    assert set(record) == set(records.schema()["properties"])
    # what came after the first records were published: older ones are sound without it
    later = {"match", "metric", "carried"}
    assert set(record) - later == set(records.schema()["required"])
    for key in set(record) - later:
        faults = validate({k: v for k, v in record.items() if k != key})
        assert len(faults) == 1, faults
        assert key in faults[0]
    assert "surplus" in validate(record | {"surplus": 1})[0]


def test_records_of_questions_and_of_running_text(tmp_path: Path) -> None:
    grid = {(("length", 64), ("pairs", pairs)): accuracy for pairs, accuracy in ((4, 0.9), (8, 0.5))}
    far = {(("length", 512), ("pairs", 8)): 0.25}
    for record in (recall(test=grid), recall(test=grid, beyond=far), language(), language(carried=True)):
        assert validate(record) == []
        assert json.loads(write(record, tmp_path).read_text()) == record


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("metric", "name"), "Word perplexity", "metric.name"),
        (("metric",), {"name": "accuracy"}, "metric: 'higher_is_better' is a required property"),
        (("metric", "name"), "f1", "metrics.test: has no 'f1'"),
        (
            ("metrics", "test", "word_perplexity"),
            0.9,
            "metrics.test.word_perplexity: 0.9 is less than the minimum of 1",
        ),
        (("metrics", "test", "word_end_accuracy"), 1.5, "metrics.test.word_end_accuracy"),
        (("metrics", "test", "word_end_accuracy"), None, "metrics.test.word_end_accuracy"),
        (("metrics", "test", "stderr"), -0.1, "metrics.test.stderr"),
        (("metrics", "test", "answers"), 0, "metrics.test.answers"),
        (("metrics", "test", "answers"), 1.5, "metrics.test.answers"),
        (("metrics", "test", "f1"), "high", "metrics.test.f1"),
        (("metrics", "test", "f1"), None, "metrics.test.f1"),
        (("metrics", "test", "two words"), 1.0, "metrics.test"),
        (("metrics", "test", "groups"), [{"length": 64}], "metrics.test.groups.0: 'n' is a required property"),
        (("metrics", "test", "groups"), [{"n": 1, "length": "long"}], "metrics.test.groups.0.length"),
        (("metrics", "test", "groups"), [{"n": 1, "groups": []}], "metrics.test.groups.0"),
        (("metrics", "other"), {}, "metrics: Additional properties are not allowed"),
        (("carried",), "yes", "carried"),
        (("task", "kind"), "other", "task.kind"),
        (("baselines", "chance"), -1, "baselines.chance"),
    ],
)
def test_every_departure_of_later_fields_is_named_too(path: tuple[Any, ...], value: Any, says: str) -> None:
    record = language()
    node = record
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (fault,) = validate(record)
    assert fault.startswith(says)


def test_a_record_without_a_metric_has_accuracies_and_a_chance() -> None:
    record = make()
    assert records.ranked(record) == ("accuracy", True)
    assert not {"metric", "carried"} & set(record)
    for change in (
        {"metrics": record["metrics"] | {"test": {"loss": 1.0, "n": 10, "word_perplexity": 2.0}}},
        {"baselines": {"chance": None, "majority": None}},
        {"baselines": {"chance": 64.0, "majority": None}},
    ):
        assert validate(make() | change)
    assert records.ranked(language()) == ("word_perplexity", False)
    assert validate(language(status="diverged")) == []


def test_a_perplexity_that_is_not_finite_becomes_null_and_an_accuracy_may_not_be_so() -> None:
    test = language()["metrics"]["test"]
    group = {"n": 3, "length": 8, "word_perplexity": math.inf, "stderr": math.nan}
    bad = test | {"word_perplexity": math.inf, "bits_per_byte": math.nan, "stderr": math.inf, "groups": [group]}
    found = language(metrics={"val": test, "test": bad})
    assert validate(found) == []
    told = found["metrics"]["test"]
    assert (told["word_perplexity"], told["bits_per_byte"], told["stderr"]) == (None, None, None)
    assert told["groups"] == [{"n": 3, "length": 8, "word_perplexity": None, "stderr": None}]
    assert bad["groups"][0]["word_perplexity"] == math.inf
    with pytest.raises(ValueError, match="not JSON compliant"):
        language(metrics={"val": test, "test": test | {"word_end_accuracy": math.nan}})


def test_long_values_do_not_drown_the_message() -> None:
    assert all(len(fault) < 300 for fault in validate(make() | {"history": "x" * 10_000, "config": ["y" * 10_000]}))


@pytest.mark.parametrize("thing", [[], None, 3, "text"])
def test_what_is_no_object_is_no_record(thing: Any) -> None:
    assert validate(thing) == [f"expected an object, found {type(thing).__name__}"]


def test_numbers_that_are_not_finite_become_null_in_curves_only() -> None:
    point = {"step": 1, "samples": 1, "seconds": 0.5, "split": "val", "loss": math.nan, "metric": 0.0}
    record = make(status="diverged", history=[point, point | {"loss": math.inf}])
    assert [p["loss"] for p in record["history"]] == [None, None]
    assert math.isnan(point["loss"])
    with pytest.raises(ValueError, match="not JSON compliant"):
        make(tokens_per_second=math.inf)
    with pytest.raises(TypeError):
        make(config={"x": object()})


def test_comparable_leaves_out_times_and_nothing_else() -> None:
    first = make()
    later = make(
        ended="2027-01-01T00:00:00Z",
        started="2026-12-31T00:00:00Z",
        seconds={"train": 99.0, "eval": 9.0},
        tokens_per_second=97.0,
        peak_memory_bytes=1,
        command="zoo bench --results elsewhere",
        hardware={"cpu": "another"},
        history=[point | {"seconds": 50.0} for point in first["history"]],
    )
    assert comparable(first) == comparable(later | {"path": "somewhere"})
    for change in (
        {"history": [first["history"][0] | {"loss": 2.0000000000000004}, first["history"][1]]},
        {"metrics": {"val": first["metrics"]["val"], "test": first["metrics"]["test"] | {"accuracy": 0.501}}},
        {"seed": 1},
        {"samples": 97},
        {"plugin": first["plugin"] | {"source_hash": "cd"}},
        {"status": "failed", "metrics": None},
    ):
        assert comparable(make(**change)) != comparable(first)


# -- writing -------------------------------------------------------------------------------------------------------


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    paths = [write(make(accuracy=a), tmp_path) for a in (0.5, 0.6, 0.7)]
    assert [p.name for p in paths] == ["0123456789ab-s0.json", "0123456789ab-s0-2.json", "0123456789ab-s0-3.json"]
    assert [json.loads(p.read_text())["metrics"]["test"]["accuracy"] for p in paths] == [0.5, 0.6, 0.7]
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


def test_unsound_records_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"metrics\.test\.accuracy"):
        write(make(accuracy=50.0), tmp_path)
    with pytest.raises(ZooError, match="expected 'quick/listops/alpha/0123456789ab-s0'"):
        write(make() | {"id": "../../elsewhere"}, tmp_path)
    with pytest.raises(ZooError, match="path"):
        write(make() | {"path": "x"}, tmp_path)
    assert list(tmp_path.iterdir()) == []


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
    wanted = [make(accuracy=k / 100) for k in range(24)]
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda r: write(r, tmp_path), wanted))
    assert len(set(paths)) == 24
    found, problems = read_all(tmp_path)
    assert problems == []
    assert sorted(r["metrics"]["test"]["accuracy"] for r in found) == [k / 100 for k in range(24)]
    assert list(tmp_path.rglob("*.tmp")) == []


# -- reading -------------------------------------------------------------------------------------------------------

DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty.json": (b"", "not JSON: Expecting value (line 1)"),
    "cut.json": (json.dumps(make(), indent=1).encode()[:700], "not JSON"),
    "binary.json": (b"\xff\xfe\x00", "not UTF-8 text (byte 0)"),
    "list.json": (b"[1, 2]", "expected an object, found list"),
    "package.json": (b'{"name": "something", "version": "1.0"}', "not a record of zoo"),
    "deep.json": (b"[" * 200_000, "not JSON"),
    "nan.json": (b'{"schema": 1, "status": NaN}', "not JSON: NaN is no JSON number"),
    "digits.json": (b'{"schema": ' + b"9" * 5000 + b"}", "not JSON"),
    "newer.json": (json.dumps(make() | {"schema": 7}).encode(), "schema: 7; this zoo reads 1"),
    "partial.json": (b'{"schema": 1, "status": "ok"}', "(and "),
}


def test_damaged_and_foreign_files_are_named_and_skipped(tmp_path: Path) -> None:
    for name, (content, _) in DAMAGED.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "gone.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "notes.txt").write_text("not ours to judge")
    write(make(), tmp_path)
    found, problems = read_all(tmp_path)
    assert [r["id"] for r in found] == ["quick/listops/alpha/0123456789ab-s0"]
    reasons = dict(problems)
    assert sorted(reasons) == sorted([*DAMAGED, "quick/gone.json"])
    for name, (_, says) in DAMAGED.items():
        assert says in reasons[name]
    assert reasons["quick/gone.json"] == "cannot be read: No such file or directory"


def test_no_directory_holds_no_records(tmp_path: Path) -> None:
    assert read_all(tmp_path / "nowhere") == ([], [])


def test_where_records_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_RESULTS_DIR", "/elsewhere")
    assert records.default_results_dir() == Path("/elsewhere")
    monkeypatch.delenv("ZOO_RESULTS_DIR")
    assert records.default_results_dir() == Path("leaderboard/results")


def test_records_need_no_torch() -> None:
    code = "import sys, zoo.spec.record as r; r.validate({'schema': 1}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_builder_copies(tmp_path: Path) -> None:
    config = {"model": {"d_model": 64}}
    record = make(config=config)
    before = copy.deepcopy(record)
    config["model"]["d_model"] = 1
    write(record, tmp_path)
    assert record == before
