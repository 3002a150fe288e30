"""A tiny architecture and a tiny task, as a third party would register them (ZOO_PLUGINS=tests.run.toy)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zoo import Architecture, Capabilities, ConfigError, Cost, ModelDims, Paper, Source, Task, hookimpl


@dataclass
class ToyConfig:
    dropout: float = 0.1
    """Dropout after the recurrence."""
    fault: str = ""
    """nan | val-nan | oom | raise | SIGKILL | SIGSEGV: what goes wrong, and when it does."""
    fault_at: int = 3
    """The call at which it goes wrong; 0 = when it is built."""

    def check(self, dims: ModelDims) -> None:
        if dims.d_model % 4:
            raise ConfigError("d_model", f"{dims.d_model} is not a multiple of 4")
        if self.fault not in ("", "nan", "val-nan", "oom", "raise", "SIGKILL", "SIGSEGV"):
            raise ConfigError("fault", f"{self.fault!r} is unknown")


@dataclass
class ToyOptions:
    train_size: int = 96
    """Training examples."""
    seq_len: int = 12
    """Longest sequence."""
    input: str = "tokens"
    """tokens | values"""


@dataclass
class QuestionOptions:
    train_size: int = 96
    """Training examples."""
    seq_len: int = 12
    """Longest sequence in training."""
    longest: int = 48
    """Longest of all."""
    form: str = "marked"
    """marked | continuation"""
    ragged: bool = False
    """Whether pieces of text differ in length."""
    stray: bool = False
    """A setting that came later."""


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="toy",
        title="Toy",
        family="test",
        paper=Paper(title="None", authors="Nobody", venue="nowhere", year=2026),
        reference=None,
        backbone="tests.run.toy_torch:ToyBackbone",
        config="tests.run.toy:ToyConfig",
        capabilities=Capabilities(modes=frozenset({"causal"})),
        cost=Cost(time="L", memory="L", time_exponent=1.0, memory_exponent=1.0),
    )


@hookimpl
def zoo_tasks() -> Iterator[Task]:
    common: dict[str, Any] = {"model.d_model": 16, "model.n_layers": 1, "train.batch_size": 8}
    yield Task(
        name="toytask",
        suite="toys",
        title="Toy task",
        version="1",
        kind="classification",
        vocab_size=5,
        classes=2,
        length=12,
        metrics=("accuracy",),
        chance=0.5,
        license="none",
        source=Source(),
        data="tests.run.toy_torch:ToyData",
        options="tests.run.toy:ToyOptions",
        protocols={
            "smoke": common | {"train.max_samples": 32, "train.val_every": 16},
            "quick": common | {"train.max_samples": 256, "train.val_every": 64, "optim.lr": 0.01},
        },
    )
    yield Task(
        name="toypairs",
        suite="toy kinds",
        title="Toy pairs",
        version="1",
        kind="pair_classification",
        vocab_size=5,
        classes=2,
        length=12,
        metrics=("accuracy",),
        chance=0.5,
        license="none",
        source=Source(),
        data="tests.run.toy_torch:PairData",
        options="tests.run.toy:ToyOptions",
        protocols={"smoke": common | {"train.max_samples": 32, "train.val_every": 16}},
    )
    for name, kind, metrics in (
        ("toyrecall", "recall", ("accuracy",)),
        ("toytext", "language_modeling", ("perplexity",)),
    ):
        yield Task(
            name=name,
            suite="questions",
            title=f"Toy {kind}",
            version="1",
            kind=kind,  # type: ignore[arg-type]
            vocab_size=24,
            classes=0,
            length=12,
            metrics=metrics,
            chance=0.05,
            license="none",
            source=Source(),
            data=f"tests.run.toy_questions:{'RecallData' if kind == 'recall' else 'TextData'}",
            options="tests.run.toy:QuestionOptions",
            protocols={
                "smoke": common | {"train.max_samples": 32, "train.val_every": 16},
                "quick": common | {"train.max_samples": 768, "train.val_every": 256, "optim.lr": 0.01},
            },
            higher_is_better=kind == "recall",
        )
    yield Task(
        name="toyregression",
        suite="toy kinds",
        title="Toy regression",
        version="1",
        kind="tests.run.toy_kind:Regression",
        vocab_size=5,
        classes=1,
        length=12,
        metrics=("mse",),
        higher_is_better=False,
        chance=1.0,
        license="none",
        source=Source(),
        data="tests.run.toy_kind:RegressionData",
        options="tests.run.toy:ToyOptions",
        protocols={
            "smoke": common | {"train.max_samples": 32, "train.val_every": 16},
            "quick": common | {"train.max_samples": 1024, "train.val_every": 256, "optim.lr": 0.01},
        },
    )
