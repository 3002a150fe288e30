"""Configuration of the Recurrent Memory Transformer. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo import ConfigError, Fraction, ModelDims, NonNegativeInt, PositiveInt


@dataclass
class RMTConfig:
    """Hyperparameters of the architecture. The memory is the paper's; `body` is the transformer around it."""

    body: Literal["auto", "transformer_xl", "transformer", "gpt2", "bert"] = "auto"
    """The transformer around the memory, as its authors published it: transformer_xl (the paper's: relative positions),
    transformer (absolute positions counted from the end), gpt2 (their port), all causal; bert (their encoder for
    classification), bidirectional. auto = transformer_xl, or bert where the mode is bidirectional."""
    num_mem_tokens: PositiveInt = 10
    """Memory tokens (the paper's m: 10 on WikiText-103 and for classification)."""
    n_heads: PositiveInt = 4
    """Attention heads."""
    d_head: PositiveInt | None = None
    """Width of a head; null = d_model / n_heads."""
    d_ff: PositiveInt | None = None
    """Width of the feed-forward layer; null = 4 * d_model."""
    mem_len: NonNegativeInt = 0
    """Rows of a Transformer-XL cache beside the memory tokens (the paper's RMT + Transformer-XL); 0 = none. Only for
    transformer_xl. No gradient flows through it."""
    read_mem_from_cache: bool = False
    """Memory tokens see that cache, too."""
    pre_lnorm: bool = False
    """Normalise before each sub-layer instead of after it. Only for transformer_xl and transformer; the ports have
    their own: gpt2 before, bert after."""
    dropout: Fraction = 0.0
    """After attention, in and after the feed-forward layer, on position vectors and on the output."""
    attn_dropout: Fraction = 0.0
    """On the attention weights."""

    def check(self, dims: ModelDims) -> None:
        """Raise ConfigError for impossible combinations of fields and dimensions."""
        body = self.body_for(dims)
        if (body == "bert") != (dims.mode == "bidirectional"):
            only = "bert" if dims.mode == "bidirectional" else "transformer_xl, transformer, gpt2"
            raise ConfigError("body", f"{body!r}: {dims.mode} bodies are {only}")
        if self.d_head is None and dims.d_model % self.n_heads:
            raise ConfigError("n_heads", f"{self.n_heads} heads do not divide d_model {dims.d_model}; or set d_head")
        if body in ("transformer_xl", "transformer") and dims.d_model % 2:
            raise ConfigError("d_model", f"{dims.d_model} is odd; positions need as many sines as cosines")
        if self.mem_len and body != "transformer_xl":
            raise ConfigError("mem_len", f"{self.mem_len} rows: the body {body} has no relative positions for a cache")
        if self.read_mem_from_cache and not self.mem_len:
            raise ConfigError("read_mem_from_cache", "there is no cache: mem_len is 0")
        if self.pre_lnorm and body in ("gpt2", "bert"):
            raise ConfigError("pre_lnorm", f"the body {body} has its own place for its norms")

    def body_for(self, dims: ModelDims) -> str:
        """The body that `auto` stands for in this mode."""
        if self.body != "auto":
            return self.body
        return "transformer_xl" if dims.mode == "causal" else "bert"
