"""The parts of a Transformer's block that stay the same when its attention changes. D d_model."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from zoo.nn.norms import LayerNorm
from zoo.nn.stack import MLP, Block, Mixer
from zoo.spec.constraints import BlockConfig


def xavier(*linears: nn.Linear, gain: float = 1.0) -> None:
    """Weights Xavier-uniform (Glorot & Bengio 2010, eq. 16), biases zero; in the order given."""
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight, gain=gain)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)


def projections(d_model: int, d_qkv: int, *, bias: bool = True) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
    """W_q, W_k, W_v (D -> d_qkv) and W_o (d_qkv -> D) of multi-head attention, by `xavier`."""
    q, k, v = (nn.Linear(d_model, d_qkv, bias=bias) for _ in range(3))
    out = nn.Linear(d_qkv, d_model, bias=bias)
    xavier(q, k, v, out)
    return q, k, v, out


def block_around(mixer: Callable[[], Mixer], config: BlockConfig, d_model: int, *, prenorm: bool = True) -> Block:
    """h = x + mixer(LN x), y = h + MLP(LN h); post-norm: h = LN(x + mixer x), y = LN(h + MLP h).

    `mixer` makes the mixer; it is called once, after the MLP took its initial values by `xavier`.
    """
    mlp = MLP(d_model, config.d_ff or 4 * d_model, activation=config.activation, dropout=config.dropout)
    xavier(mlp.linear1, mlp.linear2)
    return Block(
        mixer(),
        LayerNorm(d_model, eps=config.norm_eps),
        mlp=mlp,
        norm2=LayerNorm(d_model, eps=config.norm_eps),
        prenorm=prenorm,
        dropout=config.dropout,
    )
