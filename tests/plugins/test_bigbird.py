"""What is particular to BigBird: which blocks are seen, and that only the example decides it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo import ConfigError, ModelDims, registry
from zoo.testing import ARCHITECTURE_CHECKS, ArchitectureSubject
from zoo_bigbird.backbone import BigBirdAttention, BigBirdBackbone
from zoo_bigbird.config import BigBirdConfig
from zoo_bigbird.op import draw_blocks

SMALL: dict[str, dict[str, Any]] = {
    "small blocks": {"block_size": 2, "n_random": 1, "n_heads": 2},
    "no random blocks": {"block_size": 3, "n_random": 0, "n_heads": 2, "bias": False},
    "tokens, as BERT": {"block_size": 1, "n_random": 2, "n_heads": 1, "prenorm": False},
}
EXACT = [
    "shapes",
    "length_contract",
    "every_parameter_gets_a_gradient",
    "gradients_match_finite_differences",
    "deterministic",
    "pure_function",
    "state_dict_round_trip",
    "rows_do_not_mix",
    "causal",
    "bidirectional_sees_both_ways",
    "padding_changes_nothing",
    "content_of_pads_is_irrelevant",
    "all_true_mask_equals_no_mask",
    "fully_masked_row_is_finite",
    "stateless_modes_refuse_a_state",
    "follows_the_device_of_its_input",
]


@pytest.mark.parametrize("variant", list(SMALL))
def test_conformance_with_blocks_that_bind(variant: str) -> None:
    """With the default block the suite's inputs are short enough for full attention."""
    subject, checks = ArchitectureSubject.find("bigbird", SMALL[variant]), {c.name: c for c in ARCHITECTURE_CHECKS}
    for name in EXACT:
        checks[name](subject)


def build(mode: str, max_len: int = 64, n_layers: int = 1, **fields: Any) -> BigBirdBackbone:
    config = BigBirdConfig(**{"n_heads": 1, "block_size": 4, "n_random": 2} | fields)
    dims = ModelDims(d_model=8, n_layers=n_layers, mode=mode, max_len=max_len)
    config.check(dims)
    torch.manual_seed(0)
    return BigBirdBackbone(config, dims).double().eval()


def mixer_of(backbone: BigBirdBackbone, layer: int = 0) -> BigBirdAttention:
    mixer = backbone.stack.blocks[layer].mixer
    assert isinstance(mixer, BigBirdAttention)
    return mixer


