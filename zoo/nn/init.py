"""Initial values of linear maps: each function draws the weights in the order of its arguments and zeroes biases."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.nn.norms import LayerNorm
from zoo.ops.tracing import has_values


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
        truncated_normal_(linear.weight, linear.in_features**-0.5)
        _zero_bias(linear)


def truncated_normal_(x: Tensor, std: float) -> Tensor:
    """Fill x with values of deviation `std` from a normal distribution truncated at two deviations."""
    return trunc_normal_(x, std / 0.87962566103423978)  # what truncation leaves of a standard normal's deviation


def trunc_normal_(x: Tensor, std: float) -> Tensor:
    """Fill x from a normal distribution of standard deviation `std` before it is truncated at two of them.

    As torch's, but a tensor without values (FakeTensorMode) stays as it is: torch would draw for ever.
    """
    return nn.init.trunc_normal_(x, std=std, a=-2 * std, b=2 * std) if has_values(x) else x


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
