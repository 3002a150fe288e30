"""Blocked attention: the form in blocks against the dense definition, and the definition against plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo.ops.backend import forms_that_ran, use_backend
from zoo.ops.blocked import Side, biased, blocked_attention


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_()


def random_mask(g: torch.Generator, batch: int, length: int, kind: str) -> Tensor | None:
    """No mask, right padding, scattered holes, or nothing but pads in the last row."""
    if kind == "none":
        return None
    if kind == "right":
        real = torch.randint(1, length + 1, (batch,), generator=g)
        return torch.arange(length) < real[:, None]
    mask = torch.rand(batch, length, generator=g) < 0.6
    if kind == "empty row":
        mask[-1] = False
    return mask


def both_forms(q: Tensor, k: Tensor, v: Tensor, leaves: list[Tensor], **call: Any) -> None:
    """Outputs and gradients of both forms agree in float64."""
    g = torch.Generator().manual_seed(7)
    cotangent = torch.randn((*q.shape[:3], v.shape[-1]), generator=g, dtype=torch.float64)
    results = []
    for form in ("torch", "reference"):
        forms_that_ran(reset=True)
        with use_backend(form):
            y = blocked_attention(q, k, v, **call)
        assert forms_that_ran()["blocked_attention"] == form
        results.append([y, *torch.autograd.grad((y * cotangent).sum(), leaves)])
    for ours, definition in zip(*results, strict=True):
        torch.testing.assert_close(ours, definition, rtol=1e-10, atol=1e-12)


MASKS = st.sampled_from(["none", "right", "holes", "empty row"])


@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 60),
    back=st.integers(0, 12),
    ahead=st.integers(0, 12),
    earlier=st.sampled_from([0, 0, 1, 5, 30]),
    dilations=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    block=st.sampled_from([None, 1, 3, 8, 16]),
    causal=st.booleans(),
    mask=MASKS,
    has_bias=st.booleans(),
    far=st.sampled_from([None, "plain", "masked", "biased"]),
    piece=st.sampled_from([200, 1 << 22]),
)
def test_window_and_side_keys_are_the_dense_softmax(
    batch: int,
    length: int,
    back: int,
    ahead: int,
    earlier: int,
    dilations: list[int],
    block: int | None,
    causal: bool,
    mask: str,
    has_bias: bool,
    far: str | None,
    piece: int,
) -> None:
    g, heads, d, dv = torch.Generator().manual_seed(length), len(dilations), 4, 3
    q, k = normal(g, batch, heads, length, d), normal(g, batch, heads, earlier + length, d)
    v = normal(g, batch, heads, earlier + length, dv)
    leaves = [q, k, v]
    bias = normal(g, heads, back + 1 + ahead) if has_bias else None
    side = None
    if far is not None:
        M = int(torch.randint(0, 6, (), generator=g))
        side = Side(normal(g, batch, heads, M, d), normal(g, batch, heads, M, dv))
        side = side._replace(position=torch.randint(0, length, (batch, M), generator=g))
        leaves += [side.k, side.v] if M else []
        if far != "plain":
            side = side._replace(mask=torch.rand(batch, M, generator=g) < 0.5)
        if far == "biased":
            side = side._replace(bias=normal(g, heads, 5, M), row=torch.randint(0, 5, (batch, length), generator=g))
            leaves += [side.bias] if M else []
    leaves += [] if bias is None else [bias]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(biased, "PIECE", piece)
        both_forms(
            q,
            k,
            v,
            leaves,
            window=(back, ahead),
            dilation=dilations,
            bias=bias,
            block=block,
            side=side,
            causal=causal,
            mask=random_mask(g, batch, earlier + length, mask),
            scale=1.0 if has_bias else None,
        )


@settings(max_examples=80, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 60),
    block=st.integers(1, 9),
    listed=st.integers(1, 5),
    heads=st.integers(1, 3),
    rows=st.sampled_from(["all", "one head", "one example"]),
    causal=st.booleans(),
    mask=MASKS,
    far=st.booleans(),
)
def test_listed_blocks_are_the_dense_softmax(
    batch: int, length: int, block: int, listed: int, heads: int, rows: str, causal: bool, mask: str, far: bool
) -> None:
    g, n = torch.Generator().manual_seed(length), -(-length // block)
    q, k, v = (normal(g, batch, heads, length, 4) for _ in range(3))
    shape = (1 if rows == "one example" else batch, 1 if rows == "one head" else heads, n, listed)
    table = torch.randint(-1, n, shape, generator=g)  # repeats and gaps included
    side = None
    if far:
        side = Side(normal(g, batch, heads, 2, 4), normal(g, batch, heads, 2, 4))
        side = side._replace(position=torch.randint(0, length, (batch, 2), generator=g))
    leaves = [q, k, v] if side is None else [q, k, v, side.k, side.v]
    mask_of = random_mask(g, batch, length, mask)
    both_forms(q, k, v, leaves, table=table, block=block, side=side, causal=causal, mask=mask_of)


def test_window_against_plain_loops() -> None:
    """Query by query, key by key, without any tensor of pairs."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 9, 4, generator=g, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(2, 4, generator=g, dtype=torch.float64)
    extra = Side(*(torch.randn(1, 2, 1, 4, generator=g, dtype=torch.float64) for _ in range(2)))
    y = blocked_attention(q, k, v, window=(2, 1), dilation=[1, 3], bias=bias, side=extra, scale=1.0)
    for h, D in enumerate((1, 3)):
        for i in range(9):
            seen = [(i + D * t, bias[h, t + 2]) for t in (-2, -1, 0, 1) if 0 <= i + D * t < 9]
            weights = [torch.exp(q[0, h, i] @ k[0, h, j] + b) for j, b in seen]
            values = [v[0, h, j] for j, _ in seen]
            weights.append(torch.exp(q[0, h, i] @ extra.k[0, h, 0]))
            values.append(extra.v[0, h, 0])
            expected = sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)
            torch.testing.assert_close(y[0, h, i], expected, rtol=1e-12, atol=1e-12)


