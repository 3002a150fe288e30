"""Records refuse what they cannot mean, and name what cannot be loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.spec.plugin_in_process import zoo_architectures
from tests.testing.toys import EMA
from zoo import Architecture, Capabilities, ConfigError, ModelDims, Source, Task, ZooError


def architecture(**changes: Any) -> Architecture:
    (record,) = zoo_architectures()
    return dataclasses.replace(record, **changes)


def task(**changes: Any) -> Task:
    fields: dict[str, Any] = {
        "name": "t",
        "suite": "s",
        "title": "T",
        "version": "1",
        "kind": "classification",
        "vocab_size": 4,
        "classes": 2,
        "length": 8,
        "metrics": ("accuracy",),
        "chance": 0.5,
        "license": "CC0",
        "source": Source(),
        "data": "no_such_module:Data",
        "options": "collections:OrderedDict",
        "protocols": {},
    }
    return Task(**(fields | changes))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Capabilities(modes=frozenset()), "non-empty subset"),
        (lambda: Capabilities(modes=frozenset({"forwards"})), "forwards"),
        (lambda: Capabilities(modes=frozenset({"causal"}), state="some"), "state='some'"),  # type: ignore[arg-type]
        (lambda: Capabilities(modes=frozenset({"causal"}), length="short"), "length='short'"),  # type: ignore[arg-type]
        (lambda: Capabilities(modes=frozenset({"causal"}), positions="x"), "positions='x'"),  # type: ignore[arg-type]
        (lambda: Capabilities(modes=frozenset({"causal"}), step=True), "need a state"),
        (lambda: Capabilities(modes=frozenset({"causal"}), chunk_exact=True), "need a state"),
        (lambda: Capabilities(modes=frozenset({"causal"}), state_grad=True), "need a state"),
        (lambda: architecture(name="S4"), "lower-case"),
        (lambda: architecture(name="my-mixer"), "lower-case"),
        (lambda: architecture(name=""), "lower-case"),
        (lambda: task(name="Path X"), "lower-case"),
        (lambda: task(kind="clustering"), "'clustering'"),
        (lambda: task(metrics=()), "at least one metric"),
        (lambda: task(cost_only=("quik",)), "cost_only 'quik': expected one of the protocols"),
    ],
)
def test_impossible_records(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_records_are_frozen_and_modes_are_a_set() -> None:
    record = architecture()
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.name = "other"  # type: ignore[misc]
    assert Capabilities(modes=["causal", "causal"]).modes == frozenset({"causal"})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["d_model", "n_layers", "max_len"])
def test_shapes_are_positive(name: str) -> None:
    fields: dict[str, Any] = {"d_model": 8, "n_layers": 1, "mode": "causal", "max_len": 8, name: 0}
    with pytest.raises(ConfigError, match="got 0") as caught:
        ModelDims(**fields)
    assert caught.value.key == name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone": "no_such_module:Backbone"}, "No module named 'no_such_module'"),
        ({"backbone": "tests.testing.toys.backbone:Nothing"}, "no attribute 'Nothing'"),
        ({"backbone": "tests.testing.toys.backbone"}, "expected 'package.module:attribute'"),
        ({"backbone": "tests.testing.toys.config:ToyConfig"}, "not a subclass of zoo.Backbone"),
    ],
)
def test_a_backbone_that_cannot_be_loaded_is_named(change: dict[str, str], said: str) -> None:
    with pytest.raises(ZooError, match=said):
        dataclasses.replace(EMA, **change).load_backbone()


def test_a_config_that_is_no_dataclass_is_named() -> None:
    with pytest.raises(ZooError, match="is not a dataclass"):
        dataclasses.replace(EMA, config="collections:OrderedDict").load_config()


def test_missing_presets_are_none() -> None:
    assert architecture(config="collections:OrderedDict").load_presets() == {}
    assert architecture(config="collections:OrderedDict").load_reported() == ()
    assert EMA.load_presets()["listops", "quick"].sources["optim.lr"] == "ours, a toy"


def test_task_parts_that_cannot_be_loaded_are_named() -> None:
    with pytest.raises(ZooError, match="data of t 'no_such_module:Data' cannot be imported"):
        task().load_data()


def test_a_mode_that_is_not_declared_is_refused() -> None:
    record = dataclasses.replace(
        EMA, capabilities=dataclasses.replace(EMA.capabilities, modes=frozenset({"bidirectional"}))
    )
    with pytest.raises(ConfigError, match="toy_ema is bidirectional; it has no causal form") as caught:
        record.build(d_model=8, n_layers=1, mode="causal", max_len=8)
    assert caught.value.key == "model.mode"
    assert caught.value.exit_code == 2


def test_what_the_configuration_refuses_carries_its_full_key() -> None:
    with pytest.raises(ConfigError, match="9 is not divisible by heads = 2") as caught:
        EMA.build(d_model=9, n_layers=1, mode="causal", max_len=8)
    assert caught.value.key == "model.d_model"


def test_building_from_fields() -> None:
    backbone = EMA.build(d_model=8, n_layers=3, mode="causal", max_len=8)
    assert backbone.dims == ModelDims(d_model=8, n_layers=3, mode="causal", max_len=8)
