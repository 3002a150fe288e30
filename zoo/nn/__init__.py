"""What backbones build from: residual stack, the Transformer's block, the relative layer, norms, optimiser marks."""

from zoo.nn.depthwise import DepthwiseConv
from zoo.nn.dropout import TiedDropout
from zoo.nn.masks import last_real
from zoo.nn.norms import BatchNorm, LayerNorm, RMSNorm, make_norm
from zoo.nn.parameters import ParamOptions, param_options, parameters_with_options
from zoo.nn.relative import Places, RelativeAttention, RelativeLayer, initialise_as_transformer_xl
from zoo.nn.stack import ACTIVATIONS, MLP, Block, Mixer, ResidualStack
from zoo.nn.transformer import block_around, projections, xavier
from zoo.ops.dtypes import at_least_float32

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "BatchNorm",
    "Block",
    "DepthwiseConv",
    "LayerNorm",
    "Mixer",
    "ParamOptions",
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
    "param_options",
    "parameters_with_options",
    "projections",
    "xavier",
]
