"""Parts that backbones are built from: residual stacks, attention, norms, convolution, initial and optimiser values."""

from zoo.nn.attention import MultiHeadAttention
from zoo.nn.buffers import derived_buffer
from zoo.nn.cache import attend_to_cache, extend_cache, init_cache, repeat_heads
from zoo.nn.convolution import DepthwiseConv
from zoo.nn.dropout import TiedDropout
from zoo.nn.init import (
    init_lecun_normal,
    init_normal,
    init_transformer_xl,
    init_xavier,
    trunc_normal_,
    truncated_normal_,
)
from zoo.nn.masks import sequence_lengths
from zoo.nn.norms import BatchNorm, LayerNorm, RMSNorm, make_norm
from zoo.nn.parameters import ParamOptions, param_options, parameter_groups, parameters_with_options
from zoo.nn.relative import RelativeAttention, RelativeLayer, RelativePositions
from zoo.nn.segmented import SegmentBackbone
from zoo.nn.stack import ACTIVATIONS, MLP, Block, Mixer, StackBackbone
from zoo.nn.state import returns_state
from zoo.nn.transformer import TransformerStack, transformer_block
from zoo.ops.dtypes import at_least_float32
from zoo.ops.tracing import has_values, without_autocast

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "BatchNorm",
    "Block",
    "DepthwiseConv",
    "LayerNorm",
    "Mixer",
    "MultiHeadAttention",
    "ParamOptions",
    "RMSNorm",
    "RelativeAttention",
    "RelativeLayer",
    "RelativePositions",
    "SegmentBackbone",
    "StackBackbone",
    "TiedDropout",
    "TransformerStack",
    "at_least_float32",
    "attend_to_cache",
    "derived_buffer",
    "extend_cache",
    "has_values",
    "init_cache",
    "init_lecun_normal",
    "init_normal",
    "init_transformer_xl",
    "init_xavier",
    "make_norm",
    "param_options",
    "parameter_groups",
    "parameters_with_options",
    "repeat_heads",
    "returns_state",
    "sequence_lengths",
    "transformer_block",
    "trunc_normal_",
    "truncated_normal_",
    "without_autocast",
]
