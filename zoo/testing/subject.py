"""An architecture under test: builds small backbones of it and inputs for them. B batch, L seq_len, D d_model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.nn.backbone import Backbone, Output, State
from zoo.spec.architecture import Architecture, Capabilities, Mode, ModelDims
from zoo.spec.errors import ConfigError
from zoo.spec.registry import registry
from zoo.testing.check import NotDeclared


class Subject:
    """One registered architecture, its default configuration, and what checks need to build it small.

    overrides  configuration fields other than the defaults, where those are too large to be tried out
    notes      what a check had to do differently from what it says, for the report
    """

    def __init__(
        self, architecture: Architecture, *, entry_point: str = "", overrides: Mapping[str, Any] | None = None
    ) -> None:
        self.architecture = architecture
        self.name = architecture.name
        self.entry_point = entry_point
        self.overrides = dict(overrides or {})
        self.notes: list[str] = []

    @classmethod
    def find(cls, name: str, overrides: Mapping[str, Any] | None = None) -> Subject:
        """The registered architecture `name`; UnknownName with the nearest ones otherwise."""
        entry = registry().architecture(name)
        return cls(entry.record, entry_point=entry.provenance.entry_point, overrides=overrides)

    @property
    def capabilities(self) -> Capabilities:
        return self.architecture.capabilities

    @property
    def modes(self) -> list[Mode]:
        """The declared modes that map one sequence to vectors."""
        modes: list[Mode] = [m for m in ("causal", "bidirectional") if m in self.capabilities.modes]
        if not modes:
            raise NotDeclared("neither causal nor bidirectional")
        return modes

    @property
    def state_modes(self) -> list[Mode]:
        """The declared modes in which a call takes and returns a state."""
        if self.capabilities.state == "none":
            return []
        return [m for m in self.modes if m == "causal" or self.capabilities.state == "memory"]

    # -- building ------------------------------------------------------------------------------------------------

    def config(self) -> Any:
        """A fresh default configuration with the overrides."""
        config = self.architecture.load_config()()
        for key, value in self.overrides.items():
            if not hasattr(config, key):
                raise ConfigError(key, f"{type(config).__name__} has no such field")
            setattr(config, key, value)
        return config

    def dims(self, mode: Mode, *, d_model: int = 8, n_layers: int = 2, max_len: int = 64) -> ModelDims:
        """The wanted dims, or the nearest larger one that the configuration accepts (noted)."""
        first: ConfigError | None = None
        for length in (max_len, *(max_len * 2**k for k in range(1, 6))):
            for width in range(d_model, 8 * d_model + 1):
                dims = ModelDims(d_model=width, n_layers=n_layers, mode=mode, max_len=length)
                try:
                    self.architecture.check(self.config(), dims)
                except ConfigError as error:
                    first = first or error
                    continue
                if first is not None:
                    note = f"d_model {width}, max_len {length} in place of {d_model}, {max_len} ({first})"
                    self.notes += [note] if note not in self.notes else []
                return dims
        assert first is not None
        raise first

    def build(
        self,
        mode: Mode,
        *,
        d_model: int = 8,
        n_layers: int = 2,
        max_len: int = 64,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        jitter: bool = False,
    ) -> Backbone:
        """A backbone in evaluation mode.

        jitter  add noise to every parameter, so that no zero of the initialisation hides a fault behind it
        """
        dims = self.dims(mode, d_model=d_model, n_layers=n_layers, max_len=max_len)
        torch.manual_seed(seed)
        backbone = self.architecture.build(self.config(), dims)
        if jitter:
            generator = torch.Generator().manual_seed(seed + 1)
            with torch.no_grad():
                for parameter in backbone.parameters():
                    real = torch.view_as_real(parameter) if parameter.is_complex() else parameter
                    real += 0.05 * torch.randn(real.shape, generator=generator)
        return cast(backbone, dtype).eval()

    def copy(self, backbone: Backbone) -> Backbone:
        """The same weights in a backbone that has not been called yet, so that no table is left from another call."""
        fresh = self.architecture.build(self.config(), backbone.dims)
        fresh.load_state_dict(backbone.state_dict())
        return cast(fresh, real_dtype(backbone)).eval()

    def probe(self, mode: Mode, **options: Any) -> Backbone:
        """A float64 backbone with noise on its parameters: what the exact checks look at."""
        return self.build(mode, dtype=torch.float64, jitter=True, **options)

    def input(self, backbone: Backbone, length: int, *, batch: int = 2, seed: int = 0, scale: float = 1.0) -> Tensor:
        """x (B, L, D) in the dtype of the backbone's parameters."""
        generator = torch.Generator().manual_seed(1000 + seed)
        x = scale * torch.randn(batch, length, backbone.dims.d_model, dtype=torch.float64, generator=generator)
        return x.to(real_dtype(backbone))

    # -- running -------------------------------------------------------------------------------------------------

    def chunks(
        self, backbone: Backbone, x: Tensor, mask: Tensor | None = None, state: State = None, pieces: int = 3
    ) -> list[Output]:
        """One call, or, where the mode carries a state, `pieces` calls that hand it on."""
        if backbone.dims.mode not in self.state_modes or x.shape[1] < pieces:
            return [backbone(x, mask=mask, state=state)]
        outputs = []
        for start, stop in bounds(x.shape[1], pieces):
            out = backbone(x[:, start:stop], mask=None if mask is None else mask[:, start:stop], state=state)
            outputs.append(out)
            state = out.state
        return outputs

    def loss(self, backbone: Backbone, x: Tensor, mask: Tensor | None = None, pieces: int = 3) -> Tensor:
        """A scalar that every output depends on: hidden vectors against fixed noise, and the auxiliary losses."""
        total = x.new_zeros((), dtype=torch.promote_types(x.dtype, torch.float32))
        for i, out in enumerate(self.chunks(backbone, x, mask, pieces=pieces)):
            total = total + (out.hidden * noise_like(out.hidden, seed=i)).sum() + sum(out.aux.values())
        return total

    def modules(self) -> list[str]:
        """Modules that a listing imports: the plugin itself, its configuration, presets and reported scores."""
        record = self.architecture
        named = [self.entry_point, record.config]
        return sorted({target.partition(":")[0] for target in named if target})


