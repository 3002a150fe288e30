"""Gated linear attention: the chunks against the recurrence, gates near 0, gradients, carried states, pads, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.ops.backend import forms_that_ran, use_backend
from zoo.ops.gated_linear_attention import chunked, gated_linear_attention
from zoo.ops.retention import final_state, retention


def inputs(
    L: int, B: int = 2, H: int = 2, K: int = 3, V: int = 4, gates: int | None = None, strength: float = 1.0
) -> tuple[Tensor, ...]:
    """q, k, v, log_alpha and a state, float64; log_alpha is at most 0, around -strength."""
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    log_alpha = -strength * draw(B, H, L, K if gates is None else gates).exp()
    return draw(B, H, L, K), draw(B, H, L, K), draw(B, H, L, V), log_alpha, draw(B, H, K, V)


def by_definition(*args: Tensor | None, **kwargs: Any) -> tuple[Tensor, Tensor]:
    with use_backend("reference"):
        return gated_linear_attention(*args, **kwargs)


def test_the_definition() -> None:
    q, k, v, log_alpha, S = inputs(5, B=1, H=1)
    o, last = by_definition(q, k, v, log_alpha, S)
    state = S[0, 0]
    for t in range(5):
        state = torch.diag(log_alpha[0, 0, t].exp()) @ state + torch.outer(k[0, 0, t], v[0, 0, t])
        torch.testing.assert_close(o[0, 0, t], q[0, 0, t] @ state)
    torch.testing.assert_close(last[0, 0], state)


@settings(max_examples=40, deadline=None)
@given(
    L=st.integers(1, 150),
    B=st.integers(1, 2),
    H=st.integers(1, 2),
    K=st.integers(1, 5),
    V=st.integers(1, 5),
    per_head=st.booleans(),
    carried=st.booleans(),
    chunk=st.sampled_from([1, 2, 16, 64]),
    space=st.sampled_from([1, 300, chunked.SPACE]),
    strength=st.sampled_from([1e-4, 0.1, 1.0, 50.0]),
)
def test_chunks_equal_the_recurrence(
    L: int, B: int, H: int, K: int, V: int, per_head: bool, carried: bool, chunk: int, space: int, strength: float
) -> None:
    *tensors, S = inputs(L, B, H, K, V, 1 if per_head else None, strength=strength)
    leaves = [x.requires_grad_() for x in (*tensors, *([S] if carried else []))]
    forms_that_ran(reset=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "SPACE", space)
        ours = gated_linear_attention(*leaves, chunk=chunk)
        assert forms_that_ran() == {"gated_linear_attention": "torch"}
        weights = [torch.randn_like(x) for x in ours]
        grads = torch.autograd.grad(ours, leaves, weights)
    theirs = by_definition(*leaves)
    for our, their in zip((*ours, *grads), (*theirs, *torch.autograd.grad(theirs, leaves, weights)), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["torch", "reference"])
def test_gradcheck(form: str) -> None:
    leaves = tuple(x.requires_grad_() for x in inputs(11, B=1, H=1, K=2, V=2))
    with use_backend(form):
        assert torch.autograd.gradcheck(lambda *x: gated_linear_attention(*x, chunk=4), leaves)


def test_pieces_equal_the_whole_and_carry_gradient() -> None:
    leaves = [x.requires_grad_() for x in inputs(150)]
    *tensors, S = leaves
    whole = gated_linear_attention(*leaves)
    state, pieces = S, []
    for piece in zip(*(x.split([1, 70, 17, 62], 2) for x in tensors), strict=True):
        o, state = gated_linear_attention(*piece, state)
        pieces.append(o)
    ours = torch.cat(pieces, 2), state
    weights = [torch.randn_like(x) for x in whole]
    for our, their in zip(
        (*ours, *torch.autograd.grad(ours, leaves, weights)),
        (*whole, *torch.autograd.grad(whole, leaves, weights)),
        strict=True,
    ):
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-10)


def test_pads_change_neither_state_nor_other_tokens() -> None:
    *tensors, S = inputs(80, B=3)
    mask = torch.rand(3, 80, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[0, 50:], mask[1] = False, False
    for attend in (gated_linear_attention, by_definition):
        o, last = attend(*tensors, S, mask=mask)
        for b, row in enumerate(mask):
            if not row.any():
                torch.testing.assert_close(last[b], S[b])
                continue
            alone, after = attend(*(x[b : b + 1, :, row] for x in tensors), S[b : b + 1])
            torch.testing.assert_close(o[b, :, row], alone[0])
            torch.testing.assert_close(last[b], after[0])


def test_single_precision_is_as_good_with_gates_near_0_as_near_1() -> None:
    """2,048 tokens, gates around exp(-strength), another in each head, mixed with gates near 1 and of exactly 0."""
    strengths = torch.tensor([1e-6, 1e-2, 1.0, 100.0, 1e4], dtype=torch.float64)
    q, k, v, log_alpha, S = inputs(2048, B=1, H=len(strengths), K=8, V=8)
    log_alpha = log_alpha * strengths[:, None, None]
    some = torch.rand(log_alpha.shape, generator=torch.Generator().manual_seed(2))
    log_alpha[some < 0.3] = -1e-4
    log_alpha[some > 0.999] = -torch.inf
    leaves = [x.float().requires_grad_() for x in (q, k, v, log_alpha, S)]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    o, last = gated_linear_attention(*leaves)
    ours = (o, last, *torch.autograd.grad((o.square().sum() + last.square().sum()), leaves))
    o, last = by_definition(*exact)
    theirs = (o, last, *torch.autograd.grad((o.square().sum() + last.square().sum()), exact))
    for our, their in zip(ours, theirs, strict=True):
        error, largest = ((x.abs().amax((0, 2, 3))) for x in (our - their, their))  # of each head
        assert (error <= 1e-6 * largest).all(), error / largest


def test_constant_gates_are_retention() -> None:
    q, k, v, _, S = inputs(100, B=2, H=3)
    log_gamma = torch.tensor([-0.1, -1.0, -1e-3], dtype=torch.float64)
    o, last = gated_linear_attention(q, k, v, log_gamma[None, :, None, None].expand(2, 3, 100, 1), S)
    torch.testing.assert_close(o, retention(q, k, v, log_gamma, S))
    torch.testing.assert_close(last, final_state(k, v, log_gamma, None, S))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    tensors = [x.to(dtype) for x in inputs(200)[:4]]
    o, last = gated_linear_attention(*tensors)
    expected, after = by_definition(*(x.double() for x in tensors))
    assert (o.dtype, last.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(o, expected.to(dtype))
    torch.testing.assert_close(last, after.float(), rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gated_linear_attention(*tensors)[1], last)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(x.numel() for x in tree_leaves(out) if isinstance(x, Tensor))])
        return out


def test_no_matrix_over_all_tokens_and_no_state_per_token() -> None:
    L, K, V, c = 4096, 32, 32, 64
    leaves = [x.requires_grad_() for x in inputs(L, B=1, H=1, K=K, V=V)]
    with Largest() as largest:
        o, last = gated_linear_attention(*leaves, chunk=c)
        (o.sum() + last.sum()).backward()
    assert largest.numbers <= L * max(c, K, V) < L * min(L, K * V)


def test_torch_func_sees_the_same_gradient() -> None:
    tensors = inputs(40)

    def loss(k: Tensor) -> Tensor:
        return gated_linear_attention(tensors[0], k, *tensors[2:])[0].square().sum()

    k = tensors[1].clone().requires_grad_()
    torch.testing.assert_close(torch.func.grad(loss)(tensors[1]), torch.autograd.grad(loss(k), k)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": (2, 2, 6, 4)}, r"v has shape \(2, 2, 6, 4\), expected \(batch=2, heads=2, seq_len=7, value\)"),
        ({"log_alpha": (2, 2, 7, 2)}, r"log_alpha has shape .*, expected .* 1 or key=3"),
        ({"state": (2, 2, 4, 3)}, r"state has shape .*, expected .*key=3, value=4"),
        ({"chunk": 48}, "chunk is 48, expected a power of 2"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    tensors = dict(zip(("q", "k", "v", "log_alpha", "state"), inputs(7), strict=True))
    changed = {name: torch.zeros(shape) if isinstance(shape, tuple) else shape for name, shape in change.items()}
    with pytest.raises(ValueError, match=message):
        gated_linear_attention(**(tensors | changed))
