"""How an experiment's configuration is composed, and what mistakes in it say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.run.conftest import resolve_one
from zoo.run.compose import Experiment, documentation
from zoo.run.request import BenchRequest, resolve
from zoo.spec.config import flatten
from zoo.spec.errors import ConfigError, UnknownName, UserError

pytestmark = pytest.mark.usefixtures("toys")


def experiment(file: Path | None = None, **kwargs: Any) -> Experiment:
    return resolve_one("toy", "toytask", config=file, **kwargs)


def test_later_layers_win_and_every_value_has_an_origin(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model:\n  d_model: 20\noptim.lr: 0.5\n")
    made = experiment(file=file, overrides=["model.d_model=24"])
    values = flatten(made.config)
    assert values["model.d_model"] == 24
    assert made.origins["model.d_model"] == "--set"
    assert values["optim.lr"] == 0.5
    assert made.origins["optim.lr"] == f"file {file}"
    assert values["train.max_samples"] == 256
    assert made.origins["train.max_samples"] == "protocol quick of toytask"
    assert made.origins["arch.dropout"] == "default"
    assert set(made.origins) == set(values)


def test_overrides_are_what_the_user_changed_and_nothing_else() -> None:
    assert experiment(overrides=["model.d_model=16", "train.logger=none"]).overrides == {}
    assert experiment(overrides={"model.d_model": 32}).overrides == {"model.d_model": 32}


def test_hash_names_the_configuration_not_how_it_was_said(tmp_path: Path) -> None:
    file = tmp_path / "same.yaml"
    file.write_text("optim: {lr: 0.02}")
    assert experiment(file=file).hash == experiment(overrides=["optim.lr=2e-2"]).hash
    assert experiment().hash != experiment(overrides=["optim.lr=2e-2"]).hash
    assert experiment().hash == experiment(overrides=["train.logger=none"]).hash
    assert experiment(seeds=[1]).hash == experiment(seeds=[2]).hash
    assert experiment(protocol="smoke").hash != experiment().hash


@pytest.mark.parametrize(
    ("override", "key", "says"),
    [
        ("model.d_modle=3", "model.d_modle", "did you mean 'model.d_model'"),
        ("optim.lr=fast", "optim.lr", "expected number > 0, got 'fast'"),
        ("model.d_model=wide", "model.d_model", "expected integer > 0, got 'wide'"),
        ("model.d_model=6", "model.d_model", "6 is not a multiple of 4"),
        ("model.d_model=0", "model.d_model", "expected integer > 0, got 0"),
        ("model.mode=bidirectional", "model.mode", "toy is causal; it has no bidirectional form"),
        ("model.pool=max", "model.pool", "'max'"),
        ("model.pool=cls", "model.pool", "cls needs a bidirectional mode"),
        ("optim.warmup_ratio=2", "optim.warmup_ratio", "expected number in [0, 1], got 2"),
        ("optim.betas=[0.9]", "optim.betas", "two numbers"),
        ("train.micro_batch_size=3", "train.micro_batch_size", "3 does not divide train.batch_size 8"),
        ("segments.activation_checkpointing=checkpoint", "segments.activation_checkpointing", "not fed by segments"),
        ("segments.tbptt=2", "segments.tbptt", "no gradient flows"),
        ("arch.fault=fire", "arch.fault", "'fire' is unknown"),
        ("arch.droppout=0.1", "arch.droppout", "did you mean 'arch.dropout'"),
        ("task.seq_length=9", "task.seq_length", "did you mean 'task.seq_len'"),
        ("nonsense=1", "nonsense", "unknown key"),
        ("optim.lr=nan", "optim.lr", "expected a finite number, got nan"),
        ("optim.gradient_clip_val=inf", "optim.gradient_clip_val", "expected a finite number, got inf"),
        ("optim.lr=${optim.eps}", "optim.lr", "expected number > 0, got '${optim.eps}'"),
        ("model.d_model=${nowhere}", "model.d_model", "expected integer > 0, got '${nowhere}'"),
    ],
)
def test_mistakes_name_the_key_the_reason_and_the_origin(override: str, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        experiment(overrides=[override])
    assert caught.value.key == key
    assert says in str(caught.value)
    assert "from --set" in str(caught.value)
    assert caught.value.exit_code == 2


def test_mistakes_in_a_file_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("optim:\n  learning_rate: 1\n")
    with pytest.raises(ConfigError, match=r"optim\.learning_rate: unknown key.*mine\.yaml"):
        experiment(file=file)
    with pytest.raises(UserError, match="no such file"):
        experiment(file=tmp_path / "none.yaml")
    file.write_text("a: [1")
    with pytest.raises(UserError, match=r"mine\.yaml"):
        experiment(file=file)


def test_unknown_names_come_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'toytask'"):
        resolve(BenchRequest.parse("toy", "toytsk"))
    with pytest.raises(UnknownName, match="did you mean 'toy'"):
        resolve(BenchRequest.parse("toyy", "toytask"))
    with pytest.raises(UserError, match="did you mean 'quick'"):
        resolve(BenchRequest.parse("toy", "toytask", protocol="quik"))
    with pytest.raises(UserError, match="has no protocol 'paper'"):
        resolve(BenchRequest.parse("toy", "toytask", protocol="paper"))
    with pytest.raises(UserError, match="expected key=value"):
        resolve(BenchRequest.parse("toy", "toytask", overrides=["model.d_model"]))
    with pytest.raises(UserError, match=f"seed {2**32}: expected a number from 0"):
        BenchRequest.parse("toy", "toytask", seeds=[2**32])


def test_names_suites_and_seeds_multiply() -> None:
    made = resolve(BenchRequest.parse("toy", "toys", seeds=3))
    assert [(e.task, e.seed) for e in made] == [("toytask", 0), ("toytask", 1), ("toytask", 2)]
    both = resolve(BenchRequest.parse("toy,transformer,toy", "toytask", protocol="smoke"))
    assert [e.architecture for e in both] == ["toy", "transformer"]


def test_every_key_is_documented_and_the_tree_is_plain() -> None:
    made = experiment()
    texts = documentation(made)
    assert [key for key in flatten(made.config) if not texts.get(key)] == []
    assert json.loads(json.dumps(made.config)) == made.config
