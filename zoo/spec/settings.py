"""The part of an experiment's configuration that the frame owns; a docstring under a field is its help."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ModelSettings:
    """What stands around and above the architecture."""

    d_model: int = 64
    """Width of the residual stream; with `match_params_of`, that of the baseline."""
    match_params_of: str = ""
    """An architecture: the width of every other one is solved so that it has as many parameters. Empty = d_model."""
    n_layers: int = 2
    """Depth of the backbone."""
    mode: str = "auto"
    """auto | causal | bidirectional | seq2seq. auto: for classes bidirectional where the architecture has it (as LRA is
    modelled); for tokens causal where it has it, else seq2seq."""
    pool: str = "mean"
    """mean | last | cls: how a sequence becomes one vector. cls prepends a learned token (bidirectional only)."""
    positions: str = "sinusoidal"
    """sinusoidal | learned: absolute positions for architectures that have none of their own."""
    head: str = "linear"
    """linear | mlp: the classifier on the pooled vector; mlp has one ReLU layer of width d_head."""
    d_head: int = 0
    """Width of the mlp head; 0 = 2 * d_model."""
    dropout: float = 0.0
    """Dropout on the embeddings (arch.dropout is the backbone's own)."""


@dataclass
class SegmentSettings:
    """How a long input is driven through an architecture that reads it segment by segment."""

    length: int = 256
    """Tokens of a segment; used only by architectures that need segments."""
    align: str = "left"
    """left | right: where the ragged segment of a short example goes."""
    tbptt: int = 0
    """Detach the carried state every so many segments; 0 = back-propagate through all of them."""
    activation_checkpointing: str = "none"
    """none | checkpoint | mrbp: what the backward pass recomputes."""


@dataclass
class OptimSettings:
    """AdamW with warm-up."""

    lr: float = 1e-3
    """Peak learning rate; parameters that carry a mark of their own may differ."""
    weight_decay: float = 0.01
    """Decoupled weight decay; never on biases, norms or embeddings."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Adam's exponential decay rates."""
    eps: float = 1e-8
    """Adam's epsilon."""
    lr_scheduler: str = "cosine"
    """cosine | linear (both towards min_lr_ratio) | constant | rsqrt (1 / sqrt(step)), after the warm-up."""
    warmup_ratio: float = 0.1
    """Fraction of the steps in which the rate rises linearly from 0."""
    min_lr_ratio: float = 0.0
    """Where the schedule ends, as a fraction of the peak."""
    gradient_clip_val: float = 1.0
    """Clip the global gradient norm at this; 0 = never."""


@dataclass
class TrainSettings:
    """The budget, in samples: never in seconds, so that the machine does not change the score."""

    max_samples: int = 10_000
    """Training samples in all, repeats included; rounded up to whole batches."""
    batch_size: int = 32
    """Effective batch."""
    micro_batch_size: int = 0
    """What is held in memory at once; must divide batch_size; 0 = batch_size. Gradients accumulate."""
    eval_batch_size: int = 0
    """Batch of validation and test; 0 = micro batch."""
    val_every: int = 0
    """Validate and save a resumable checkpoint after this many training samples; 0 = ten times in the run."""
    val_limit: int = 0
    """Examples of the validation split that are looked at; 0 = all. The test split is always used whole."""
    precision: str = "32-true"
    """32-true | bf16-mixed | 16-mixed | 64-true, as Lightning names them."""
    accelerator: str = "auto"
    """auto | cpu | gpu, as Lightning names them."""
    devices: int = 1
    """Devices per node."""
    num_nodes: int = 1
    """Nodes."""
    strategy: str = "auto"
    """auto | ddp | fsdp, passed to Lightning."""
    num_workers: int = 0
    """Processes that load data."""
    op_backend: str = "auto"
    """auto | reference | torch | triton: forces the form of every op."""
    logger: str = "csv"
    """csv | tensorboard | none."""


CHOICES: dict[str, tuple[str, ...]] = {
    "model.mode": ("auto", "causal", "bidirectional", "seq2seq"),
    "model.pool": ("mean", "last", "cls"),
    "model.positions": ("sinusoidal", "learned"),
    "model.head": ("linear", "mlp"),
    "segments.align": ("left", "right"),
    "segments.activation_checkpointing": ("none", "checkpoint", "mrbp"),
    "optim.lr_scheduler": ("cosine", "linear", "constant", "rsqrt"),
    "train.precision": ("32-true", "bf16-mixed", "16-mixed", "64-true"),
    "train.accelerator": ("auto", "cpu", "gpu"),
    "train.strategy": ("auto", "ddp", "fsdp"),
    "train.op_backend": ("auto", "reference", "torch", "triton"),
    "train.logger": ("csv", "tensorboard", "none"),
}

POSITIVE = (
    "model.d_model",
    "model.n_layers",
    "segments.length",
    "optim.lr",
    "train.max_samples",
    "train.batch_size",
    "train.devices",
    "train.num_nodes",
)
NOT_NEGATIVE = (
    "model.d_head",
    "model.dropout",
    "segments.tbptt",
    "optim.weight_decay",
    "optim.eps",
    "optim.gradient_clip_val",
    "train.micro_batch_size",
    "train.eval_batch_size",
    "train.val_every",
    "train.val_limit",
    "train.num_workers",
)
FRACTIONS = ("optim.warmup_ratio", "optim.min_lr_ratio", "model.dropout")

NO_EFFECT = ("train.logger", "train.num_workers", "train.eval_batch_size")
"""Keys that no number of a run depends on."""

NOT_IDENTITY = (*NO_EFFECT, "train.accelerator", "train.op_backend")
"""Keys that say where and how a run is computed, not what: they are not part of an experiment's identity, and
changing them does not make a record "modified". (A micro batch is not among them: batch norm sees it.)"""
