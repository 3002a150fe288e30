"""Blocked attention: the form in blocks against the dense definition, and the definition against words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo.ops import blocked as module
from zoo.ops.backend import forms_that_ran, use_backend
from zoo.ops.blocked import Side, blocked_attention


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
    found = []
    for form in ("torch", "reference"):
        forms_that_ran(reset=True)
        with use_backend(form):
            y = blocked_attention(q, k, v, **call)
        assert forms_that_ran()["blocked_attention"] == form
        found.append([y, *torch.autograd.grad((y * cotangent).sum(), leaves)])
    for ours, definition in zip(*found, strict=True):
        torch.testing.assert_close(ours, definition, rtol=1e-10, atol=1e-12)


MASKS = st.sampled_from(["none", "right", "holes", "empty row"])


@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 60),
    back=st.integers(0, 12),
    ahead=st.integers(0, 12),
    dilations=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    block=st.sampled_from([None, 1, 3, 8, 16]),
    causal=st.booleans(),
    mask=MASKS,
    biased=st.booleans(),
    far=st.sampled_from([None, "plain", "masked", "biased"]),
    piece=st.sampled_from([200, 1 << 22]),
)
def test_window_and_side_keys_are_the_dense_softmax(
    batch: int,
    length: int,
    back: int,
    ahead: int,
    dilations: list[int],
    block: int | None,
    causal: bool,
    mask: str,
    biased: bool,
    far: str | None,
    piece: int,
) -> None:
    g, heads, d, dv = torch.Generator().manual_seed(length), len(dilations), 4, 3
    q, k = normal(g, batch, heads, length, d), normal(g, batch, heads, length, d)
    v = normal(g, batch, heads, length, dv)
    leaves = [q, k, v]
    bias = normal(g, heads, back + 1 + ahead) if biased else None
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
        patch.setattr(module, "PIECE", piece)
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
            mask=random_mask(g, batch, length, mask),
            scale=1.0 if biased else None,
        )


@settings(max_examples=80, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 60),
    block=st.integers(1, 9),
    listed=st.integers(1, 5),
    heads=st.integers(1, 3),
    shared=st.booleans(),
    causal=st.booleans(),
    mask=MASKS,
    far=st.booleans(),
)
def test_listed_blocks_are_the_dense_softmax(
    batch: int, length: int, block: int, listed: int, heads: int, shared: bool, causal: bool, mask: str, far: bool
) -> None:
    g, n = torch.Generator().manual_seed(length), -(-length // block)
    q, k, v = (normal(g, batch, heads, length, 4) for _ in range(3))
    table = torch.randint(-1, n, (1 if shared else heads, n, listed), generator=g)  # repeats and gaps included
    side = None
    if far:
        side = Side(normal(g, batch, heads, 2, 4), normal(g, batch, heads, 2, 4))
        side = side._replace(position=torch.randint(0, length, (batch, 2), generator=g))
    leaves = [q, k, v] if side is None else [q, k, v, side.k, side.v]
    mask_of = random_mask(g, batch, length, mask)
    both_forms(q, k, v, leaves, table=table, block=block, side=side, causal=causal, mask=mask_of)
