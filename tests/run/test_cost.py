"""What a step costs is measured apart from training; what a run will take is estimated before it begins."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import zoo.spec.cost
from tests.records import make, make_cost
from tests.run.conftest import resolve_one
from zoo.board.build import render
from zoo.cli import main
from zoo.run import pool, throughput
from zoo.run.memory import ADAM, saved_bytes
from zoo.run.pool import Answer
from zoo.run.request import Job, bench
from zoo.spec.cost import CostRecord
from zoo.spec.record import schema_text
from zoo.spec.store import read_all

pytestmark = pytest.mark.usefixtures("toys")
SLOW = {"train.batch_size": 4, "train.micro_batch_size": 2, "train.max_samples": 8, "train.val_every": 4}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for moments."""
    for name in ("TRAIN_SECONDS", "EVAL_SECONDS", "FORWARD_SECONDS"):
        monkeypatch.setattr(throughput, name, 0.02)
    monkeypatch.setattr("zoo.run.estimate.SECONDS", 0.5)


def zoo_(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["zoo", *args])
        with pytest.raises(SystemExit) as ended:
            main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


# -- the measurement -----------------------------------------------------------------------------------------------


def test_costs_at_several_lengths_are_of_one_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "data"))
    command = ("cost", "transformer", "selective_copying", "--protocol", "smoke", "--json", "--lengths")
    code, out, _ = zoo_(capsys, *command, "96,48")
    short, long = json.loads(out)
    assert (code, short["config"]["task"]["seq_len"], long["config"]["task"]["seq_len"]) == (0, 48, 96)
    assert (short["places"], long["places"]) == (48, 96)
    assert short["config"]["model"] == long["config"]["model"]
    assert short["config"]["train"]["batch_size"] == 2 * long["config"]["train"]["batch_size"]
    for lengths, says in (("48,x", "--lengths '48,x': expected"), ("0", "expected"), ("3", "task.seq_len")):
        code, _, err = zoo_(capsys, *command, lengths)
        assert (code, says in err) == (2, True), err
    code, _, err = zoo_(capsys, "cost", "transformer", "pathfinder", "--lengths", "64,256")
    assert (code, "task.seq_len: expected" in err) == (2, True), err


def test_a_cost_is_measured_once_on_a_machine_and_again_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("cost", "--arch", "toy", "--task", "toytask", "--protocol", "quick", "--json")
    code, out, _ = zoo_(capsys, *command)
    (printed,) = json.loads(out)
    ((cost,), problems) = CostRecord.read_all(tmp_path / "results")
    assert (code, problems) == (0, [])
    assert printed.pop("path") == str(tmp_path / "costs" / f"{cost.id}.json")
    assert printed == cost.model_dump(mode="json")
    assert cost.id.startswith("quick/toytask/toy/")
    assert (cost.batch_size, cost.machine.endswith(", 1 thread")) == (8, True)
    assert cost.train.passes >= 3
    assert cost.train.low <= cost.train.seconds <= cost.train.high
    assert 0 < cost.inference.low <= cost.inference.seconds <= cost.inference.high
    assert 3 <= cost.tokens <= cost.places <= 12  # its examples have 3 to 12 tokens
    code, out, err = zoo_(capsys, *command)
    assert (code, json.loads(out)) == (0, [])
    assert "1 of 1 have been measured on this machine" in err
    assert len(json.loads(zoo_(capsys, *command, "--force")[1])) == 1
    assert len(CostRecord.read_all(tmp_path / "results")[0]) == 1


