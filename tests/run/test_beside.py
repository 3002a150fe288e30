"""Records beside those of runs that others send: extensions, analyses, evaluations and generation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.board.statistics import wilson
from zoo.run.beside import check_beside
from zoo.spec.analysis import AccuracyAt, AnalysisRecord, ContextAnalysis, GradientAt, LossAt
from zoo.spec.evaluation import EvaluationRecord, ExtensionRecord, Extensions, Span
from zoo.spec.generation import GenerationCost
from zoo.spec.store import dumps

from .test_submission import Change, faults, git, put

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "results").mkdir()
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "base")
    return tmp_path


ABOUT: dict[str, Any] = {"ended": "2026-01-02T03:04:05+00:00", "versions": {}, "seconds": 1.0, "weights": "ab"}
RUN = "smoke/toytask/toy/0123456789ab-s0"
IDENTITY: dict[str, Any] = {
    "run": RUN, "architecture": "toy", "task": "toytask", "protocol": "smoke", "seed": 0, "trained_len": 8,
}  # fmt: skip


def extension(method: str = "none", seq_len: int = 16, **changes: Any) -> ExtensionRecord:
    loss = 1.5
    fields = IDENTITY | ABOUT | {"method": method, "overrides": {}, "seq_len": seq_len, "finetune_steps": 0, "n": 16}
    spans = (Span(start=0, stop=8, n=8, loss=1.0), Span(start=8, stop=seq_len, n=8, loss=2.0))
    scores = {"perplexity": math.exp(loss)}
    return ExtensionRecord(**fields | {"loss": loss, "scores": scores, "positions": spans} | changes)


def extensions() -> Extensions:
    return Extensions([extension(), extension("self_extend", overrides={"arch.self_extend.window": 4})])


def analysis() -> AnalysisRecord:
    losses = tuple(LossAt(tokens=k, loss=2.0 / k, stderr=0.1) for k in (1, 2, 4, 8))
    gradient = (GradientAt(start=0, stop=8, n=9, norm=1.0),)
    context = ContextAnalysis(
        predictions=9, longest=8, truncated=losses, shuffled=losses, gradient=gradient, effective=8
    )
    interval = wilson(0.5, 8)
    place = AccuracyAt(at={"depth": 0.5}, n=8, accuracy=0.5, low=interval.low, high=interval.high)
    return AnalysisRecord(**IDENTITY | ABOUT, draw_seed=0, context=context, positions=(place,), score="accuracy")


def evaluation() -> EvaluationRecord:
    interval = wilson(0.5, 8)
    low_high = {"low": interval.low, "high": interval.high, "kind": "binomial"}
    scored = {"n": 8, "loss": 1.0, "scores": {"accuracy": 0.5}, "interval": low_high}
    return EvaluationRecord.model_validate(
        ABOUT
        | scored
        | {"architecture": "toy", "task": "toytask", "task_version": "1", "checkpoint": "mine", "form": "zoo"}
        | {"parameters": 9, "trained_len": None, "tokenizer": None, "objective": "classify", "stateful": False}
        | {"overrides": {"task.size": 8}, "options": {"size": 8}}
        | {"data": {"kind": "regenerated", "version": "1", "seed": 0, "counts": {"test": 8}}}
        | {"metric": {"name": "accuracy", "higher_is_better": True}}
    )


def generation(measured: str = "2026-01-02T03:04:05+00:00") -> GenerationCost:
    about = {"name": "toy", "title": "Toy", "family": "attention", "version": "1"}
    points = tuple({"context": k, "state_bytes": 64} for k in (8, 16))
    fields = {"architecture": about, "task": "toytask", "protocol": "smoke", "config": {}, "shape": "0" * 12}
    return GenerationCost.model_validate(
        fields | {"parameters": 9, "points": points, "versions": {}, "measured": measured}
    )


BESIDE: dict[str, Callable[[], Any]] = {
    "extensions": extensions, "analyses": analysis, "evaluations": evaluation, "generation": generation,
}  # fmt: skip


def put_beside(repository: Path, kind: str, record: Any) -> Path:
    path = repository / kind / f"{record.id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dumps(record))
    return path


@pytest.mark.parametrize("kind", BESIDE)
def test_a_record_beside_those_of_runs_is_accepted_as_written_and_stays(repository: Path, kind: str) -> None:
    path = put_beside(repository, kind, BESIDE[kind]())
    name = path.relative_to(repository).as_posix()
    assert faults(repository) == {name: []}
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "beside")
    assert faults(repository) == {}
    old = json.loads(path.read_text())
    (old[0] if kind == "extensions" else old)["versions"] = {"torch": "9"}
    path.write_text(json.dumps(old, indent=1, ensure_ascii=False) + "\n")
    (found,) = faults(repository).values()
    (fault,) = found
    assert fault.startswith("measured: not after" if kind == "generation" else "altered: ")
    path.unlink()
    assert faults(repository) == {name: ["removed: records stay"]}


def test_a_runs_extensions_gain_records_and_generation_is_measured_anew(repository: Path) -> None:
    paths = [put_beside(repository, "extensions", extensions()), put_beside(repository, "generation", generation())]
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "beside")
    put_beside(repository, "extensions", Extensions([*extensions().root, extension("yarn")]))
    put_beside(repository, "generation", generation("2026-01-03T00:00:00+00:00"))
    assert faults(repository) == {path.relative_to(repository).as_posix(): [] for path in paths}
    put_beside(repository, "extensions", Extensions(extensions().root[:1]))
    assert any("altered: " in fault for own in faults(repository).values() for fault in own)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("extensions", put(0, "scores", "perplexity", value=2.0), "0.scores.perplexity: 2.0, but the mean loss is 1.5"),
        ("extensions", put(0, "positions", 0, "loss", value=9.0), "0.loss: 1.5, by position 5.5"),
        ("extensions", put(0, "positions", 1, "start", value=9), "0.positions: not all of 0 to 16"),
        ("extensions", put(1, "method", value="magic"), "1.method: 'magic', expected one of none, linear"),
        ("extensions", put(1, "run", value=RUN.replace("s0", "s1")), "1.run: "),
        ("extensions", put(0, "overrides", value={"arch.window": 3}), "0.overrides: "),
        ("extensions", put(0, "ended", value="2999-01-02T03:04:05+00:00"), "ended: 2999-01-02"),
        ("extensions", put(0, "verified", value=True), "0.verified: Extra inputs"),
        ("analyses", put("context", "effective", value=2), "context.effective: 2, by the losses 8"),
        ("analyses", put("context", "shuffled", 3, "loss", value=9.0), "context.shuffled: where nothing is shuffled"),
        ("analyses", put("positions", 0, "high", value=0.5), "positions.0: "),
        ("analyses", put("seed", value=3), f"run: {RUN}, expected smoke/toytask/toy/HASH-s3"),
        ("evaluations", put("scores", "accuracy", value=0.75), "interval: not that of accuracy 0.75"),
        ("evaluations", put("scores", "accuracy", value=0.51), "scores.accuracy: 0.51 is not a fraction of 8 examples"),
        ("evaluations", put("overrides", value={"task.size": 9}), "overrides: task.size=9, but the options have 8"),
        ("evaluations", put("task_version", value="9"), "path: expected mine/toytask-"),
        ("evaluations", put("architecture", value="magic"), "architecture: magic is not installed here"),
        ("generation", put("points", 1, "context", value=8), "points: contexts [8, 8], expected ascending ones"),
        ("generation", put("machine", value="an idle one"), "machine: named where latencies were measured"),
    ],
)
def test_a_record_beside_that_was_tampered_with_is_refused_by_name(
    repository: Path, kind: str, change: Change, says: str
) -> None:
    path = put_beside(repository, kind, BESIDE[kind]())
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n")
    found = faults(repository)[path.relative_to(repository).as_posix()]
    assert any(fault.startswith(says) for fault in found), found
    if "path: " not in says and "ended" not in says:  # so does the check of all records
        _, problems = check_beside(repository / "results")
        assert [problem.reason for problem in problems][:1] == [fault for fault in found if "text: " not in fault][:1]


def test_pictures_lie_beside_their_records_only(repository: Path) -> None:
    path = put_beside(repository, "analyses", analysis())
    for picture in (path.with_suffix(".svg"), path.with_name("other.svg")):
        picture.write_text("<svg/>")
    found = faults(repository)
    assert found[path.with_suffix(".svg").relative_to(repository).as_posix()] == []
    assert found[path.with_name("other.svg").relative_to(repository).as_posix()] == [
        "not a record: only .json files lie here"
    ]
