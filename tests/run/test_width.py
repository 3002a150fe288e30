"""The width that makes a model as large as the baseline's."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.run.conftest import resolve_one
from zoo import Backbone
from zoo.run import match as match_module
from zoo.run.compose import Job
from zoo.run.execute import execute
from zoo.run.match import TOLERANCE, count_parameters, solve
from zoo.run.request import BenchRequest, plan, resolve
from zoo.spec.errors import ConfigError
from zoo.spec.registry import registry

UNMATCHED = {
    # its projections alone are k x 16,384 parameters, and k = 1 would be another architecture
    ("linformer", "pathx"),
}


def quadratic(width: int) -> int:
    return 12 * width * width + 40 * width


@given(target=st.integers(20_000, 400_000), heads=st.sampled_from([1, 2]))
def test_a_width_within_the_tolerance_is_found_among_those_that_can_be_built(target: int, heads: int) -> None:
    def count(width: int) -> int:
        if width % heads:
            raise ConfigError("n_heads", f"{heads} does not divide {width}")
        return quadratic(width)

    match = solve(count, target, start=64)
    assert match.width % heads == 0
    assert match.parameters == quadratic(match.width)
    assert match.matched == (abs(match.parameters / target - 1) <= TOLERANCE)
    possible = [w for w in range(16, 257, heads) if abs(quadratic(w) / target - 1) <= TOLERANCE]
    assert match.matched == bool(possible)


def test_rounder_widths_are_preferred() -> None:
    exact = quadratic(63)
    assert solve(quadratic, exact, start=64).width == 64


def test_a_model_that_no_width_makes_comparable_keeps_the_protocols() -> None:
    assert solve(lambda width: 1_000_000 + width, 20_000, start=32).width == 32


def test_where_no_width_can_be_built_the_reason_is_given() -> None:
    def never(width: int) -> int:
        raise ConfigError("n_heads", "not possible")

    with pytest.raises(ConfigError, match="not possible"):
        solve(never, 1_000, start=8)


@pytest.mark.parametrize("task", ["listops", "text", "retrieval", "image", "pathfinder", "pathx", "retrieval_books"])
@pytest.mark.parametrize("arch", sorted(registry().architectures))
def test_quick_models_are_of_one_size(arch: str, task: str) -> None:
    experiment, baseline = resolve_one(arch, task), resolve_one("transformer", task)
    off = count_parameters(experiment) / count_parameters(baseline) - 1
    if (arch, task) in UNMATCHED:
        assert "no width comes within" in experiment.origins["model.d_model"]
    else:
        assert abs(off) <= TOLERANCE, experiment.origins["model.d_model"]


def test_the_solved_width_is_no_override_and_a_users_width_is() -> None:
    solved = resolve_one("mamba", "listops")
    assert solved.overrides == {}
    assert solved.matched is not None
    assert solved.matched["architecture"] == "transformer"
    assert solved.origins["model.d_model"].startswith("solved: ")
    own = resolve_one("mamba", "listops", overrides=["model.d_model=24"])
    assert own.overrides == {"model.d_model": 24}
    assert own.model.d_model == 24
    assert own.matched is None


def test_the_baseline_follows_what_the_user_sets() -> None:
    deeper = resolve_one("mamba", "listops", overrides=["model.n_layers=4", "task.max_len=31"])
    baseline = resolve_one("transformer", "listops", overrides=["model.n_layers=4", "task.max_len=31"])
    assert deeper.matched == {"architecture": "transformer", "parameters": count_parameters(baseline)}
    assert abs(count_parameters(deeper) / count_parameters(baseline) - 1) <= TOLERANCE


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.match.*transformr.*transformer"):
        resolve_one("mamba", "listops", overrides=["model.match_params_of=transformr"])


def test_a_width_is_solved_once_and_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(match_module, "_SOLVED", {})
    first = resolve_one("mamba", "listops", overrides=["task.max_len=29"])
    assert len(list((tmp_path / "widths").glob("*.json"))) == 1

    def refuse(*_: object, **__: object) -> int:
        raise AssertionError("solved again")

    monkeypatch.setattr(match_module, "_SOLVED", {})
    monkeypatch.setattr(match_module, "solve", refuse)
    assert resolve_one("mamba", "listops", overrides=["task.max_len=29"]) == first
    assert resolve_one("mamba", "listops", overrides=["task.max_len=29"], seeds=[3]).config == first.config


def test_a_run_builds_its_model_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the width is known, planning and executing a job of the quick protocol build one backbone."""
    small = {"task.train_size": 64, "task.val_size": 32, "task.test_size": 32, "train.max_samples": 32}
    request = BenchRequest.parse(
        "mamba", "listops", overrides=small, results=tmp_path / "results", runs=tmp_path / "runs", seeds=1
    )
    plan(request)
    built = 0
    init = Backbone.__init__

    def count(self: Backbone, *args: object, **kwargs: object) -> None:
        nonlocal built
        built += 1
        init(self, *args, **kwargs)

    monkeypatch.setattr(Backbone, "__init__", count)
    (job,) = plan(request)
    assert built == 0
    assert execute(job).record.status == "ok"
    assert built == 1


def test_a_job_is_plain_values() -> None:
    request = BenchRequest.parse("mamba", "listops", protocol="smoke", overrides={"optim.lr": 0.5}, seeds=[7])
    assert BenchRequest(**json.loads(json.dumps(asdict(request)))).overrides == request.overrides
    (experiment,) = resolve(request)
    job = Job(experiment=experiment, results="results", runs="runs")
    again = Job.from_json(json.loads(json.dumps(asdict(job))))
    assert again.experiment.hash == experiment.hash
    assert again.experiment.config == experiment.config
    assert (again.experiment.seed, again.experiment.overrides) == (7, {"optim.lr": 0.5})
    with pytest.raises(AttributeError):
        job.force = True