def test_a_block_listed_twice_counts_once() -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 1, 12, 4, generator=g, dtype=torch.float64) for _ in range(3))
    once = torch.tensor([[0, 1, -1], [0, 1, 2], [2, 0, -1]])[None, None]
    twice = torch.tensor([[0, 1, 1], [1, 0, 2], [2, 2, 0]])[None, None]
    ours = blocked_attention(q, k, v, table=twice, block=4)
    torch.testing.assert_close(ours, blocked_attention(q, k, v, table=once, block=4), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["torch", "reference"])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_query_without_keys_gets_zero_and_finite_gradients(form: str, has_bias: bool) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 40, 4, generator=g, requires_grad=True) for _ in range(3))
    mask = torch.ones(2, 40, dtype=torch.bool)
    mask[0] = False
    mask[1, 20:] = False
    bias = torch.randn(2, 7, generator=g, requires_grad=True) if has_bias else None
    with use_backend(form):
        y = blocked_attention(q, k, v, window=(3, 3), bias=bias, mask=mask)
    assert not y[0].any()
    assert not y[1, :, 23:].any()
    assert y[1, :, :23].any()
    leaves = [q, k, v] if bias is None else [q, k, v, bias]
    for gradient in torch.autograd.grad(y.square().sum(), leaves):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("has_bias", [False, True])
def test_bfloat16_is_near_float32(has_bias: bool) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 100, 8, generator=g) for _ in range(3))
    bias = torch.randn(2, 17, generator=g) if has_bias else None
    wide = blocked_attention(q, k, v, window=(8, 8), bias=bias)
    narrow = blocked_attention(*(x.bfloat16() for x in (q, k, v)), window=(8, 8), bias=bias)
    assert narrow.dtype == torch.bfloat16
    assert (narrow.float() - wide).norm() < 0.02 * wide.norm()


def test_dropout_drops_weights_in_training_only() -> None:
    q, k = torch.zeros(1, 1, 64, 4), torch.zeros(1, 1, 64, 4)
    v = torch.ones(1, 1, 64, 4)
    torch.manual_seed(0)
    for bias in (None, torch.zeros(1, 33)):
        y = blocked_attention(q, k, v, window=(16, 16), bias=bias, dropout=0.5)
        assert y.std() > 0.05
        assert abs(y.mean() - 1) < 0.1
        assert torch.allclose(blocked_attention(q, k, v, window=(16, 16), bias=bias), v)


