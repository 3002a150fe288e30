"""What can be chosen about a RetNet."""

from __future__ import annotations

from dataclasses import dataclass

from zoo import ConfigError, ModelDims, check_choice, check_fraction, check_positive

CHOICES = {
    "form": ("chunkwise", "parallel", "recurrent"),
    "denominator": ("common", "published"),
    "gate": ("silu", "gelu"),
    "activation": ("silu", "gelu", "relu"),
}


@dataclass
class RetNetConfig:
    """Configuration of the architecture; width and depth are the run's."""

    n_heads: int = 4
    """Heads; head h forgets by 1 - 2^(-5-h) per token: half-lives of 22, 44, 88, 177, 355, … tokens."""
    value_dim: int | None = None
    """Width of values and gate over all heads; null = 5/3 d_model, to the nearest multiple of n_heads."""
    ffn_dim: int | None = None
    """Width inside the gated channel MLP; null = 5/3 d_model, rounded: a layer then has 12 d_model² weights."""
    form: str = "chunkwise"
    """chunkwise: linear in the length | parallel: quadratic, the definition | recurrent: by token, causal only."""
    chunk_size: int = 64
    """Tokens of a chunk in the chunkwise form; changes cost, not results."""
    denominator: str = "common"
    """common: one scale for all forms, so that they agree | published: each form divides as the reference's does."""
    gate: str = "silu"
    """silu | gelu: activation of the gate on the retention's output."""
    activation: str = "silu"
    """silu | gelu | relu: activation in the gated channel MLP."""
    prenorm: bool = True
    """Norms before retention and MLP, and one at the end; false: after each residual sum."""
    deepnorm: bool = False
    """DeepNorm: post-norm with the residual stream scaled by (2 n_layers)^1/4 and smaller initial weights."""
    norm_eps: float = 1e-6
    """Added to mean squares inside the norms."""
    dropout: float = 0.0
    """Dropout on what retention and MLP add to the residual stream."""

    def resolved_value_dim(self, d_model: int) -> int:
        """value_dim, or its default for this width."""
        if self.value_dim is not None:
            return self.value_dim
        return self.n_heads * max(1, round(5 * d_model / (3 * self.n_heads)))

    def resolved_ffn_dim(self, d_model: int) -> int:
        """ffn_dim, or its default for this width."""
        return self.ffn_dim if self.ffn_dim is not None else max(1, round(5 * d_model / 3))

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for what cannot be built."""
        for name, allowed in CHOICES.items():
            check_choice(self, name, allowed)
        check_positive(self, "n_heads", "chunk_size", "norm_eps")
        check_positive(self, "value_dim", "ffn_dim", optional=True)
        if dims.d_model % (2 * self.n_heads):
            why = f"{self.n_heads} heads of even width (keys turn in pairs) do not divide d_model={dims.d_model}"
            raise ConfigError("n_heads", why)
        if self.value_dim is not None and self.value_dim % self.n_heads:
            raise ConfigError("value_dim", f"{self.value_dim} cannot be divided among n_heads={self.n_heads}")
        if self.deepnorm and self.prenorm:
            raise ConfigError("deepnorm", "DeepNorm scales a post-norm residual stream; set prenorm=false with it")
        if dims.mode == "bidirectional":
            if self.form == "recurrent":
                raise ConfigError("form", "the recurrent form only looks back; a bidirectional RetNet is chunkwise")
            if self.denominator == "published":
                raise ConfigError("denominator", "published denominators exist for causal retention only; use common")
        check_fraction(self, "dropout")
