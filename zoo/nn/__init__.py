"""What backbones build from: residual stack, the Transformer's block, the relative layer, norms, optimiser marks."""

from zoo.nn.depthwise import DepthwiseConv
from zoo.nn.dropout import TiedDropout
from zoo.nn.marks import Mark, mark, marked_parameters
from zoo.nn.masks import last_real
from zoo.nn.norms import BatchNorm, LayerNorm, RMSNorm, at_least_float32, make_norm
from zoo.nn.relative import Places, RelativeAttention, RelativeLayer, initialise_as_transformer_xl
from zoo.nn.stack import ACTIVATIONS, MLP, Block, Mixer, ResidualStack
from zoo.nn.transformer import block_around, projections, xavier

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "BatchNorm",
    "Block",
    "DepthwiseConv",
    "LayerNorm",
    "Mark",
    "Mixer",
    "Places",
    "RMSNorm",
    "RelativeAttention",
    "RelativeLayer",
    "ResidualStack",
    "TiedDropout",
    "at_least_float32",
    "block_around",
    "initialise_as_transformer_xl",
    "last_real",
    "make_norm",
    "mark",
    "marked_parameters",
    "projections",
    "xavier",
]
