"""The learning-rate schedule and the parameter groups."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from zoo.nn import param_options, parameter_groups
from zoo.run.optim import build_optimizer, schedule_factor
from zoo.spec.settings import OptimSettings


@pytest.mark.parametrize(
    ("schedule", "at_half", "at_end"),
    [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0), ("rsqrt", 1 / math.sqrt(5.5), 0.1**0.5)],
)
def test_schedules_rise_to_one_and_fall_as_named(schedule: str, at_half: float, at_end: float) -> None:
    settings = OptimSettings(lr_scheduler=schedule, warmup_ratio=0.1)
    factors = [schedule_factor(step, steps=1000, settings=settings) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[99] == 1.0
    assert max(factors) == 1.0
    assert factors[550 if schedule != "rsqrt" else 549] == pytest.approx(at_half, abs=1e-3)
    assert factors[999] == pytest.approx(at_end, abs=3e-3)


def test_no_warmup_begins_at_the_peak_and_min_ratio_is_the_floor() -> None:
    settings = OptimSettings(warmup_ratio=0.0, min_lr_ratio=0.2)
    assert schedule_factor(0, steps=10, settings=settings) == 1.0
    assert schedule_factor(10, steps=10, settings=settings) == pytest.approx(0.2)


@pytest.mark.parametrize("steps", [1, 7, 40])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_every_step_has_the_rate_of_the_schedules_formula(steps: int, warmup: float) -> None:
    warm = round(warmup * steps)
    rest = max(steps - warm, 1)
    shapes = {
        "constant": lambda k: 1.0,
        "linear": lambda k: 0.2 + 0.8 * (1 - k / rest),
        "cosine": lambda k: 0.2 + 0.8 * math.cos(math.pi / 2 * k / rest) ** 2,
        "rsqrt": lambda k: (max(warm, 1) / (warm + k + 1)) ** 0.5,
    }
    for name, shape in shapes.items():
        settings = OptimSettings(lr_scheduler=name, warmup_ratio=warmup, min_lr_ratio=0.2)
        expected = [(step + 1) / warm for step in range(warm)] + [shape(k) for k in range(steps - warm + 1)]
        found = [schedule_factor(step, steps=steps, settings=settings) for step in range(steps + 1)]
        assert found == pytest.approx(expected), name
        if name in ("linear", "cosine"):
            assert schedule_factor(steps + 5, steps=steps, settings=settings) == pytest.approx(0.2)


class Marked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.ones(3, 2))
        self.linear = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.embedding = nn.Embedding(4, 2)
        self.slow = nn.Parameter(torch.ones(2, 2))
        param_options(self, "A_log", lr=1e-4, weight_decay=0.0)
        param_options(self, "slow", lr_scale=0.5)


def test_groups_honour_marks_and_spare_biases_norms_and_embeddings() -> None:
    model = Marked()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, lr=1e-2, weight_decay=0.1)
    settings = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert settings == {
        "A_log": (1e-4, 0.0),
        "slow": (5e-3, 0.1),
        "linear.weight": (1e-2, 0.1),
        "linear.bias": (1e-2, 0.0),
        "norm.weight": (1e-2, 0.0),
        "norm.bias": (1e-2, 0.0),
        "embedding.weight": (1e-2, 0.0),
    }


def test_the_schedule_scales_every_group() -> None:
    optimizer, scheduler = build_optimizer(Marked(), OptimSettings(lr=1e-2, warmup_ratio=0.5), steps=10)
    optimizer.step()
    scheduler.step()
    rates = sorted(group["lr"] for group in optimizer.param_groups)
    assert rates == pytest.approx([4e-5, 2e-3, 4e-3, 4e-3])


def test_the_optimiser_is_adamw_with_the_settings_betas_and_epsilon() -> None:
    settings = OptimSettings(lr=1e-2, betas=[0.5, 0.75], eps=1e-3, weight_decay=0.1, warmup_ratio=0.0)
    model = nn.Linear(3, 3, bias=False)
    expected = nn.Linear(3, 3, bias=False)
    expected.load_state_dict(model.state_dict())
    ours, _ = build_optimizer(model, settings, steps=10)
    theirs = torch.optim.AdamW(expected.parameters(), lr=1e-2, betas=(0.5, 0.75), eps=1e-3, weight_decay=0.1)
    for scale in (1e-3, -2e-3, 1e-3):
        for module, optimizer in ((model, ours), (expected, theirs)):
            optimizer.zero_grad()
            (scale * module(torch.eye(3)).square().sum()).backward()
            optimizer.step()
    torch.testing.assert_close(model.weight, expected.weight, rtol=0, atol=0)


def test_a_mark_on_nothing_and_two_rates_are_refused() -> None:
    module = nn.Linear(2, 2)
    with pytest.raises(KeyError, match="no parameter 'wieght'"):
        param_options(module, "wieght", lr=1.0)
    with pytest.raises(ValueError, match="not both"):
        param_options(module, "weight", lr=1.0, lr_scale=1.0)
