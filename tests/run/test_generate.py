"""Generation: the same tokens whether states are carried or the text is read again, for everything that generates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.data.batch import Batch
from zoo.data.questions import IGNORE
from zoo.model.generate import draw
from zoo.model.models import LMHeadModel
from zoo.run.request import BenchRequest, resolve
from zoo.spec.errors import ConfigError
from zoo.spec.registry import registry

GENERATING = [name for name, entry in registry().architectures.items() if entry.record.capabilities.modes & {"causal"}]


def model(arch: str, **overrides: Any) -> LMHeadModel:
    """A small language model with random weights, sharp enough that the likeliest token depends on the text."""
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    (experiment,) = resolve(BenchRequest.parse(arch, "mqar", protocol="smoke", overrides=keys))
    torch.manual_seed(0)
    built = experiment.kind.build_model(experiment.model_spec)
    assert isinstance(built, LMHeadModel)
    with torch.no_grad():
        built.head.weight *= 8
    return built.double().eval()


def prompts(n: int = 9) -> tuple[Tensor, Tensor]:
    """Three prompts of 9, 5 and 1 tokens, pads at the end."""
    tokens = torch.randint(1, 16, (3, n), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(n) < torch.tensor([n, 5, 1])[:, None]
    return tokens.masked_fill(~mask, 0), mask


def read_again(made: LMHeadModel, tokens: Tensor, n: int) -> Tensor:
    """n likeliest tokens after one prompt (L,), each from the whole text, by what training and evaluation call."""
    for _ in range(n):
        labels = torch.full((1, len(tokens)), IGNORE)
        labels[0, -1] = 0
        logits = made(Batch(tokens[None], None, labels)).logits
        tokens = torch.cat([tokens, logits.argmax(-1)])
    return tokens[-n:]


@pytest.mark.parametrize("arch", GENERATING)
def test_prompts_of_any_length_are_continued_as_each_alone_read_again(arch: str) -> None:
    segments = {"segments__length": 4} if registry().architecture(arch).record.capabilities.segment else {}
    made, (tokens, mask) = model(arch, **segments), prompts()
    new = zoo.generate(made, tokens, 7, mask=mask)
    assert new.shape == (3, 7)
    with torch.no_grad():
        alone = [read_again(made, row[real], 7) for row, real in zip(tokens, mask, strict=True)]
    assert new.tolist() == [row.tolist() for row in alone]
    assert len({tuple(row) for row in new.tolist()}) > 1, "every prompt has the same continuation"
    left = torch.arange(9) >= torch.tensor([0, 4, 8])[:, None]
    moved = torch.zeros_like(tokens).masked_scatter(left, tokens[mask])
    assert zoo.generate(made, moved, 7, mask=left).tolist() == new.tolist()


def test_segments_that_are_counted_from_the_end_take_no_steps() -> None:
    made = model("transformer_xl", segments__length=4, segments__align="right")
    assert not made.capabilities.step
    assert model("transformer_xl").capabilities.step


def test_the_decoder_of_an_encoder_decoder_writes_what_it_would_score() -> None:
    made, (tokens, mask) = model("longt5"), prompts()
    assert made.objective == "seq2seq"
    read, decode = list[int](), made.backbone.decode
    made.backbone.decode = lambda y, **rest: read.append(y.shape[1]) or decode(y, **rest)
    new = zoo.generate(made, tokens, 6, mask=mask, eos=2)
    assert read == [1] * new.shape[1]  # each token goes on from the keys and values of those before
    target = torch.cat([torch.full((3, 1), 2), new[:, :-1]], 1)
    with torch.no_grad():
        out = made(Batch(tokens, mask, torch.zeros_like(target), target))
    likeliest = out.logits.argmax(-1).view(3, -1)
    ended = torch.cat([torch.zeros(3, 1, dtype=torch.bool), (new == 2).cumsum(1)[:, :-1] > 0], 1)
    assert torch.equal(new, likeliest.masked_fill(ended, 0))


def test_a_row_ends_with_its_end_symbol_and_all_with_the_last() -> None:
    made, (tokens, mask) = model("transformer"), prompts()
    free = zoo.generate(made, tokens, 12, mask=mask)
    eos = int(free[1, 3])
    new = zoo.generate(made, tokens, 12, mask=mask, eos=eos)
    for row, unbound in zip(new.tolist(), free.tolist(), strict=True):
        stop = unbound.index(eos) + 1 if eos in unbound else len(unbound)
        assert row == [*unbound[:stop], *[0] * (len(row) - stop)][: len(row)]
    assert zoo.generate(made, tokens[1:2, :5], 12, eos=eos).shape[1] == free[1].tolist().index(eos) + 1


def test_draws_repeat_by_their_seed() -> None:
    made, (tokens, mask) = model("s5"), prompts()
    first, again, other = (zoo.generate(made, tokens, 20, mask=mask, temperature=2.0, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not made.training
    made.train()
    zoo.generate(made, tokens, 1, mask=mask)
    assert made.training


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 9}, {0, 1, 2, 3}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.51}, {0, 1}),
        ({"top_p": 0.85}, {0, 1, 2}),
        ({"top_k": 2, "top_p": 0.99}, {0, 1}),
        ({"temperature": 0.0}, {0}),
    ],
)
def test_only_the_likeliest_are_drawn(setting: dict[str, Any], allowed: set[int]) -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64).log().expand(4000, 4)
    options = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | setting
    drawn = draw(logits, **options, generator=torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == allowed
    if options["temperature"] and len(allowed) > 1:
        share = torch.tensor([0.5, 0.3, 0.15, 0.05])[: len(allowed)]
        counts = drawn.bincount(minlength=4)[: len(allowed)] / 4000
        torch.testing.assert_close(counts, share / share.sum(), rtol=0, atol=0.03)


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([2.0, 0.0]).expand(20000, 2)
    drawn = draw(logits, 2.0, 0, 1.0, torch.Generator().manual_seed(0))
    assert drawn.double().mean().item() == pytest.approx(1 - torch.tensor(1.0).sigmoid().item(), abs=0.015)


@pytest.mark.parametrize(
    ("arch", "options", "key", "message"),
    [
        ("linformer", {}, "model", "trained for infilling, which predicts no next token"),
        ("longt5", {}, "start", "give start or eos"),
        ("s5", {"temperature": -1.0}, "temperature", "at least 0, got -1"),
        ("s5", {"top_p": 0.0}, "top_p", r"in \(0, 1\], got 0"),
        ("s5", {"top_k": -1}, "top_k", "at least 0"),
        ("s5", {"max_new_tokens": 0}, "max_new_tokens", "at least 1"),
    ],
)
def test_what_cannot_be_is_named(arch: str, options: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        zoo.generate(model(arch), prompts()[0], **({"max_new_tokens": 3} | options))
    assert caught.value.key == key


def test_positions_that_run_out_say_so() -> None:
    made = model("transformer", arch__positions="learned")
    longest = made.max_len
    tokens = torch.ones(1, longest - 2, dtype=torch.int64)
    assert zoo.generate(made, tokens, 3).shape == (1, 3)
    with pytest.raises(ValueError, match=f"{longest + 1} tokens, but learned positions for {longest}"):
        zoo.generate(made, tokens, 4)
