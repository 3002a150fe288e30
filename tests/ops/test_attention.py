"""Attention: the fused form against the definition, its memory, and SelfExtend."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import zoo.ops.attention
from zoo import ConfigError
from zoo.ops import positions as pos
from zoo.ops.attention import attention, reference_attention, self_extend_attention, self_extend_weights
from zoo.ops.attention.reference import attention_in_parts
from zoo.ops.backend import use_backend

FEW = settings(max_examples=30, deadline=None)
FORMS = ("none", "causal", "causal-alibi", "symmetric-alibi")


def noise(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    drawn = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return drawn.to(dtype).requires_grad_()


def some_mask(kind: str, batch: int, length: int, seed: int = 0) -> Tensor | None:
    if kind == "none":
        return None
    if kind == "holes":
        return torch.rand(batch, length, generator=torch.Generator().manual_seed(seed)) < 0.6
    lengths = torch.arange(batch) * length // max(batch - 1, 1)  # the first row is all pads
    mask = torch.arange(length) < lengths[:, None]
    return mask.flip(-1) if kind == "left" else mask


def options(form: str, heads: int, length: int, mask: Tensor | None) -> dict:
    slopes = pos.alibi_slopes(heads)
    places = torch.arange(length) if mask is None else pos.real_positions(mask)
    return {
        "none": {},
        "causal": {"causal": True},
        "causal-alibi": {"causal": True, "key_bias": pos.alibi_key_bias(slopes, places)},
        "symmetric-alibi": {"symmetric_slopes": slopes},
    }[form]


def with_gradients(run: Callable[[], Tensor], *leaves: Tensor) -> list[Tensor]:
    y = run()
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weights).sum(), leaves)]


@FEW
@given(
    form=st.sampled_from(FORMS),
    kind=st.sampled_from(["none", "right", "left", "holes"]),
    batch=st.integers(1, 4),
    heads=st.integers(1, 5),
    length=st.integers(1, 40),
    d=st.integers(1, 9),
    dv=st.integers(1, 12),
    scale=st.sampled_from([None, 1.0, 0.3]),
)
def test_the_fused_form_is_the_definition(
    form: str, kind: str, batch: int, heads: int, length: int, d: int, dv: int, scale: float | None
) -> None:
    q, k = noise(batch, heads, length, d, seed=1), noise(batch, heads, length, d, seed=2)
    v = noise(batch, heads, length, dv, seed=3)
    mask = some_mask(kind, batch, length)
    extra = options(form, heads, length, mask) | {"scale": scale}
    ours = with_gradients(lambda: attention(q, k, v, mask=mask, **extra), q, k, v)
    with use_backend("reference"):
        theirs = with_gradients(lambda: attention(q, k, v, mask=mask, **extra), q, k, v)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_the_scale_is_that_of_the_products() -> None:
    q, k, v = (noise(2, 3, 7, 4, seed=s) for s in (1, 2, 3))
    torch.testing.assert_close(attention(q, k, v, scale=1.0), (q @ k.mT).softmax(-1) @ v)
    torch.testing.assert_close(attention(q, k, v), attention(q, k, v, scale=0.5))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["right", "left", "holes"])
def test_pads_do_not_matter_and_queries_without_keys_are_zero(form: str, kind: str) -> None:
    q, k, v = (noise(3, 2, 17, 4, seed=s) for s in (1, 2, 3))
    mask = some_mask(kind, 3, 17)
    assert mask is not None
    extra = options(form, 2, 17, mask)
    y = attention(q, k, v, mask=mask, **extra)
    pad = ~mask[:, None, :, None]
    loud = attention(q, k.masked_fill(pad, 1e4), v.masked_fill(pad, -1e6), mask=mask, **extra)
    assert torch.equal(y, loud)
    sees_nothing = mask.cumsum(-1) == 0 if "causal" in form else ~mask.any(-1, keepdim=True).expand(-1, 17)
    assert torch.equal(y.abs().sum((1, 3)) == 0, sees_nothing)


@pytest.mark.parametrize("form", FORMS)
def test_left_padding_equals_none(form: str) -> None:
    q, k, v = (noise(1, 3, 9, 4, seed=s) for s in (1, 2, 3))
    longer = [torch.cat([noise(1, 3, 5, 4, seed=9), x], dim=2) for x in (q, k, v)]
    mask = torch.arange(14)[None] >= 5
    alone = attention(q, k, v, **options(form, 3, 9, None))
    padded = attention(*longer, mask=mask, **options(form, 3, 14, mask))
    torch.testing.assert_close(padded[:, :, 5:], alone, rtol=1e-10, atol=1e-12)


def test_causal_alibi_is_the_papers_bias() -> None:
    q, k, v = (noise(2, 6, 11, 4, seed=s) for s in (1, 2, 3))
    slopes, i = pos.alibi_slopes(6), torch.arange(11)
    bias = -slopes[:, None, None] * (i[:, None] - i)
    paper = reference_attention(q, k, v, visible=i[:, None] >= i, bias=bias[None])
    ours = attention(q, k, v, causal=True, key_bias=pos.alibi_key_bias(slopes, i))
    torch.testing.assert_close(ours, paper, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["none", "right"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_stays_near(form: str, kind: str, dtype: torch.dtype) -> None:
    length = 600  # positions that bfloat16 cannot hold
    narrow = [noise(2, 2, length, 8, seed=s, dtype=dtype) for s in (1, 2, 3)]
    mask = some_mask(kind, 2, length)
    extra = options(form, 2, length, mask)
    ours = attention(*narrow, mask=mask, **extra)
    exact = attention(*(x.double() for x in narrow), mask=mask, **extra)
    assert ours.dtype == dtype
    loose = 2e-2 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(ours.double(), exact, rtol=loose, atol=loose)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["none", "right"])
def test_nothing_is_stored_that_grows_with_the_square(form: str, kind: str) -> None:
    """Allocations of forward and backward at L = 2,048: a (L, L) mask of bytes alone would be 4 MiB."""
    length = 2048
    q, k, v = (noise(1, 2, length, 8, seed=s, dtype=torch.float32) for s in (1, 2, 3))
    mask = torch.arange(length)[None] < 1500 if kind == "right" else None
    extra = options(form, 2, length, mask)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        attention(q, k, v, mask=mask, **extra).sum().backward()
    names = [event.key for event in seen.key_averages()]
    assert "aten::_scaled_dot_product_flash_attention_for_cpu_backward" in names
    assert max(event.self_cpu_memory_usage for event in seen.events()) < length * length


def test_unequal_numbers_of_queries_and_keys_are_refused() -> None:
    q, k = noise(1, 1, 5, 4, seed=1), noise(1, 1, 7, 4, seed=2)
    assert attention(q, k, k).shape == (1, 1, 5, 4)
    with pytest.raises(ValueError, match="5 queries and 7 keys"):
        attention(q, k, k, causal=True)
    with pytest.raises(ValueError, match="bidirectional form"):
        attention(q, q, q, causal=True, symmetric_slopes=pos.alibi_slopes(1))


def test_dropout_drops_weights_in_both_forms() -> None:
    q, k, v = (noise(1, 1, 64, 4, seed=s) for s in (1, 2, 3))
    for backend in ("torch", "reference"):
        with use_backend(backend), torch.random.fork_rng():
            torch.manual_seed(0)
            kept = torch.stack([attention(q, k, v, dropout=0.5) for _ in range(400)])
            exact = attention(q, k, v)
        assert kept.std(0).min() > 0
        error = (kept.mean(0) - exact).abs() / (kept.std(0) / math.sqrt(400))
        assert error.max() < 6, backend


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["none", "right", "holes"])
@pytest.mark.parametrize("max_scores", [1, 40, 17 * 17 * 2, 17 * 17 * 5])
def test_attention_in_parts_is_the_definition(form: str, kind: str, max_scores: int) -> None:
    """A part is a query, some queries, an example, and some examples."""
    q, k, v = (noise(3, 2, 17, 4, seed=s) for s in (1, 2, 3))
    mask = some_mask(kind, 3, 17)
    visible = None if mask is None else mask[:, None, None]
    arguments = {"causal": False, "key_bias": None, "symmetric_slopes": None} | options(form, 2, 17, mask)
    parts, whole = (
        with_gradients(
            lambda limit=limit: attention_in_parts(
                q, k, v, visible, **arguments, dropout=0.0, scale=None, max_scores=limit
            ),
            *(q, k, v),
        )
        for limit in (max_scores, None)
    )
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_attention_in_parts_drops_the_same_weights_in_backward() -> None:
    q, k, v = (noise(2, 2, 6, 3, seed=s) for s in (1, 2, 3))

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(0)
        return attention_in_parts(q, k, v, None, True, None, None, 0.4, None, max_scores=20)

    assert (run(q, k, v) - attention(q, k, v, causal=True)).abs().max() > 0.1
    assert torch.autograd.gradcheck(run, (q, k, v), fast_mode=True)


@pytest.mark.parametrize("form", FORMS)
def test_attention_with_dropout_stores_nothing_that_grows_with_the_square(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo.ops.attention, "MAX_SCORES", 1 << 16)
    length = 1024
    q, k, v = (noise(1, 2, length, 8, seed=s, dtype=torch.float32) for s in (1, 2, 3))
    extra = options(form, 2, length, None)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as forward:
        y = attention(q, k, v, dropout=0.1, **extra)
    assert sum(event.self_cpu_memory_usage for event in forward.events()) < length * length  # kept for backward
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as backward:
        y.sum().backward()
    assert max(event.self_cpu_memory_usage for event in [*forward.events(), *backward.events()]) < length * length


# -- SelfExtend ----------------------------------------------------------------------------------------------------


def plain_rope(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    tables = pos.rope_tables(torch.arange(q.shape[-2]), pos.rope(q.shape[-1]))
    return attention(pos.rotate(q, *tables), pos.rotate(k, *tables), v, causal=True)


@FEW
@given(length=st.integers(1, 40), window=st.integers(1, 50), d=st.integers(1, 4).map(lambda n: 2 * n))
def test_self_extend_in_groups_of_one_is_rope(length: int, window: int, d: int) -> None:
    q, k, v = (noise(2, 2, length, d, seed=s) for s in (1, 2, 3))
    ours = self_extend_attention(q, k, v, group_size=1, window=window)
    torch.testing.assert_close(ours, plain_rope(q, k, v), rtol=1e-9, atol=1e-11)


@FEW
@given(length=st.integers(1, 24), group=st.integers(1, 6), block=st.integers(1, 30))
def test_self_extend_within_its_window_is_rope(length: int, group: int, block: int) -> None:
    q, k, v = (noise(2, 2, length, 4, seed=s) for s in (1, 2, 3))
    ours = self_extend_attention(q, k, v, group_size=group, window=group * 24, block=block)
    torch.testing.assert_close(ours, plain_rope(q, k, v), rtol=1e-9, atol=1e-11)


def test_self_extend_distances() -> None:
    """Far keys stand at floor(i/G) + W - W/G - floor(j/G), written out for every pair."""
    G, W, length, d = 3, 6, 20, 4
    q, k = noise(1, 1, length, d, seed=1), noise(1, 1, length, d, seed=2)
    frequencies = pos.rope(d)
    weights = self_extend_weights(q, k, group_size=G, window=W)
    scores = torch.full((length, length), -torch.inf, dtype=torch.float64)
    for i in range(length):
        for j in range(i + 1):
            distance = i - j if i - j < W else i // G + W - W // G - j // G
            turned = pos.rotate(q[0, 0, i : i + 1], *pos.rope_tables(torch.tensor([distance]), frequencies))
            scores[i, j] = (turned @ k[0, 0, j]).item() / math.sqrt(d)
    torch.testing.assert_close(weights[0, 0], scores.softmax(-1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("group", "window"), [(4, 6), (0, 4), (4, 0)])
def test_self_extend_needs_whole_groups_in_its_window(group: int, window: int) -> None:
    x = noise(1, 1, 5, 4, seed=1)
    with pytest.raises(ConfigError, match=f"group_size {group}, got {window}"):
        self_extend_weights(x, x, group_size=group, window=window)


@FEW
@given(heads=st.integers(1, 3), queries=st.integers(1, 7), keys=st.integers(1, 9), shared=st.booleans())
def test_any_pattern_of_visible_keys(heads: int, queries: int, keys: int, shared: bool) -> None:
    """Both forms, with queries that see nothing, a pattern for all or for each row of the batch."""
    q, k, v = (noise(2, heads, n, 4, seed=i) for i, n in enumerate((queries, keys, keys)))
    generator = torch.Generator().manual_seed(queries * keys)
    visible = torch.rand(1 if shared else 2, 1, queries, keys, generator=generator) < 0.5
    results = []
    for form in ("torch", "reference"):
        with use_backend(form):
            y = attention(q, k, v, visible=visible)
        results.append([y, *torch.autograd.grad(y.square().sum(), (q, k, v))])
    torch.testing.assert_close(*results)
    seen = visible.expand(2, heads, queries, keys)
    assert (results[0][0][~seen.any(-1)] == 0).all()
    for b, h, i in ((0, 0, 0), (1, heads - 1, queries - 1)):
        at = seen[b, h, i]
        if at.any():
            weights = (q[b, h, i] @ k[b, h, at].T / 2).softmax(0)
            torch.testing.assert_close(results[0][0][b, h, i], weights @ v[b, h, at])


def test_a_pattern_goes_with_nothing_else() -> None:
    q = noise(1, 1, 3, 4, seed=0)
    with pytest.raises(ValueError, match="no mask, causal or bias"):
        attention(q, q, q, visible=torch.ones(3, 3, dtype=torch.bool), causal=True)
