"""Positions: properties of each form. Published values are in tests/parity."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo import ConfigError
from zoo.ops import positions as pos

FEW = settings(max_examples=25, deadline=None)
heads = st.integers(1, 40)
even = st.integers(1, 16).map(lambda n: 2 * n)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# -- sinusoidal ----------------------------------------------------------------------------------------------------


@FEW
@given(d_model=st.integers(1, 33), seq_len=st.integers(1, 40))
def test_interleaved_sinusoids_are_the_papers(d_model: int, seq_len: int) -> None:
    table = pos.sinusoidal(torch.arange(seq_len), d_model)
    assert table.shape == (seq_len, d_model)
    for p in (0, seq_len - 1):
        for c in range(d_model):
            angle = p / 10000 ** (2 * (c // 2) / d_model)
            assert table[p, c].item() == pytest.approx(math.cos(angle) if c % 2 else math.sin(angle), abs=1e-12)


def test_concatenated_sinusoids_end_at_the_base() -> None:
    table = pos.sinusoidal(torch.arange(3), 8, layout="concatenated")
    torch.testing.assert_close(table[2, :4], torch.sin(2 * 10000.0 ** (-torch.arange(4).double() / 3)))
    torch.testing.assert_close(table[2, 4:], torch.cos(2 * 10000.0 ** (-torch.arange(4).double() / 3)))
    with pytest.raises(ConfigError, match="even width, got 7"):
        pos.sinusoidal(torch.arange(3), 7, layout="concatenated")
    with pytest.raises(ConfigError, match="'half': expected interleaved or concatenated"):
        pos.sinusoidal(torch.arange(3), 8, layout="half")


# -- rotary --------------------------------------------------------------------------------------------------------


@FEW
@given(
    d_head=even,
    i=st.integers(0, 500),
    j=st.integers(0, 500),
    shift=st.integers(0, 10_000),
    layout=st.sampled_from(["half-split", "interleaved"]),
)
def test_rope_scores_depend_on_the_distance_only(
    d_head: int, i: int, j: int, shift: int, layout: pos.RopeLayout
) -> None:
    q, k = noise(1, d_head, seed=1), noise(1, d_head, seed=2)
    frequencies = pos.rope(d_head)

    def score(i: int, j: int) -> float:
        turned = [
            pos.rotate(x, *pos.rope_tables(torch.tensor([p]), frequencies), layout=layout) for x, p in ((q, i), (k, j))
        ]
        return (turned[0] @ turned[1].T).item()

    assert score(i, j) == pytest.approx(score(i + shift, j + shift), abs=1e-9)
    assert score(i, i) == pytest.approx((q @ k.T).item(), abs=1e-12)


@FEW
@given(d_head=even, seq_len=st.integers(1, 20))
def test_layouts_are_one_map_up_to_a_permutation(d_head: int, seq_len: int) -> None:
    x = noise(2, 3, seq_len, d_head)
    tables = pos.rope_tables(torch.arange(seq_len), pos.rope(d_head))
    order = torch.cat([torch.arange(0, d_head, 2), torch.arange(1, d_head, 2)])
    interleaved = pos.rotate(x, *tables, layout="interleaved")
    torch.testing.assert_close(interleaved[..., order], pos.rotate(x[..., order], *tables))
    torch.testing.assert_close(interleaved.norm(dim=-1), x.norm(dim=-1))


def test_rotation_in_bfloat16_is_rounded_once() -> None:
    x = noise(1, 1, 5, 8).bfloat16()
    tables = pos.rope_tables(torch.tensor([0, 1, 16_000, 16_001, 100_000]), pos.rope(8))
    exact = pos.rotate(x.double(), *tables)
    assert pos.rotate(x, *tables).dtype == torch.bfloat16
    torch.testing.assert_close(pos.rotate(x, *tables), exact.bfloat16(), rtol=2**-7, atol=1e-6)


@FEW
@given(d_head=st.integers(2, 16).map(lambda n: 2 * n), factor=st.floats(1.0, 16.0), seq_len=st.integers(1, 64))
def test_extensions_are_neutral_within_the_trained_length(d_head: int, factor: float, seq_len: int) -> None:
    plain = pos.rope(d_head).inv_freq
    dynamic = pos.rope_dynamic_ntk(d_head, factor=factor, trained_len=64, seq_len=seq_len)
    torch.testing.assert_close(dynamic.inv_freq, plain)
    torch.testing.assert_close(pos.rope_ntk(d_head, alpha=1.0).inv_freq, plain)
    torch.testing.assert_close(pos.rope_linear(d_head, factor=1.0).inv_freq, plain)
    yarn = pos.rope_yarn(d_head, factor=1.0, trained_len=64)
    torch.testing.assert_close(yarn.inv_freq, plain)
    assert yarn.factor == 1.0


@FEW
@given(d_head=st.integers(2, 32).map(lambda n: 2 * n), factor=st.floats(1.5, 32.0))
def test_extensions_scale_frequencies_as_published(d_head: int, factor: float) -> None:
    plain = pos.rope(d_head).inv_freq
    linear = pos.rope_linear(d_head, factor=factor).inv_freq
    torch.testing.assert_close(linear * factor, plain)
    ntk = pos.rope_ntk(d_head, alpha=factor).inv_freq
    torch.testing.assert_close(ntk[0], plain[0])  # the fastest pair keeps its speed,
    torch.testing.assert_close(ntk[-1], linear[-1])  # the slowest is interpolated
    yarn = pos.rope_yarn(d_head, factor=factor, trained_len=4096)
    assert bool(((yarn.inv_freq <= plain + 1e-15) & (yarn.inv_freq >= linear - 1e-15)).all())
    assert yarn.factor == pytest.approx(0.1 * math.log(factor) + 1)
    twice = pos.rope_dynamic_ntk(d_head, factor=1.0, trained_len=64, seq_len=128).inv_freq
    torch.testing.assert_close(twice, pos.rope_ntk(d_head, alpha=2.0).inv_freq)


def test_yarn_temperature_scales_scores_by_its_square() -> None:
    x, p = noise(4, 16), torch.arange(4)
    warm = pos.rope_yarn(16, factor=8.0, trained_len=32)
    cold = pos.rope_yarn(16, factor=8.0, trained_len=32, attention_factor=1.0)
    a, b = (pos.rotate(x, *pos.rope_tables(p, frequencies)) for frequencies in (warm, cold))
    torch.testing.assert_close(a @ a.T, (b @ b.T) * (0.1 * math.log(8) + 1) ** 2)
    both = pos.rope_yarn(16, factor=8.0, trained_len=32, mscale=2.0, mscale_all_dim=2.0)
    assert both.factor == 1.0


@pytest.mark.parametrize("d_head", [0, 1, 7])
def test_an_odd_head_cannot_be_rotated(d_head: int) -> None:
    with pytest.raises(ConfigError, match=f"must be even, got {d_head}"):
        pos.rope(d_head)


def test_ntk_needs_four_channels() -> None:
    with pytest.raises(ConfigError, match="d >= 4, got 2"):
        pos.rope_ntk(2, alpha=2.0)


# -- linear biases -------------------------------------------------------------------------------------------------


@FEW
@given(heads)
def test_alibi_slopes_are_distinct_and_between_0_and_1(n_heads: int) -> None:
    slopes = pos.alibi_slopes(n_heads)
    assert slopes.shape == (n_heads,)
    assert slopes.unique().numel() == n_heads
    assert bool(((slopes > 0) & (slopes < 1)).all())


def test_alibi_slopes_of_the_paper() -> None:
    torch.testing.assert_close(pos.alibi_slopes(8), 2.0 ** -torch.arange(1, 9).double())
    expected = [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]
    torch.testing.assert_close(pos.alibi_slopes(6), torch.tensor(expected, dtype=torch.float64))


@FEW
@given(n_heads=st.integers(1, 9), seq_len=st.integers(1, 30))
def test_symmetric_bias_is_a_view_of_its_lags(n_heads: int, seq_len: int) -> None:
    slopes = pos.alibi_slopes(n_heads)
    bias = pos.alibi_symmetric(slopes, seq_len)
    i = torch.arange(seq_len)
    torch.testing.assert_close(bias.flip(-1)[0], -slopes[:, None, None] * (i[:, None] - i).abs())
    assert bias.untyped_storage().nbytes() == 8 * n_heads * (2 * seq_len - 1)


def test_positions_count_real_tokens() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    assert pos.real_positions(mask).tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]


# -- T5's buckets --------------------------------------------------------------------------------------------------


@FEW
@given(half=st.integers(2, 20), extra=st.integers(1, 200), bidirectional=st.booleans())
def test_t5_buckets_are_exact_then_wider_then_one(half: int, extra: int, bidirectional: bool) -> None:
    n, limit = 2 * half, half + extra
    per_sign = half if bidirectional else n
    lags = torch.arange(-2 * limit, 2 * limit + 1)
    bucket = pos.t5_buckets(lags, bidirectional=bidirectional, n_buckets=n, max_distance=limit)
    past = bucket[: 2 * limit + 1].flip(0)  # by distance 0, 1, ...
    assert torch.equal(past[: per_sign // 2], torch.arange(per_sign // 2))
    assert bool((past.diff() >= 0).all())
    assert past[limit:].unique().tolist() == [per_sign - 1]
    later = bucket[2 * limit + 1 :]
    assert torch.equal(later, past[1:] + per_sign if bidirectional else torch.zeros_like(later))


@pytest.mark.parametrize(("bidirectional", "n", "limit"), [(True, 3, 9), (False, 1, 9), (True, 32, 8), (False, 32, 16)])
def test_t5_buckets_without_room_are_refused(bidirectional: bool, n: int, limit: int) -> None:
    with pytest.raises(ConfigError, match=str(n if n < 4 else limit)):
        pos.t5_buckets(torch.arange(3), bidirectional=bidirectional, n_buckets=n, max_distance=limit)
