"""An architecture under test: builds small backbones and inputs. B batch, L seq_len, D d_model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from zoo.nn.backbone import Backbone, Output
from zoo.spec.architecture import Architecture, Capabilities, Mode, ModelDims
from zoo.spec.errors import ConfigError
from zoo.spec.registry import registry
from zoo.testing.check import Scope
from zoo.testing.expect import run_chunks
from zoo.testing.tensors import weighted_sum


@dataclass
class ArchitectureSubject:
    """A registered architecture, or one of its modes, with the methods that build it small.

    entry_point  module that registers it; imported by the check that metadata need no torch
    overrides    configuration fields other than the defaults, where those are too large for a test
    mode         the mode of a case; None for the architecture as a whole
    """

    architecture: Architecture
    entry_point: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def find(cls, name: str, overrides: Mapping[str, Any] | None = None) -> ArchitectureSubject:
        """Look up a registered architecture. Raises UnknownName with the nearest names."""
        entry = registry().architecture(name)
        return cls(entry.record, entry.plugin.entry_point, overrides or {})

    @property
    def name(self) -> str:
        return self.architecture.name

    @property
    def label(self) -> str:
        return self.mode or ""

    @property
    def capabilities(self) -> Capabilities:
        return self.architecture.capabilities

    @property
    def forward_modes(self) -> list[Mode]:
        """The declared modes in which `forward` alone is the model."""
        modes: tuple[Mode, ...] = ("causal", "bidirectional")
        return [mode for mode in modes if mode in self.capabilities.modes]

    @property
    def state_modes(self) -> list[Mode]:
        """The declared modes in which `forward` takes and returns a state."""
        memory = self.capabilities.state == "memory"
        return [m for m in self.forward_modes if memory or (m == "causal" and self.capabilities.state != "none")]

    @property
    def stateful(self) -> bool:
        """Whether this case's mode carries a state."""
        return self.mode in self.state_modes

    def in_modes(self, modes: Iterable[Mode]) -> list[ArchitectureSubject]:
        """One case per mode; they share the notes."""
        return [replace(self, mode=mode) for mode in modes]

    # -- building ------------------------------------------------------------------------------------------------

    def config(self) -> Any:
        """A new default configuration with the overrides."""
        config = self.architecture.load_config()()
        for key, value in self.overrides.items():
            if not hasattr(config, key):
                raise ConfigError(key, f"{type(config).__name__} has no such field")
            setattr(config, key, value)
        return config

    def dims(self, *, d_model: int = 8, n_layers: int = 2, max_len: int = 64) -> ModelDims:
        """The given dimensions, or the nearest larger ones that the configuration accepts (noted in the report)."""
        assert self.mode is not None, "only a case with a mode can be built"
        refusal: ConfigError | None = None
        for length in (max_len, *(max_len * 2**k for k in range(1, 6))):
            for width in range(d_model, 8 * d_model + 1):
                dims = ModelDims(d_model=width, n_layers=n_layers, mode=self.mode, max_len=length)
                try:
                    self.architecture.check(self.config(), dims)
                except ConfigError as error:
                    refusal = refusal or error
                    continue
                if refusal is not None:
                    note = f"d_model {width}, max_len {length} in place of {d_model}, {max_len} ({refusal})"
                    self.notes += [note] if note not in self.notes else []
                return dims
        assert refusal is not None
        raise refusal

    def build(
        self, *, dtype: torch.dtype = torch.float32, seed: int = 0, perturb: bool = False, **dims: int
    ) -> Backbone:
        """Build a backbone in evaluation mode.

        perturb  add noise to every parameter, so that no zero of the initialisation hides a fault behind it
        dims     d_model, n_layers, max_len
        """
        accepted = self.dims(**dims)
        torch.manual_seed(seed)
        backbone = self.architecture.build(self.config(), accepted)
        if perturb:
            generator = torch.Generator().manual_seed(seed + 1)
            with torch.no_grad():
                for parameter in backbone.parameters():
                    real = torch.view_as_real(parameter) if parameter.is_complex() else parameter
                    real += 0.05 * torch.randn(real.shape, generator=generator)
        return cast(backbone, dtype).eval()

    def build_float64(self, **dims: int) -> Backbone:
        """Build a perturbed backbone in float64, for checks with tight tolerances."""
        return self.build(dtype=torch.float64, perturb=True, **dims)

    def rebuild(self, backbone: Backbone) -> Backbone:
        """Build the backbone anew with the same weights, so that nothing cached in an earlier call is left."""
        fresh = self.architecture.build(self.config(), backbone.dims)
        fresh.load_state_dict(backbone.state_dict())
        return cast(fresh, real_dtype(backbone)).eval()

    def random_input(self, backbone: Backbone, seq_len: int, *, batch: int = 2, seed: int = 0) -> Tensor:
        """Gaussian x (B, L, D) in the dtype of the backbone's parameters."""
        generator = torch.Generator().manual_seed(1000 + seed)
        x = torch.randn(batch, seq_len, backbone.dims.d_model, dtype=torch.float64, generator=generator)
        return x.to(real_dtype(backbone))

    # -- running -------------------------------------------------------------------------------------------------

    def forward_in_chunks(self, backbone: Backbone, x: Tensor) -> list[Output]:
        """Three calls on chunks of unequal length that carry the state on; one call where the mode has no state."""
        if not self.stateful:
            return [backbone(x)]
        third = x.shape[1] // 3
        sizes = (third, third - 1, x.shape[1] - 2 * third + 1)
        return list(run_chunks(lambda start, stop, state: backbone(x[:, start:stop], state=state), sizes))

    def loss(self, backbone: Backbone, x: Tensor, *, in_chunks: bool = True) -> Tensor:
        """A scalar that depends on every hidden vector and every auxiliary loss."""
        total = x.new_zeros((), dtype=torch.promote_types(x.dtype, torch.float32))
        for i, out in enumerate(self.forward_in_chunks(backbone, x) if in_chunks else [backbone(x)]):
            total = total + weighted_sum(out.hidden, i) + sum(out.aux.values())
        return total


