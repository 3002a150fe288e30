"""Transformer blocks around any mixer, multi-head attention: equations, initial values, heads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import State
from zoo.nn import Mixer, MultiHeadAttention, init_xavier, transformer_block
from zoo.ops.attention import join_heads, split_heads


@dataclass
class Config:
    n_heads: int = 2
    d_qkv: int = 0
    d_ff: int = 0
    activation: str = "silu"
    norm_eps: float = 0.1
    dropout: float = 0.0


class Doubling(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.drawn = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        return 2 * x, None


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("d_ff", [0, 5])
def test_the_block_is_its_equation(prenorm: bool, d_ff: int) -> None:
    torch.manual_seed(0)
    block = transformer_block(Doubling, Config(d_ff=d_ff), 4, prenorm=prenorm).double()
    assert block.mlp is not None
    one, two = block.mlp.linear1, block.mlp.linear2
    assert one.weight.shape == (d_ff or 16, 4)
    for parameter in (*block.norm1.parameters(), *block.norm2.parameters(), one.bias, two.bias):
        nn.init.normal_(parameter)
    x = torch.randn(2, 3, 4, dtype=torch.float64)

    def norm(z: Tensor, of: nn.Module) -> Tensor:
        z = (z - z.mean(-1, keepdim=True)) / (z.var(-1, unbiased=False, keepdim=True) + 0.1).sqrt()
        return z * of.weight + of.bias

    def mlp(z: Tensor) -> Tensor:
        return F.silu(z @ one.weight.T + one.bias) @ two.weight.T + two.bias

    if prenorm:
        h = x + 2 * norm(x, block.norm1)
        expected = h + mlp(norm(h, block.norm2))
    else:
        h = norm(3 * x, block.norm1)
        expected = norm(h + mlp(h), block.norm2)
    torch.testing.assert_close(block(x)[0], expected)


def projections(d_model: int, d_qkv: int, *, bias: bool = True) -> list[nn.Linear]:
    mha = MultiHeadAttention(d_model, 2, d_qkv=d_qkv, bias=bias)
    return [mha.q, mha.k, mha.v, mha.out]


def test_initial_values() -> None:
    block = transformer_block(Doubling, Config(), 64)
    linears = [block.mlp.linear1, block.mlp.linear2, *projections(64, 32)]
    assert [tuple(linear.weight.shape) for linear in linears[2:]] == [(32, 64)] * 3 + [(64, 32)]
    for linear in linears:
        bound = math.sqrt(6 / sum(linear.weight.shape))
        assert 0.95 * bound < linear.weight.abs().max() <= bound
        assert not linear.bias.any()
    assert all(linear.bias is None for linear in projections(4, 4, bias=False))
    wide = nn.Linear(64, 64)
    init_xavier(wide, gain=3.0)
    assert 2.9 * math.sqrt(6 / 128) < wide.weight.abs().max() <= 3 * math.sqrt(6 / 128)


def test_a_seed_gives_the_weights_that_it_always_gave() -> None:
    """The MLP is drawn before the mixer, q, k, v and out all before their Xavier values."""
    torch.manual_seed(0)
    block = transformer_block(Doubling, Config(), 4)
    torch.manual_seed(0)
    one, two = nn.Linear(4, 16), nn.Linear(16, 4)
    nn.init.xavier_uniform_(one.weight)
    nn.init.xavier_uniform_(two.weight)
    assert torch.equal(block.mlp.linear1.weight, one.weight)
    assert torch.equal(block.mlp.linear2.weight, two.weight)
    assert torch.equal(block.mixer.drawn, torch.randn(3))
    torch.manual_seed(0)
    ours_drawn = projections(4, 6)
    torch.manual_seed(0)
    expected = [nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)]
    for ours, linear in zip(ours_drawn, expected, strict=True):
        nn.init.xavier_uniform_(linear.weight)
        assert torch.equal(ours.weight, linear.weight)


def test_heads_are_neighbouring_channels() -> None:
    x = torch.arange(2 * 3 * 8.0).view(2, 3, 8)
    heads = split_heads(x, 4)
    assert heads.shape == (2, 4, 3, 2)
    assert torch.equal(heads[1, 2], x[1, :, 4:6])
    assert torch.equal(join_heads(heads), x)


@pytest.mark.parametrize("fused_qkv", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention_is_its_equation(fused_qkv: bool, causal: bool) -> None:
    torch.manual_seed(0)
    mha = MultiHeadAttention(4, 3, d_qkv=6, fused_qkv=fused_qkv, causal=causal).double()
    for linear in (m for m in mha.modules() if isinstance(m, nn.Linear)):
        nn.init.normal_(linear.bias)
    x, mask = torch.randn(2, 5, 4, dtype=torch.float64), torch.arange(5) < torch.tensor([5, 3])[:, None]
    q, k, v = mha.qkv(x).chunk(3, -1) if fused_qkv else (mha.q(x), mha.k(x), mha.v(x))
    heads = []
    for h in range(3):
        part = slice(2 * h, 2 * h + 2)
        scores = q[..., part] @ k[..., part].mT / math.sqrt(2)
        visible = mask[:, None].expand(2, 5, 5)
        scores = scores.masked_fill(~(visible.tril() if causal else visible), -torch.inf)
        heads.append(scores.softmax(-1) @ v[..., part])
    y, state = mha(x, mask=mask)
    torch.testing.assert_close(y, mha.out(torch.cat(heads, -1)))
    assert state is None
    with pytest.raises(TypeError, match="no step form"):
        mha.step(x[:, 0], None)
