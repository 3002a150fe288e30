"""Initial values of linear maps: each function draws the weights in the order of its arguments and zeroes biases."""

from __future__ import annotations

from torch import nn

from zoo.nn.norms import LayerNorm


def init_xavier(*linears: nn.Linear, gain: float = 1.0) -> None:
    """Xavier-uniform weights (Glorot & Bengio 2010, eq. 16)."""
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight, gain=gain)
        _zero_bias(linear)


def init_normal(*linears: nn.Linear, std: float = 0.02) -> None:
    """Weights N(0, std²); GPT-2 and BERT have 0.02."""
    for linear in linears:
        nn.init.normal_(linear.weight, std=std)
        _zero_bias(linear)


def init_lecun_normal(*linears: nn.Linear) -> None:
    """Weights of variance 1 / fan-in from a normal distribution truncated at two deviations, as flax and Haiku draw."""
    for linear in linears:
        # truncated at two deviations, a normal variable keeps 0.8796 of its deviation
        std = linear.in_features**-0.5 / 0.87962566103423978
        nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
        _zero_bias(linear)


def init_transformer_xl(module: nn.Module) -> None:
    """Initialise as Transformer-XL's train.py: linear weights N(0, 0.02²), norms N(1, 0.02²), biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            init_normal(part)
        elif isinstance(part, LayerNorm):
            nn.init.normal_(part.weight, 1.0, 0.02)
            nn.init.zeros_(part.bias)


def _zero_bias(linear: nn.Linear) -> None:
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
