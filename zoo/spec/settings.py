"""The sections of an experiment's configuration that do not depend on its architecture and task. No torch here.

The docstring under a field is its help text; its annotation says which values it may have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Interval

from zoo.spec.constraints import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

Ratio = Annotated[float, Interval(ge=0, le=1)]


@dataclass
class ModelSettings:
    """Width and depth of the backbone, and the layers around it."""

    d_model: PositiveInt = 64
    """Width of the residual stream; with `match_params_of`, that of the baseline."""
    match_params_of: str = ""
    """Name of a baseline architecture: d_model of every other one is solved so that it has the baseline's number of
    parameters. Empty = use d_model."""
    n_layers: PositiveInt = 2
    """Depth of the backbone."""
    mode: Literal["auto", "causal", "bidirectional", "seq2seq"] = "auto"
    """auto: for classification bidirectional where the architecture has it (as LRA is modelled); for tokens causal
    where the architecture has it, else seq2seq."""
    pool: Literal["mean", "last", "cls"] = "mean"
    """How a sequence becomes one vector. cls prepends a learned token (bidirectional only)."""
    positions: Literal["sinusoidal", "learned", "none"] = "sinusoidal"
    """Absolute positions, for architectures that have none of their own; none adds none to them either."""
    head: Literal["linear", "mlp"] = "linear"
    """Classifier on the pooled vector; mlp has one ReLU layer of width d_head."""
    d_head: NonNegativeInt = 0
    """Width of the mlp head; 0 = 2 * d_model."""
    dropout: Fraction = 0.0
    """Dropout on the embeddings (arch.dropout is the backbone's own)."""


@dataclass
class SegmentSettings:
    """How long inputs are split for architectures that read them segment by segment."""

    length: PositiveInt = 256
    """Tokens of a segment; used only by architectures that need segments."""
    align: Literal["left", "right"] = "left"
    """Which segment of an input is the short one: left = the last, right = the first, so that the last is full."""
    tbptt: NonNegativeInt = 0
    """Detach the carried state every so many segments; 0 = back-propagate through all of them."""
    activation_checkpointing: Literal["none", "checkpoint"] = "none"
    """What the backward pass recomputes."""


@dataclass
class OptimSettings:
    """AdamW, its learning rate schedule, and gradient clipping."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate; parameters with options of their own may have another."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay; never on biases, norms or embeddings."""
    betas: list[Fraction] = field(default_factory=lambda: [0.9, 0.999])
    """Adam's exponential decay rates."""
    eps: NonNegativeFloat = 1e-8
    """Adam's epsilon."""
    lr_scheduler: Literal["cosine", "linear", "constant", "rsqrt"] = "cosine"
    """Decay after the warm-up: cosine and linear go down to min_lr_ratio, rsqrt is 1 / sqrt(step)."""
    warmup_ratio: Ratio = 0.1
    """Fraction of the steps in which the rate rises linearly from 0."""
    min_lr_ratio: Ratio = 0.0
    """Final learning rate of cosine and linear, as a fraction of the peak."""
    gradient_clip_val: NonNegativeFloat = 1.0
    """Clip the global gradient norm at this value; 0 = never."""


@dataclass
class TrainSettings:
    """Training budget and execution. The budget counts samples, not seconds, so that the machine does not change it."""

    max_samples: PositiveInt = 10_000
    """Training samples in all, repeats included; rounded up to whole batches."""
    batch_size: PositiveInt = 32
    """Effective batch size of an optimiser step."""
    micro_batch_size: NonNegativeInt = 0
    """Samples of one forward pass; must divide batch_size, gradients accumulate. 0 = as many as keep at most 8 GiB for
    the backward pass, or all with batch norm; the record has their number."""
    eval_batch_size: NonNegativeInt = 0
    """Batch size of validation and test; 0 = the micro batch."""
    val_every: NonNegativeInt = 0
    """Validate and save a resumable checkpoint after this many training samples; 0 = ten times in the run."""
    val_limit: NonNegativeInt = 0
    """Number of validation examples that are used; 0 = all. The test split is always used whole."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    """Precision, as Lightning names it."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Accelerator, as Lightning names it."""
    devices: PositiveInt = 1
    """Devices per node."""
    num_nodes: PositiveInt = 1
    """Number of nodes."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """Lightning's strategy."""
    num_threads: PositiveInt = 1
    """CPU threads of the run."""
    num_workers: NonNegativeInt = 0
    """Processes that load data."""
    op_backend: Literal["auto", "reference", "torch", "numba", "triton"] = "auto"
    """Implementation that every op uses, and an error where an op has none. Under torch.func and torch.export some ops
    have their reference only, and refuse a forced torch, numba or triton."""
    keep_checkpoints: bool = False
    """Keep the weights after each validation interval in the run's folder: `zoo analyze` follows induction heads
    through them."""
    logger: Literal["csv", "tensorboard", "none"] = "csv"
    """Where the training history is logged besides the record."""


SECTIONS: dict[str, type] = {
    "model": ModelSettings,
    "segments": SegmentSettings,
    "optim": OptimSettings,
    "train": TrainSettings,
}
"""Top-level nodes of a configuration besides `arch` and `task`."""

NO_EFFECT = ("train.logger", "train.keep_checkpoints", "train.num_workers", "train.eval_batch_size")
"""Keys that do not change any number of a run."""

NOT_IDENTITY = (*NO_EFFECT, "train.accelerator", "train.op_backend", "train.num_threads")
"""Keys that say where and how a run is computed, not what: they are not part of an experiment's identity, and
changing them does not make a record "modified". (The micro batch is part of it: batch norm depends on it.)"""

NO_COST = ("train.max_samples", "train.val_every", "train.val_limit", *NOT_IDENTITY)
"""Keys that say how long a run is, or where it runs, and nothing about what a step costs; so do those of `optim`."""
