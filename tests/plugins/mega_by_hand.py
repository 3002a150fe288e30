"""Mega's equations number by number: loops over tokens, queries and keys, with the layer's own parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn import LayerNorm
from zoo_mega.backbone import GatedAttention, MegaBackbone, MegaBlock, MovingAverage


def average_by_hand(ema: MovingAverage, x: Tensor, mask: Tensor) -> Tensor:
    """The recurrence token by token, from each side; pads are zero inside."""
    a, d = torch.sigmoid(ema.alpha), torch.sigmoid(ema.delta)
    y = torch.zeros_like(x)
    for r in range(a.shape[0]):
        order = range(x.shape[1])
        h = x.new_zeros(x.shape[0], *a.shape[1:])
        for t in reversed(order) if r else order:
            h = a[r] * ema.beta[r] * (x[:, t] * mask[:, t, None])[..., None] + (1 - a[r] * d[r]) * h
            y[:, t] += (ema.eta[r] * h).sum(-1) / math.sqrt(a.shape[-1])
    return F.silu(y + ema.omega * x)


def bias_by_hand(parameters: list[Tensor], i: int, j: int) -> Tensor:
    if len(parameters) == 1:
        w = parameters[0]
        return w[(len(w) - 1) // 2 + j - i]
    a, b = parameters
    half = len(a) // 2
    speeds = 10000.0 ** (-torch.arange(half, dtype=a.dtype) / half)
    a, b = torch.complex(a[:half], a[half:]), torch.complex(b[:half], b[half:])
    return (a * b.conj() * torch.exp(1j * speeds * (i - j))).real.sum()


def attention_by_hand(layer: GatedAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Every query of real tokens by itself, over a list of the keys it may see."""
    o = torch.zeros_like(v)
    chunk = layer.chunk or q.shape[1]
    for b in range(q.shape[0]):
        for i in torch.nonzero(mask[b]).flatten().tolist():
            first = i - i % chunk
            end = i + 1 if layer.causal else min(first + chunk, q.shape[1])
            keys = [j for j in range(first, end) if mask[b, j]]
            n = i - first + 1 if layer.causal else len(keys)
            scale = 1 / math.sqrt(q.shape[-1]) if layer.kind == "softmax" else 1 / n
            scores = [q[b, i] @ k[b, j] * scale + bias_by_hand(list(layer.bias), i - first, j - first) for j in keys]
            s = torch.stack(scores)
            if layer.kind == "softmax":
                w = s.exp() / s.exp().sum()
            elif layer.kind == "laplace":
                w = 0.5 * (1 + torch.special.erf((s - 0.707107) / (0.282095 * math.sqrt(2))))
            else:
                w = s.clamp(min=0) ** 2
            o[b, i] = w @ v[b, keys]
    return o


def norm_by_hand(norm: nn.Module, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True) if isinstance(norm, LayerNorm) else 0.0
    y = (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + 1e-5)
    return norm.weight * y + norm.bias if isinstance(norm, LayerNorm) else norm.weight * y


def block_by_hand(block: MegaBlock, x0: Tensor, mask: Tensor) -> Tensor:
    layer = block.mixer
    x = norm_by_hand(block.norm1, x0) if block.prenorm else x0
    base = layer.W(average_by_hand(layer.ema, x, mask))
    u, s, r, c = base.split([x.shape[-1], layer.z, layer.E, x.shape[-1]], -1)
    z = F.silu(s)
    q, k = z * layer.kappa[0] + layer.mu[0], z * layer.kappa[1] + layer.mu[1]
    o = attention_by_hand(layer, q, k, F.silu(layer.W_v(x)), mask)
    h = F.silu(c + layer.U_h(F.silu(r) * o))
    y = torch.sigmoid(u) * h + (1 - torch.sigmoid(u)) * x0
    y = y if block.prenorm else norm_by_hand(block.norm1, y)
    mlp = block.mlp
    m = mlp.linear2(F.silu(mlp.linear1(norm_by_hand(block.norm2, y) if block.prenorm else y)))
    return y + m if block.prenorm else norm_by_hand(block.norm2, y + m)


def backbone_by_hand(model: MegaBackbone, x: Tensor, mask: Tensor) -> Tensor:
    """Right at real tokens."""
    for block in model.stack.blocks:
        x = block_by_hand(block, x, mask)
    return x if model.stack.final_norm is None else norm_by_hand(model.stack.final_norm, x)
