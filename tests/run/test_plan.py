"""A plan's file: what it may say, and that it runs what has no record yet."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from zoo.cli import main
from zoo.run.request import BenchRequest, plan, resolve
from zoo.spec.errors import UserError
from zoo.spec.record import Record
from zoo.spec.store import read, write

pytestmark = pytest.mark.usefixtures("toys")

PLAN = """
arch: [toy]
task: toytask
protocol: smoke
seeds: 2
overrides: {optim.lr: 0.02, model: {d_model: 8}}
"""


def write_plan(tmp_path: Path, text: str = PLAN) -> Path:
    file = tmp_path / "plan.yaml"
    file.write_text(text, "utf-8")
    return file


def zoo(*args: str) -> int:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["zoo", *args])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def test_a_plan_is_the_request_that_its_keys_say(tmp_path: Path) -> None:
    file = write_plan(tmp_path)
    overrides = ["optim.lr=0.02", "model.d_model=8"]
    given = resolve(BenchRequest.parse("toy", "toytask", protocol="smoke", seeds=2, overrides=overrides))
    written = resolve(BenchRequest.read_plan(file))
    assert [each.origins["optim.lr"] for each in (*given, *written)] == ["--set"] * 2 + [f"--plan {file}"] * 2
    assert [replace(each, origins={}) for each in written] == [replace(each, origins={}) for each in given]


def test_a_plan_skips_what_has_a_record_and_runs_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_plan(tmp_path))
    assert zoo("bench", "--plan", file, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert [(record["seed"], record["status"]) for record in first] == [(0, "ok"), (1, "ok")]
    Path(first[0]["path"]).unlink()
    # by other code, on another machine: as the record says, not the folder of runs
    assert zoo("bench", "--plan", file, "--json", "--runs", str(tmp_path / "others")) == 0
    printed = capsys.readouterr()
    assert [record["seed"] for record in json.loads(printed.out)] == [0]
    assert "zoo: 1 of 2 runs have a record" in printed.err
    assert zoo("bench", "--plan", file, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == []
    assert "zoo: 2 of 2 runs have a record" in printed.err
    assert zoo("bench", "--plan", file, "--json", "--force") == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


@pytest.mark.parametrize(
    ("status", "again"),
    [("diverged", 1), ("out-of-memory", 1), ("failed", 2), ("timeout", 2), ("interrupted", 2)],
)
def test_a_plan_runs_again_what_would_end_otherwise(tmp_path: Path, status: str, again: int) -> None:
    file = write_plan(tmp_path)
    assert zoo("bench", "--plan", str(file), "--json") == 0
    results = Path(BenchRequest.read_plan(file).results)
    path = next(results.rglob("*-s0.json"))
    record = read(path)
    assert isinstance(record, Record)
    for old in results.rglob("*.json"):
        old.unlink()
    write(record.model_copy(update={"status": status, "metrics": None, "error": "planted"}), results)
    assert len(plan(BenchRequest.read_plan(file))) == again


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("arch: toy\ntask: toytask\nseed: 2", r"seed: unknown key; did you mean 'seeds'"),
        ("arch: toy", "task is missing"),
        ("arch: toy\ntask: toytask\nseeds: many", "seeds: expected a number, got 'many'"),
        ("arch: toy\ntask: toytask\nseeds: 0", r"--plan .*yaml: no seeds"),
        ("arch: toy\ntask: toytask\nsweep: {optim.lr: []}", r"--plan .*yaml: .*expected several values"),
        ("arch: toy\ntask: toytask\noverrides: [1]", "overrides: expected configuration keys"),
        ("arch: []\ntask: toytask", "no name given"),
        ("arch: toyy\ntask: toytask", "did you mean 'toy'"),
        ("[1, 2]", "expected a mapping"),
        ("arch: linformer\ntask: wikitext", "causal"),
        ("arch: toy\ntask: toytask\noverrides: {optim.lrr: 1}", r"optim.lrr: unknown key.*from --plan .*yaml"),
    ],
)
def test_mistakes_in_a_plan_are_told(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        plan(BenchRequest.read_plan(write_plan(tmp_path, text)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--arch", "toy"], "--arch: --plan says what to run"),
        (["--set", "optim.lr=1", "--seeds", "2"], "--seeds, --set: --plan says what to run"),
    ],
)
def test_a_plan_and_options_that_say_what_to_run_are_one_too_many(
    tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert zoo("bench", "--plan", str(write_plan(tmp_path)), *options) == 2
    assert says in capsys.readouterr().err
    assert zoo("bench", "--plan", str(tmp_path / "none.yaml")) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("missing", [[], ["--arch", "toy"], ["--task", "toytask"]])
def test_nothing_to_run_is_told(missing: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo("bench", *missing) == 2
    assert "zoo bench ARCH TASK, or --plan" in capsys.readouterr().err


def test_plans_that_are_shipped_can_be_run() -> None:
    files = sorted((ROOT / "benchmarks" / "plans").glob("*.yaml"))
    assert files
    for file in files:
        # widths are solved in test_width.py, and of these 247 pairs in half a minute
        request = replace(BenchRequest.read_plan(file), overrides={"model.match_params_of": ""})
        known: Any = resolve(request)
        assert len({experiment.id for experiment in known}) == len(known)


def test_the_files_of_a_task_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo_lra.text import TextData

    looked: list[str] = []
    monkeypatch.setattr(TextData, "folder_name", lambda self: looked.append(self.name) or "prepared")
    places = {"results": str(tmp_path / "results"), "runs": str(tmp_path / "runs")}
    sweep = ["optim.lr=0.001,0.003,0.01"]
    jobs = plan(BenchRequest.parse("transformer,s5", "text", protocol="smoke", sweep=sweep, **places))
    assert len(jobs) == 6
    assert looked == ["text"]