def cast(backbone: Backbone, dtype: torch.dtype) -> Backbone:
    """All floating numbers to `dtype`, complex ones to the complex dtype of that precision."""

    def convert(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(dtype.to_complex())
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return backbone._apply(convert)  # as .double() does, which leaves complex numbers as they are


def real_dtype(backbone: Backbone) -> torch.dtype:
    """Dtype of the backbone's real parameters."""
    return next((p.dtype for p in backbone.parameters() if p.is_floating_point()), torch.float32)


def noise_like(tensor: Tensor, seed: int = 0) -> Tensor:
    """Fixed noise of the tensor's shape and dtype."""
    generator = torch.Generator().manual_seed(2000 + seed)
    return torch.randn(tensor.shape, dtype=torch.float64, generator=generator).to(tensor.dtype)


def bounds(length: int, pieces: int) -> Iterator[tuple[int, int]]:
    """`pieces` uneven pieces of a sequence of at least so many tokens."""
    edges = [0, *(length * (i + 1) // pieces - (i % 2 and length // pieces > 1) for i in range(pieces - 1)), length]
    return zip(edges[:-1], edges[1:], strict=True)  # noqa: RUF007


def ragged(length: int, lengths: Sequence[int]) -> Tensor:
    """A right-padded mask (B, L), row b with lengths[b] real tokens."""
    return torch.arange(length) < torch.tensor(lengths)[:, None]


def positions(backbone: Backbone, out_len: int, seq_len: int) -> list[int] | None:
    """Which input position each hidden vector stands for; None for latents, which stand for none."""
    if out_len == seq_len and not backbone.returns_latents:
        return list(range(seq_len))
    if backbone.dims.mode == "causal":
        return list(range(seq_len - out_len, seq_len))
    return None