def kept_bytes(length: int, **call: Any) -> int:
    """Bytes that autograd keeps for backward."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    q, k, v = (torch.randn(1, 2, length, 4, requires_grad=True) for _ in range(3))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = blocked_attention(q, k, v, **call)
    assert y.requires_grad
    return sum(kept.values())


def test_memory_for_backward_is_linear_in_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(biased, "PIECE", 1 << 14)
    table = torch.randint(0, 64, (1, 1, 128, 4))
    listed = {2048: table[:, :, :64], 4096: table}
    for call in (
        {"window": (16, 16)},
        {"window": (16, 16), "dilation": [1, 3]},
        {"window": (16, 16), "bias": torch.randn(2, 33, requires_grad=True)},
    ):
        short, long = (kept_bytes(length, **call) for length in (2048, 4096))
        assert long < 2.1 * short
        assert long < 4096 * 4096
    short, long = (kept_bytes(length, table=table_of, block=32) for length, table_of in listed.items())
    assert long < 2.1 * short


def test_errors_name_the_argument_and_its_numbers() -> None:
    q = k = v = torch.zeros(2, 3, 10, 4)
    side = Side(q[:, :, :2], q[:, :, :2])
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "either a window or a table"),
        ({"window": (1, -1)}, r"\(1, -1\)"),
        ({"window": (1, 1), "dilation": [1, 2]}, "each of 3 heads"),
        ({"window": (1, 1), "bias": torch.zeros(3, 2)}, r"bias has shape \(3, 2\), expected \(heads=3, offsets=3\)"),
        (
            {"window": (1, 1), "mask": torch.ones(2, 9, dtype=torch.bool)},
            r"mask has shape \(2, 9\), expected \(batch=2, keys=10\)",
        ),
        ({"window": (1, 1), "side": side, "causal": True}, "position"),
        ({"window": (1, 1), "side": side._replace(bias=torch.zeros(3, 1, 2))}, "side.row"),
        ({"window": (1, 1), "side": side._replace(k=q[:, :, :3])}, r"side.v has shape \(2, 3, 2, 4\)"),
        ({"window": (1, 1), "block": 0}, "got 0"),
        ({"table": torch.zeros(1, 1, 3, 1, dtype=torch.int64), "block": 4, "dilation": 2}, "neither bias nor dilation"),
        (
            {"table": torch.zeros(1, 1, 2, 1, dtype=torch.int64), "block": 4},
            r"table has shape \(1, 1, 2, 1\), expected .*blocks=3, listed",
        ),
        ({"table": torch.full((1, 1, 3, 1), 3), "block": 4}, "3 … 3 of 3 blocks"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message):
            blocked_attention(q, k, v, **call)
    with pytest.raises(ValueError, match="9 keys for 10 queries"):
        blocked_attention(q, k[:, :, 1:], v[:, :, 1:], window=(1, 1))
    with pytest.raises(ValueError, match="q has shape"):
        blocked_attention(q[0], k, v, window=(1, 1))


@pytest.mark.parametrize("piece", [200, 1 << 20])
def test_dropout_is_the_same_in_forward_and_backward(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backward recomputes the dropped weights of forward: gradients equal finite differences."""
    monkeypatch.setattr(biased, "PIECE", piece)
    g = torch.Generator().manual_seed(0)
    leaves = [normal(g, 2, 2, 9, 3) for _ in range(3)]
    leaves += [normal(g, 2, 2, 2, 3), normal(g, 2, 2, 2, 3), normal(g, 2, 5, 2), normal(g, 2, 5)]
    row = torch.randint(0, 5, (2, 9), generator=g)

    def run(*x: Tensor) -> Tensor:
        torch.manual_seed(1)
        side = Side(x[3], x[4], bias=x[5], row=row)
        return blocked_attention(*x[:3], window=(2, 2), bias=x[6], side=side, block=3, dropout=0.4)

    assert not torch.equal(run(*leaves), blocked_attention(*leaves[:3], window=(2, 2), bias=leaves[6], block=3))
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    ones = torch.ones(4, 2, 512, 1)
    kept = blocked_attention(ones, ones, ones, window=(9, 9), bias=torch.zeros(2, 19), dropout=0.25)
    assert kept.mean().item() == pytest.approx(1.0, abs=0.02)
    assert kept.std().item() == pytest.approx((0.25 / 0.75 / 19) ** 0.5, rel=0.1)
