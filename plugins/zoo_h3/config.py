"""What a user may choose about H3."""

from __future__ import annotations

from dataclasses import dataclass, field

from zoo import ConfigError, ModelDims, check_batch_norm, check_choice, check_fraction, check_step_sizes

CHOICES = {"disc": ("bilinear", "zoh"), "norm": ("layer", "rms", "batch")}


@dataclass
class H3Config:
    d_state: int = 64
    """N: taps of the shift SSM, and real state size of the diagonal one, that is N/2 conjugate pairs."""
    head_dim: int = 1
    """d: channels of a head; the diagonal SSM runs over the d x d outer products of each, so cost grows with d."""
    d_ff: int = 0
    """Width of the channel MLP; 0 = 4 * d_model."""
    attn_layers: list[int] = field(default_factory=list)
    """Layers, counted from 0, with softmax attention in place of H3: the paper's hybrid. Their state grows with L."""
    attn_heads: int = 1
    """Heads of those layers."""
    disc: str = "bilinear"
    """bilinear | zoh: discretisation of the diagonal SSM."""
    dt_min: float = 0.001
    """Smallest initial step size; about 1 / dt is the length that a head first sees."""
    dt_max: float = 0.1
    """Largest initial step size."""
    norm: str = "layer"
    """layer | rms | batch (bidirectional only: batch statistics look across time)."""
    dropout: float = 0.0
    """Dropout on the residual branches."""
    init_std: float | None = 0.02
    """Deviation of all linear weights at the start (GPT-2's, as in the paper's models); null = PyTorch's own."""
    ssm_lr: float | None = 0.001
    """Peak learning rate of A, B and dt, the shift's B included; null = the run's."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        for name, allowed in CHOICES.items():
            check_choice(self, name, allowed)
        if self.d_state < 2 or self.d_state % 2:
            raise ConfigError("d_state", f"conjugate pairs need an even number of at least 2, got {self.d_state}")
        if self.head_dim < 1 or dims.d_model % self.head_dim:
            raise ConfigError("head_dim", f"heads of {self.head_dim} channels cannot make up d_model={dims.d_model}")
        if self.d_ff < 0:
            raise ConfigError("d_ff", f"expected a width, or 0 for 4 * d_model, got {self.d_ff}")
        wrong = [i for i in self.attn_layers if not 0 <= i < dims.n_layers]
        if wrong or len(set(self.attn_layers)) < len(self.attn_layers):
            why = f"{self.attn_layers}: expected different numbers from 0 to {dims.n_layers - 1}, the layers there are"
            raise ConfigError("attn_layers", why)
        if self.attn_layers and (self.attn_heads < 1 or dims.d_model % self.attn_heads):
            raise ConfigError("attn_heads", f"{self.attn_heads} heads cannot share d_model={dims.d_model} evenly")
        check_step_sizes(self)
        check_fraction(self, "dropout")
        if self.init_std is not None and self.init_std <= 0:
            raise ConfigError("init_std", f"expected a positive deviation or null, got {self.init_std}")
        if self.ssm_lr is not None and self.ssm_lr < 0:
            raise ConfigError("ssm_lr", f"expected a learning rate >= 0 or null, got {self.ssm_lr}")
        check_batch_norm(self, dims)
