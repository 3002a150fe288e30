"""Stacks of Transformer blocks, in which only the attention differs. D d_model."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from zoo.nn.init import init_xavier
from zoo.nn.norms import LayerNorm
from zoo.nn.stack import MLP, Block, Mixer, StackBackbone
from zoo.spec.constraints import BlockConfig


def transformer_block(
    build_mixer: Callable[[], Mixer], config: BlockConfig, d_model: int, *, prenorm: bool = True
) -> Block:
    """Build a Transformer block (Vaswani et al. 2017, §3.1), with any mixer in the place of self-attention.

        pre-norm   h = x + mixer(LN x),     y = h + MLP(LN h)
        post-norm  h = LN(x + mixer(x)),    y = LN(h + MLP(h))

    `build_mixer` is called once, after the MLP has drawn its initial values (`init_xavier`).
    """
    mlp = MLP(d_model, config.d_ff or 4 * d_model, activation=config.activation, dropout=config.dropout)
    init_xavier(mlp.linear1, mlp.linear2)
    return Block(
        build_mixer(),
        LayerNorm(d_model, eps=config.norm_eps),
        mlp=mlp,
        norm2=LayerNorm(d_model, eps=config.norm_eps),
        prenorm=prenorm,
        dropout=config.dropout,
    )


class TransformerStack(StackBackbone):
    """A stack of `transformer_block`s around the mixer that `build_mixer` returns.

    The configuration has the fields of `BlockConfig`, and may have `prenorm`, which is True where it is missing. A
    pre-norm stack ends in a layer norm.
    """

    def build_mixer(self, layer: int) -> Mixer:
        """Build the mixer of a layer, counted from 0."""
        raise NotImplementedError

    def build_block(self, layer: int) -> Block:
        return transformer_block(lambda: self.build_mixer(layer), self.config, self.dims.d_model, prenorm=self.prenorm)

    def build_final_norm(self) -> nn.Module | None:
        return LayerNorm(self.dims.d_model, eps=self.config.norm_eps) if self.prenorm else None

    @property
    def prenorm(self) -> bool:
        """Whether the norms come before the sublayers, with one at the end, or after the residual sums."""
        return getattr(self.config, "prenorm", True)
