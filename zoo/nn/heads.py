"""What attention heads do: the weights that they give, and what they add to the residual stream.

B batch, H heads, L seq_len, d head dimension, D d_model. Fused kernels keep no weights. But whatever the positions,
windows and patterns of A, y = A v is linear in the values: a call that is repeated with unit vectors in place of the
values gives A, in the layer's own code.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.attention import MultiHeadAttention
from zoo.nn.cache import repeat_heads


class HeadTrace(NamedTuple):
    """A call of an attention layer.

    name     of the module
    weights  (B, H, L, L), from each token to each
    moved    (B, H, L, D), what a head adds where it attends to one token alone
    """

    name: str
    weights: Tensor
    moved: Tensor


@contextlib.contextmanager
def trace_heads(model: nn.Module) -> Iterator[list[HeadTrace]]:
    """Record each call of a `MultiHeadAttention` of a model while the block runs; in evaluation mode.

    A call whose output is not the sum of what its heads move is left out: one that reads a state, say, or has tokens
    with values of their own.
    """
    traces: list[HeadTrace] = []

    def hook(name: str, module: MultiHeadAttention, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        weights, (moved, bias) = _weights(module, args, kwargs), _moved(module, args[0])
        y = out[0] if isinstance(out, tuple) else out
        if torch.allclose((weights @ moved).sum(1) + bias, y, rtol=1e-3, atol=1e-4):
            traces.append(HeadTrace(name, weights, moved))

    with contextlib.ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, MultiHeadAttention):

                def own(*call: Any, name: str = name) -> None:
                    hook(name, *call)

                hooks.callback(module.register_forward_hook(own, with_kwargs=True).remove)
        yield traces


def _weights(module: MultiHeadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    x = args[0]
    q, k, v = module.project_qkv(x)
    seq_len, d_head = v.shape[2:]
    columns: list[Tensor] = []

    def keep(y: Tensor, _: Tensor) -> Tensor:
        columns.append(y)
        return x

    for part in torch.eye(seq_len, dtype=v.dtype, device=v.device).split(d_head, dim=1):
        unit = F.pad(part, (0, d_head - part.shape[1])).expand_as(v)
        probe: Any = copy.copy(module)  # shares the weights
        probe.project_qkv, probe.project_out = lambda _, unit=unit: (q, k, unit), keep
        probe.forward(*args, **kwargs)
    return torch.cat(columns, dim=-1)[..., :seq_len]


def _moved(module: MultiHeadAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """What each head moves from each token (B, H, L, D), and what the layer adds without any (B, L, D)."""
    q, _, v = module.project_qkv(x)
    v = repeat_heads(v, module.n_heads // module.n_kv_heads)
    alone = torch.eye(module.n_heads, dtype=v.dtype, device=v.device)[:, None, :, None, None] * v  # (H, B, H, L, d)
    nothing = module.project_out(torch.zeros_like(v), q)
    return torch.stack([module.project_out(y, q) - nothing for y in alone], dim=1), nothing
