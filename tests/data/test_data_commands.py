"""`zoo data`: JSON alone on stdout, errors that name things."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import zoo
from zoo.cli.data import app

SMALL = ["--set", "task.train_size=12", "--set", "task.val_size=4", "--set", "task.test_size=4"]


def call(*args: str) -> list[dict]:
    result = CliRunner().invoke(app, [*args, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_prepare_list_verify_sample_stats() -> None:
    rows = call("prepare", "listops,pathfinder", "--protocol", "smoke")
    assert [row["task"] for row in rows] == ["listops", "pathfinder"]
    assert rows[0]["provenance"]["kind"] == "regenerated"
    listed = {(row["task"], row["protocol"]): row["prepared"] for row in call("list")}
    assert listed["listops", "smoke"]
    assert not listed["listops", "paper"]
    assert call("verify", "listops", "--protocol", "smoke")[0]["ok"]
    assert call("sample", "listops", "--protocol", "smoke", "--index", "3")[0]["length"] <= 64
    assert [row["n"] for row in call("stats", "listops", "--protocol", "smoke")] == [256, 64, 64]


def test_data_commands_import_no_torch() -> None:
    code = (
        "import sys; from zoo.cli.data import app; from typer.testing import CliRunner\n"
        "for verb in (['list'], *([v, 'listops', '--protocol', 'smoke'] for v in ('prepare', 'verify', 'stats')),"
        " ['sample', 'mqar', '--protocol', 'smoke']):\n"
        "    done = CliRunner().invoke(app, verb); assert done.exit_code == 0, done\n"
        "print([name for name in ('torch', 'lightning', 'transformers', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_export_defaults_to_the_published_law(tmp_path: Path) -> None:
    rows = call("export", "listops", "--to", str(tmp_path / "out"), "--limit", "12")
    assert rows[0]["counts"] == {"train": 10, "val": 1, "test": 1}
    expression = (tmp_path / "out" / "basic_test.tsv").read_text().splitlines()[1].split("\t")[0]
    assert 500 < sum(token not in "()" for token in expression.split()) < 2000


def test_verify_names_damage_and_force_mends_it() -> None:
    folder = Path(call("prepare", "pathfinder", "--protocol", "smoke", *SMALL)[0]["folder"])
    (folder / "train.data").write_bytes(b"")
    result = CliRunner().invoke(app, ["verify", "pathfinder", "--protocol", "smoke", *SMALL])
    assert isinstance(result.exception, zoo.DataError)
    assert "train.data: 0 bytes, expected" in str(result.exception)
    assert call("prepare", "pathfinder", "--protocol", "smoke", *SMALL, "--force")[0]["prepared"]
    assert call("verify", "pathfinder", "--protocol", "smoke", *SMALL)[0]["ok"]


def test_list_survives_a_damaged_folder() -> None:
    folder = Path(call("prepare", "listops", "--protocol", "smoke", *SMALL)[0]["folder"])
    (folder / "manifest.json").write_text("{")
    row = next(r for r in call("list", *SMALL) if r["task"] == "listops" and r["protocol"] == "smoke")
    assert row["kind"] == "damaged"
    assert str(folder / "manifest.json") in row["problem"]


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["prepare", "listop"], "did you mean 'listops'"),
        (["prepare", "listops", "--protocol", "papper"], "did you mean 'paper'"),
        (["prepare", "listops", "--set", "task.maxlen=3"], r"did you mean 'task\.max_len'"),
        (["sample", "listops", "--split", "tests"], "did you mean 'test'"),
        (["export", "listops", "--to", "x", "--limit", "2"], "at least 3"),
        (["export", "listops,pathfinder", "--to", "x", "--limit", "9"], "unknown task 'listops,pathfinder'"),
        (["prepare", " , "], "no name given"),
        (["prepare", "listops", "--set", "task.seq_len=${nowhere}"], "expected integer >= 2, got"),
    ],
)
def test_mistakes_are_told(args: list[str], complaint: str) -> None:
    with pytest.raises(zoo.UserError, match=complaint):
        CliRunner().invoke(app, args, catch_exceptions=False)


# -- questions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["mqar", "selective_copying", "induction_heads", "needle", "kv_retrieval"])
def test_questions_are_sampled_counted_and_verified(task: str) -> None:
    smoke = ["--protocol", "smoke"]
    row = call("sample", task, *smoke, "--split", "test", "--index", "1")[0]
    assert len(row["inputs"]) == row["length"]
    assert row["target"] is None
    assert row["answers"] == sum(label != -100 for label in row["labels"]) > 0
    other = call("sample", task, *smoke, "--split", "test", "--index", "1", "--objective", "seq2seq")[0]
    assert len(other["target"]) == len(other["labels"])
    shown = CliRunner().invoke(app, ["sample", task, *smoke], catch_exceptions=False).stdout
    assert shown.startswith(f"{task} train 0: length ")
    assert len(shown.splitlines()) > 1
    splits = {row["split"]: row for row in call("stats", task, *smoke)}
    assert set(splits) >= {"train", "val", "test"}
    for row in splits.values():
        assert row["answers"]["tokens"] >= row["looked_at"]
        assert sum(row["lengths"]["counts"]) == row["looked_at"]
        assert row["truncated"] == 0
        assert sum(group["n"] for group in row["groups"]) in (0, row["looked_at"])
    assert call("verify", task, *smoke)[0] == {
        "task": task,
        "protocol": "smoke",
        "problems": [],
        "ok": True,
        "state": "ok",
    }


def test_tables_of_questions_are_printed() -> None:
    printed = CliRunner().invoke(app, ["stats", "mqar", "--protocol", "smoke"], catch_exceptions=False).stdout
    assert "tokens" in printed.splitlines()[0]
    assert "test: groups of the" in printed


def test_questions_are_exported_as_json_lines(tmp_path: Path) -> None:
    counts = call("export", "mqar", "--to", str(tmp_path / "out"), "--protocol", "smoke", "--limit", "20")[0]["counts"]
    assert sum(counts.values()) == 20
    shown = call("sample", "mqar", "--protocol", "smoke", "--split", "test")[0]
    first = json.loads((tmp_path / "out" / "test.jsonl").read_text().splitlines()[0])
    assert first["ids"] == shown["inputs"]
    assert [-100 if label is None else label for label in first["labels"]] == shown["labels"]
    assert first["pairs"] == shown["group"]["pairs"]
    answers = call("export", "needle", "--to", str(tmp_path / "needle"), "--protocol", "smoke", "--limit", "12")[0]
    line = json.loads((tmp_path / "needle" / "val.jsonl").read_text().splitlines()[0])
    assert {"prompt", "answer"} <= set(line)
    assert answers["counts"]["val"] >= 1


def test_one_table_lists_what_there_is() -> None:
    call("prepare", "listops", "--protocol", "smoke")
    lines = CliRunner().invoke(app, ["list"], catch_exceptions=False).stdout.splitlines()
    rows = {line.split()[0]: line for line in lines[1 : lines.index("")]}
    assert lines[0].split()[:3] == ["task", "files", "prepared"]
    assert "generated" in rows["listops"]
    assert "smoke" in rows["listops"]
    assert " kB " in rows["listops"]
    assert "missing" in rows["text"]
    assert "84.1 MB" in rows["text"]
    assert "cite Maas" in rows["text"]
    assert "ai.stanford.edu" in rows["text"]
    assert "made as needed" in rows["mqar"]
    assert any(line.startswith("text needs files: aclImdb_v1.tar.gz") for line in lines)
    with pytest.raises(zoo.ConfigError, match=r"did you mean 'task\.max_len'"):
        CliRunner().invoke(app, ["list", "--set", "task.maxlen=3"], catch_exceptions=False)


def test_verify_tells_what_is_missing_damaged_and_not_prepared() -> None:
    folder = Path(call("prepare", "pathfinder", "--protocol", "smoke", *SMALL)[0]["folder"])
    (folder / "train.ends").unlink()
    result = CliRunner().invoke(app, ["verify", "pathfinder,listops,text", "--protocol", "smoke", *SMALL])
    states = [line.split("  ")[-1].strip() for line in result.stdout.splitlines()[1:]]
    assert states == ["damaged", "not prepared", "files missing"]
    assert isinstance(result.exception, zoo.DataError)
    damaged, absent, missing = str(result.exception).splitlines()
    assert damaged.startswith("pathfinder: damaged: ")
    assert "train.ends: No such file" in damaged
    assert absent.startswith("listops: not prepared: ")
    assert "bring aclImdb_v1.tar.gz" in missing


# -- speed -------------------------------------------------------------------------------------------------------------


def test_loading_is_measured_beside_the_training_step() -> None:
    rows = call("bench", "listops,mqar", "--arch", "linformer", "--protocol", "smoke", "--seconds", "0.2")
    assert [row["task"] for row in rows] == ["listops", "mqar"]
    for row in rows:
        assert row["first batch s"] < 2
        assert row["samples/s"] > row["step samples/s"] > 0
        assert row["tokens/s"] > row["samples/s"]
        assert abs(row["ratio"] - row["samples/s"] / row["step samples/s"]) < 0.01 * row["ratio"] + 0.01
    printed = (
        CliRunner()
        .invoke(
            app,
            ["bench", "mqar", "--arch", "linformer", "--protocol", "smoke", "--seconds", "0.1"],
            catch_exceptions=False,
        )
        .stdout
    )
    assert "loading is no bottleneck" in printed