def test_what_changes_no_step_is_not_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds, rates, budgets and where it runs; other than widths, batches and what the task asks."""
    same = ["optim.lr=0.5", "train.max_samples=8", "train.num_workers=0"]
    other = ["model.d_model=32", "train.batch_size=4", "arch.dropout=0.0", "task.seq_len=6"]
    experiments = [resolve_one("toy", "toytask", protocol="smoke", overrides=[each]) for each in (*same, *other)]
    plain = resolve_one("toy", "toytask", protocol="smoke", seeds=[3])
    assert [each.shape == plain.shape for each in experiments] == [True] * 3 + [False] * 4
    file = tmp_path / "plan.yaml"
    file.write_text("arch: toy\ntask: toytask\nprotocol: smoke\nseeds: 3\nsweep: {optim.lr: [0.1, 0.2]}\n")
    _, out, _ = zoo_(capsys, "cost", "--plan", str(file))
    assert out.count("toy on toytask (smoke): train ") == 1


def test_the_board_shows_what_was_measured_and_not_what_runs_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench("toy", "toytask", protocol="quick", overrides=SLOW)
    results = tmp_path / "results"
    assert read_all(results)[0][0].record.tokens_per_second
    assert "train tokens/s" not in render(results)[0]["README.md"]
    settings = [f"--set={key}={value}" for key, value in SLOW.items()]
    assert zoo_(capsys, "cost", "--arch", "toy", "--task", "toytask", *settings)[0] == 0
    text = (tmp_path / "results" / "README.md").read_text()  # which was written anew
    for column in ("train tokens/s", "inference tokens/s", "training memory"):
        assert column in text


def test_a_machine_that_is_not_idle_is_told_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextlib.contextmanager
    def busy() -> Iterator[list[float]]:
        yield [1.25]

    monkeypatch.setattr(throughput, "others_busy", busy)
    _, _, err = zoo_(capsys, "cost", "--arch", "toy", "--task", "toytask", "--protocol", "smoke")
    assert "toy on toytask (smoke): this machine is not idle: others kept 1.2 cores busy" in err
    assert CostRecord.read_all(tmp_path / "results")[0][0].others == 1.25


def test_cores_that_others_keep_busy_are_counted_without_our_own() -> None:
    with throughput.others_busy() as before:
        sum(k * k for k in range(3_000_000))
    with throughput.others_busy() as after:
        pass
    assert before[0] >= 0
    assert len(before) == len(after) == 1


@pytest.mark.parametrize(
    ("task", "settings"), [("toytask", ["task.input=values"]), ("toyrecall", []), ("toytext", []), ("toypairs", [])]
)
def test_every_kind_of_task_has_a_cost(task: str, settings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"--set={each}" for each in [*settings, "train.precision=64-true"]]
    code, out, _ = zoo_(capsys, "cost", "--arch", "toy", "--task", task, "--protocol", "smoke", "--json", *options)
    assert code == 0
    assert json.loads(out)[0]["tokens"] > 0


def test_mistakes_are_told_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = zoo_(capsys, "cost", "--arch", "toy", "--task", "toytask", "--set=arch.falt=1")
    assert (code, "did you mean 'arch.fault'" in err) == (2, True)
    assert zoo_(capsys, "cost", "--arch", "toy")[0] == 2
    code, _, err = zoo_(capsys, "cost", "--plan", str(tmp_path / "none.yaml"), "--protocol", "quick")
    assert (code, "--protocol: --plan says what to run" in err) == (2, True)
    assert not CostRecord.place(tmp_path / "results").exists()


@pytest.mark.processes
def test_a_measurement_that_is_killed_is_a_line_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--protocol", "smoke", "--set", "arch.fault=SIGKILL")
    code, out, err = zoo_(capsys, "cost", "--arch", "toy", "--task", "toytask,toypairs", *options)
    assert (code, out) == (1, "")
    assert err.count("the process was ended by SIGKILL") == 2
    assert zoo_(capsys, "cost", "--arch", "toy", "--task", "toytask", "--protocol", "smoke")[0] == 0
    ((cost,), _) = CostRecord.read_all(tmp_path / "results")
    assert cost.memory_bytes < 100 * 2**20  # of a process of 400 MiB


# -- files ---------------------------------------------------------------------------------------------------------


def test_the_schema_file_of_costs_is_current_and_fits() -> None:
    """To renew: python -m zoo.spec.cost > zoo/spec/cost.schema.json"""
    text = Path(zoo.spec.cost.__file__).with_name("cost.schema.json").read_text(encoding="utf-8")
    assert text == schema_text(CostRecord)
    Draft202012Validator(json.loads(text)).validate(make_cost(make()).model_dump(mode="json"))


def test_files_that_are_no_costs_are_named_and_harm_nothing(tmp_path: Path) -> None:
    results = tmp_path / "elsewhere"
    cost = make_cost(make())
    path = cost.write(results)
    assert path == tmp_path / "elsewhere-costs" / f"{cost.id}.json"
    path.with_name("cut.json").write_text("{")
    wrong = cost.model_dump(mode="json")
    wrong["train"]["low"] = 9.0
    path.with_name("wrong.json").write_text(json.dumps(wrong))
    costs, problems = CostRecord.read_all(results)
    assert costs == [cost]
    assert [(p.file.rpartition("/")[2], p.reason[:24]) for p in problems] == [
        ("cut.json", "not JSON: Expecting prop"),
        ("wrong.json", "train: expected low <= s"),
    ]
    text = render(results)[0]["README.md"]
    assert "elsewhere-costs/quick/listops/alpha/cut.json: not JSON" in text


def test_tokens_per_second_are_real_ones() -> None:
    cost = make_cost(make(), train=0.5)  # of 100 tokens, padded to 120
    assert cost.tokens_per_second("train") == pytest.approx((200, 100 / 0.55, 100 / 0.45))


# -- what a budget cannot teach ------------------------------------------------------------------------------------

SMALL = ("--task", "pathx", "--set=task.seq_len=256", "--set=task.train_size=4", "--set=train.max_samples=4")
SMALLER = ("--set=train.batch_size=4", "--set=train.val_every=4", "--set=task.val_size=4", "--set=task.test_size=4")


@pytest.mark.parametrize(
    ("arch", "answers", "says", "points"),
    [
        ("transformer", [(5.0, 4)], "transformer on pathx under paper: 44,400 h, more than 2.0 GiB, here\n", False),
        ("transformer", [None], "", True),
        ("transformer,s5", [(5.0, 4), None], "transformer on pathx under paper: 44,400 h", True),
        ("linformer,all", [], "", True),  # nobody waits for nineteen
    ],
)
def test_a_task_that_its_budget_cannot_teach_is_told_before_it_is_trained(
    arch: str,
    answers: list[tuple[float, int] | None],
    says: str,
    points: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shared = {"memory_bytes": 2**31, "micro": 4, "intervals": 10, "prepared": False, "counts": {"val": 0, "test": 0}}
    left = iter(answers)
    limits: list[float] = []

    def call(processes: object, function: str, arguments: dict[str, Any], seconds: float) -> Answer:
        assert arguments["experiment"]["protocol"] == "paper"
        limits.append(seconds)
        found = next(left)
        return Answer(None, "not done") if found is None else Answer({**shared, "train": found[0], "at_once": found[1]})

    monkeypatch.setattr(pool, "call", call)
    monkeypatch.setattr("zoo.run.request.execute_all", lambda *args: [])
    assert zoo_(capsys, "bench", "--arch", "transformer", "--task", "pathx", "--protocol", "smoke")[2] == ""
    code, _, err = zoo_(capsys, "bench", "--arch", arch, *SMALL, *SMALLER, "--json")
    assert code == 0
    assert "zoo: pathx: the budget of quick is too small to learn this task" in err
    assert says in err
    assert err.count("under paper") == bool(says)
    assert ("zoo bench --task pathx --protocol paper --estimate --arch NAME" in err) == points
    assert all(0 < limit <= 20 for limit in limits)
    assert len(limits) == len(answers)


def test_its_record_and_its_line_say_cost_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "call", lambda *args: Answer(None, "not done"))
    code, out, _ = zoo_(capsys, "bench", "--arch", "s5", *SMALL, *SMALLER)
    assert code == 0
    assert "s5 on pathx (quick, seed 0): cost only: this budget is too small" in out
    ((_, record),) = read_all(tmp_path / "results")[0]
    assert record.task.cost_only
    bench("toy", "toytask", protocol="smoke")
    assert [r.task.cost_only for _, r in read_all(tmp_path / "results")[0]] == [True, False]


def test_what_is_cost_only_is_run_once_where_others_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[Job] = []
    monkeypatch.setattr(pool, "call", lambda *args: Answer(None, "not done"))
    monkeypatch.setattr("zoo.run.request.execute_all", lambda jobs, *args: ran.extend(jobs) or [])
    swept = ("--arch", "s5", "--protocol", "quick", "--seeds", "2", "--sweep", "optim.lr=0.001,0.003")
    code, _, err = zoo_(capsys, "bench", "--task", "pathx,mqar", *swept, "--json")
    assert code == 0
    assert [(job.experiment.task, job.experiment.sweep is None) for job in ran] == [
        ("pathx", True),
        ("mqar", False),
        ("mqar", False),
    ]
    assert "no score; it is run once, with no sweep" in err
    assert [(run["task"], run["runs"]) for run in estimates(capsys, "--task", "pathx,mqar", *swept)["runs"]] == [
        ("pathx", 1),
        ("mqar", 3),
    ]


# -- estimates -----------------------------------------------------------------------------------------------------


def estimates(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    code, out, _ = zoo_(capsys, "bench", "--estimate", "--json", *args)
    assert code == 0
    return json.loads(out)


def test_an_estimate_counts_steps_evaluations_and_memory_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([(0.25, 8), (0.125, 8)])
    monkeypatch.setattr(throughput, "_time_examples", lambda *args: next(times))
    found = estimates(capsys, "--arch", "toy", "--task", "toytask", "--seeds", "3")
    (run,) = found["runs"]
    # 256 samples in 32 steps, four validations of 40 examples and a test of 40
    assert (run["runs"], run["steps"], run["at_least"], run["remark"]) == (3, 32, False, "")
    assert run["hours"] == pytest.approx((256 * 0.25 + 5 * 40 * 0.125) / 3600)
    assert found["hours"] == pytest.approx(3 * run["hours"])
    experiment = resolve_one("toy", "toytask")
    model = throughput.build_module(experiment).model
    parameters = sum(p.numel() for p in model.parameters())
    assert run["memory_bytes"] == 4 * ADAM * parameters + 8 * saved_bytes(experiment, model)
    assert not list((tmp_path / "results").rglob("*"))
    assert not list((tmp_path / "runs").rglob("*"))


def test_an_estimate_of_a_plan_is_of_what_is_left_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three trials of the first seed and the best one's second; one trial has a record."""
    file = tmp_path / "plan.yaml"
    plan = "arch: toy\ntask: toytask\nprotocol: smoke\nseeds: 2\nsweep: {optim.lr: [0.1, 0.2, 0.3]}\n"
    file.write_text(plan)
    assert [run["runs"] for run in estimates(capsys, "--plan", str(file))["runs"]] == [4]
    bench("toy", "toytask", protocol="smoke", sweep={"optim.lr": [0.1, 0.2, 0.3]})
    next((tmp_path / "results").rglob("*-s0.json")).unlink()
    assert [run["runs"] for run in estimates(capsys, "--plan", str(file))["runs"]] == [2]