def reach(backbone: BigBirdBackbone, length: int, at: int, mask: Tensor | None = None) -> set[int]:
    """Inputs on which output `at` depends."""
    x = torch.randn(1, length, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (gradient,) = torch.autograd.grad(backbone(x, mask=mask).hidden[0, at].square().sum(), x)
    return set(gradient[0].abs().sum(-1).nonzero().flatten().tolist())


def tokens_of(blocks: set[int], length: int, block: int = 4) -> set[int]:
    return {i for i in range(length) if i // block in blocks}


@pytest.mark.parametrize("length", [61, 64])
@pytest.mark.parametrize("real", [None, 50])
def test_what_a_block_sees(length: int, real: int | None) -> None:
    """Global, window and its random blocks; with pads the last block is that of the last real token."""
    backbone = build("bidirectional")
    mask = None if real is None else (torch.arange(length) < real)[None]
    count = -(-(real or length) // 4)
    chosen = mixer_of(backbone).random_blocks(-(-length // 4), torch.tensor([count]))[0, 0]  # (n, 2)
    for b in range(1, count - 1):
        blocks = {0, b - 1, b, b + 1, count - 1, *chosen[b].tolist()}
        assert reach(backbone, length, 4 * b + 1, mask) == tokens_of(blocks, real or length)
    for at in (0, 3, 4 * (count - 1)):
        assert reach(backbone, length, at, mask) == set(range(real or length))


def test_what_a_block_sees_causally() -> None:
    backbone = build("causal")
    chosen = mixer_of(backbone).random_blocks(16)[0, 0]
    for i in range(61):
        b = i // 4
        seen = tokens_of({0, b - 1, b, *chosen[b].tolist()}, 61)
        assert reach(backbone, 61, i) == {j for j in seen if j <= i}


@pytest.mark.parametrize(("length", "full"), [(1, True), (3, True), (35, True), (36, True), (37, False)])
def test_short_inputs_are_attended_to_in_full(length: int, full: bool) -> None:
    """Up to 5 + 2 r blocks, here of 4 tokens with r = 2."""
    seen = [reach(build("bidirectional"), length, at) for at in range(length)]
    assert all(s == set(range(length)) for s in seen) == full


def test_long_and_short_examples_in_one_batch() -> None:
    backbone = build("bidirectional", n_layers=2)
    lengths = [64, 36, 37, 5, 0, 41]
    x = torch.randn(len(lengths), 64, 8, dtype=torch.float64)
    together = backbone(x, mask=torch.arange(64) < torch.tensor(lengths)[:, None]).hidden
    for row, length in enumerate(lengths):
        if length:
            alone = backbone(x[row : row + 1, :length]).hidden[0]
            torch.testing.assert_close(together[row, :length], alone, rtol=1e-10, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 14), r=st.integers(0, 4), count=st.integers(1, 14), seed=st.integers(0, 20))
def test_drawn_blocks_are_different_and_not_taken(n: int, r: int, count: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    draws = torch.randint(1 << 31, (2, n, r), generator=g)
    taken = torch.randint(-1, count + 1, (1, n, 4), generator=g)
    drawn = draw_blocks(draws, torch.full((1, n), count), taken)
    assert drawn.shape == (1, 2, n, r)
    for h in range(2):
        for b in range(n):
            free = set(range(count)) - set(taken[0, b].tolist())
            blocks = [x for x in drawn[0, h, b].tolist() if x >= 0]
            assert set(blocks) <= free
            assert len(set(blocks)) == len(blocks) == min(r, len(free))


def test_every_free_block_is_drawn_equally_often() -> None:
    draws = torch.randint(1 << 31, (1, 6000, 2), generator=torch.Generator().manual_seed(0))
    taken = torch.tensor([0, 3, 4, 5, 9]).expand(1, 6000, -1)
    drawn = draw_blocks(draws, torch.full((1, 6000), 10), taken)
    often = torch.bincount(drawn.flatten(), minlength=10)
    assert often[[0, 3, 4, 5, 9]].sum() == 0
    assert (often[[1, 2, 6, 7, 8]] - 2400).abs().max() < 150  # 4 standard deviations of a binomial


def test_the_seed_decides_the_random_blocks() -> None:
    first, same = mixer_of(build("bidirectional", seed=3)), mixer_of(build("bidirectional", seed=3))
    assert torch.equal(first.random_blocks(16), same.random_blocks(16))
    others = [
        mixer_of(build("bidirectional", seed=4)),
        mixer_of(build("bidirectional", seed=3, n_layers=2), layer=1),
    ]
    for other in others:
        assert not torch.equal(first.random_blocks(16), other.random_blocks(16))
    heads = mixer_of(build("bidirectional", n_heads=2)).random_blocks(16)[0]
    assert not torch.equal(heads[0], heads[1])
    before = torch.random.get_rng_state()
    first.random_blocks(16)
    assert torch.equal(torch.random.get_rng_state(), before)
    longer = mixer_of(build("bidirectional", seed=3, max_len=256))
    assert torch.equal(longer.random_blocks(16), first.random_blocks(16)), "max_len changes the pattern"
    assert torch.equal(first.half().random_blocks(16), same.random_blocks(16)), "a cast changes the pattern"


def test_a_longer_sequence_than_built_for_names_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"65 tokens.*64"):
        build("bidirectional")(torch.randn(1, 65, 8, dtype=torch.float64))


def test_a_long_sequence_takes_no_square() -> None:
    """16,384 tokens: the (L, L) scores alone would be 1 GiB per head."""
    backbone = BigBirdBackbone(BigBirdConfig(), ModelDims(d_model=32, n_layers=1, mode="bidirectional", max_len=16384))
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        backbone(torch.randn(1, 16384, 32)).hidden.sum().backward()
    assert sum(kept.values()) < 200 * 2**20


@pytest.mark.parametrize(
    ("fields", "key", "numbers"),
    [
        ({"n_heads": 3}, "n_heads", ["3", "8"]),
        ({"d_qkv": 10}, "n_heads", ["4", "10"]),
        ({"block_size": 0}, "block_size", ["0"]),
        ({"n_random": -1}, "n_random", ["-1"]),
        ({"seed": -1}, "seed", ["-1"]),
        ({"activation": "tanh"}, "activation", ["tanh", "gelu"]),
        ({"norm_eps": 0.0}, "norm_eps", ["0"]),
        ({"attn_dropout": 1.0}, "attn_dropout", ["1.0"]),
    ],
)
def test_impossible_configurations_are_named(fields: dict[str, Any], key: str, numbers: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        registry().architecture("bigbird").record.check(
            BigBirdConfig(**fields), ModelDims(d_model=8, n_layers=2, mode="causal", max_len=64)
        )
    assert caught.value.key == f"arch.{key}"
    for number in numbers:
        assert number in caught.value.message
