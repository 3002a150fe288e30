"""The specification of a model. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from zoo.spec.architecture import Architecture, ModelDims, Objective

if TYPE_CHECKING:
    from zoo.model.segments import SegmentPlan

Pooling = Literal["mean", "last", "cls"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that decides a model: embedding, backbone and head.

    architecture  whose backbone is built from (arch_config, dims)
    vocab_size    token ids, padding (0) included; not used with `channels`
    n_classes     outputs of a classifier; token answers have vocab_size outputs
    channels      real numbers per position, instead of token ids; 0 = token ids
    seq_len       the longest training example
    max_len       the longest example of any split, for absolute positions
    objective     how the task is put to the architecture
    positions     "sinusoidal" | "learned" | "none", for architectures without positions of their own; "" = it has them
    pool          how a sequence becomes one vector: the mean, the last token or a learned first token ("cls")
    d_head        width of the classifier's hidden ReLU layer; 0 = a linear classifier
    dropout       on the embeddings
    segment_plan  how a long input is driven through the backbone
    """

    architecture: Architecture
    arch_config: Any
    dims: ModelDims
    vocab_size: int
    n_classes: int = 0
    channels: int = 0
    seq_len: int
    max_len: int
    objective: Objective = "classify"
    positions: str = ""
    pool: Pooling = "mean"
    d_head: int = 0
    dropout: float = 0.0
    segment_plan: SegmentPlan