@pytest.mark.parametrize("task", ["image", "wikitext", "retrieval", "lambada_openai", "pathfinder"])
def test_an_estimate_needs_no_data(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run,) = estimates(capsys, "--arch", "s5", "--task", task, "--protocol", "smoke")["runs"]
    assert "random examples of the full length" in run["remark"]
    assert run["hours"] > 0
    assert not (tmp_path / "data" / "zoo").exists()


def test_an_estimate_as_text_has_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = zoo_(capsys, "bench", "--estimate", "--arch", "toy", "--task", "toytask,toytext", "--seeds", "2")
    assert code == 0
    assert out.splitlines()[0].split() == ["run", "runs", "steps", "each", "memory"]
    assert "in all" in out.splitlines()[-1]
    assert "in 4 runs, one after the other" in out.splitlines()[-1]


def test_a_step_that_takes_too_long_gives_a_lower_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"memory_bytes": 2**30, "micro": 8, "intervals": 4, "prepared": True, "counts": {"val": 40, "test": 40}}
    answers = iter([Answer(None, "not done after 75 s", False, found, 60.0), Answer(None, "not done after 75 s")])
    monkeypatch.setattr(pool, "call", lambda *args: next(answers))
    first, second = (estimates(capsys, "--arch", "toy", "--task", "toytask") for _ in range(2))
    (run,) = first["runs"]
    assert (run["at_least"], run["memory_bytes"], first["at_least"]) == (True, 2**30, True)
    assert run["remark"] == "one example takes more than 60 s; evaluation is not counted"
    assert run["hours"] == pytest.approx(256 * 60 / 3600)
    (run,) = second["runs"]
    assert (run["hours"], run["remark"], second["hours"], second["at_least"]) == (None, "not done after 75 s", 0, True)


@pytest.mark.processes
def test_a_function_in_a_process_is_stopped_in_time_and_what_it_has_reported_or_raised_is_kept() -> None:
    with pool.Pool() as processes:
        function = "tests.run.toys_called:report_and_wait"
        assert pool.call(processes, function, {"seconds": 0}) == Answer("done", reported={"here": 1})
        assert pool.call(processes, function, {}).error.startswith("TypeError: ")
        answer = pool.call(processes, function, {"seconds": 60}, 3.0)
        assert (answer.value, answer.error, answer.reported) == (None, "not done after 3 s", {"here": 1})
        assert 0 < answer.seconds < 60