def cast(backbone: Backbone, dtype: torch.dtype) -> Backbone:
    """Cast real parameters and buffers to `dtype`, complex ones to the complex dtype of that precision."""

    def convert(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(dtype.to_complex())
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return backbone._apply(convert)  # Module.to(dtype) would leave complex numbers as they are


def real_dtype(backbone: Backbone) -> torch.dtype:
    """Dtype of the backbone's real parameters."""
    return next((p.dtype for p in backbone.parameters() if p.is_floating_point()), torch.float32)


def positions(backbone: Backbone, out_len: int, seq_len: int) -> list[int] | None:
    """Input position of each hidden vector; None for latents, which have no position."""
    if out_len == seq_len and not backbone.returns_latents:
        return list(range(seq_len))
    if backbone.dims.mode == "causal":
        return list(range(seq_len - out_len, seq_len))
    return None


# -- what checks apply to ------------------------------------------------------------------------------------------


def modes(select: Callable[[ArchitectureSubject], Iterable[Mode]], reason: str) -> Scope[ArchitectureSubject]:
    """A scope with one case for each selected mode."""
    return Scope(lambda subject: subject.in_modes(select(subject)), reason)


def state_modes_with(capability: str, reason: str) -> Scope[ArchitectureSubject]:
    """A scope of the modes with a state, for architectures that declare `capability`."""
    return modes(lambda s: s.state_modes if getattr(s.capabilities, capability) else [], reason)


METADATA: Scope[ArchitectureSubject] = Scope(lambda subject: [subject])
FORWARD = modes(lambda s: s.forward_modes, "neither causal nor bidirectional")
CAUSAL = modes(lambda s: [m for m in s.forward_modes if m == "causal"], "no causal mode")
BIDIRECTIONAL = modes(lambda s: [m for m in s.forward_modes if m == "bidirectional"], "no bidirectional mode")
SEQ2SEQ = modes(lambda s: ["seq2seq"] if "seq2seq" in s.capabilities.modes else [], "no seq2seq mode")
STATEFUL = modes(lambda s: s.state_modes, "no state")
STATELESS = modes(lambda s: [m for m in s.forward_modes if m not in s.state_modes], "every mode carries a state")
CAUSAL_STATEFUL = modes(lambda s: [m for m in s.state_modes if m == "causal"], "no causal mode with a state")
CHUNK_EXACT = state_modes_with("chunk_exact", "chunk_exact is not declared")
STEP = state_modes_with("step", "step is not declared")
SEGMENT = state_modes_with("segment", "not fed by segments")
