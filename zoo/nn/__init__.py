"""What backbones build from: the residual stack, norms, channel MLPs, optimiser marks."""

from zoo.nn.marks import Mark, mark, marked_parameters
from zoo.nn.norms import BatchNorm, LayerNorm, RMSNorm, at_least_float32, make_norm
from zoo.nn.stack import ACTIVATIONS, MLP, Block, Mixer, ResidualStack

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "BatchNorm",
    "Block",
    "LayerNorm",
    "Mark",
    "Mixer",
    "RMSNorm",
    "ResidualStack",
    "at_least_float32",
    "make_norm",
    "mark",
    "marked_parameters",
]
