"""An architecture under test: builds small backbones and inputs. B batch, L seq_len, T target tokens, D d_model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, product
from typing import Any, get_args

import torch
from torch import Tensor, nn

from zoo.model.segments import SegmentPlan
from zoo.nn.backbone import Backbone, Output, State
from zoo.spec.architecture import Architecture, Capabilities, Mode, ModelDims
from zoo.spec.constraints import build_config
from zoo.spec.errors import ConfigError
from zoo.spec.registry import registry
from zoo.testing.expect import right_padded, weighted_sum


@dataclass
class ArchitectureSubject:
    """A registered architecture, or one of its modes, with the methods that build it small.

    entry_point  module that registers it; imported by the check that metadata need no torch
    overrides    configuration fields other than the defaults, where those are too large for a test
    mode         the mode of a case; None for the architecture as a whole
    decoder      `build` gives a `TargetDecoder` instead of the backbone
    """

    architecture: Architecture
    entry_point: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode | None = None
    decoder: bool = False
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
    def stateful(self) -> bool:
        """Whether a call takes and returns a state in this case's mode."""
        if self.decoder:
            return True
        if self.capabilities.state == "memory":
            return self.mode != "seq2seq"
        return self.capabilities.state in ("recurrent", "cache") and self.mode == "causal"

    @property
    def steps(self) -> bool:
        """Whether `step` processes one token in this case's mode."""
        return self.stateful and self.capabilities.step and self.mode == "causal" and not self.decoder

    def cases(self) -> list[ArchitectureSubject]:
        """One case per declared mode; they share the notes."""
        return [replace(self, mode=mode) for mode in get_args(Mode) if mode in self.capabilities.modes]

    # -- building ------------------------------------------------------------------------------------------------

    def config(self) -> Any:
        """A new default configuration with the overrides."""
        return build_config(self.architecture.load_config(), self.overrides)

    def dims(self, *, d_model: int = 8, n_layers: int = 2, max_len: int = 64) -> ModelDims:
        """The given dimensions, or the nearest larger ones that the configuration accepts (noted in the report)."""
        assert self.mode is not None, "only a case with a mode can be built"
        refusals: list[ConfigError] = []
        for length, width in product([max_len * 2**k for k in range(6)], range(d_model, 8 * d_model + 1)):
            dims = ModelDims(d_model=width, n_layers=n_layers, mode=self.mode, max_len=length)
            try:
                self.architecture.check(self.config(), dims)
            except ConfigError as error:
                refusals.append(error)
                continue
            if refusals:
                what = f"d_model {width}, max_len {length} in place of {d_model}, {max_len}"
                self.notes.append(f"{what} ({refusals[0]})")
            return dims
        raise refusals[0]

    def build(self, *, seed: int = 0, perturb: bool = False, **dims: int) -> Backbone:
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
        return (TargetDecoder(backbone) if self.decoder else backbone).eval()

    def build_float64(self, **dims: int) -> Backbone:
        """Build a perturbed backbone in float64, for checks with tight tolerances."""
        return cast(self.build(perturb=True, **dims), torch.float64)

    # -- running -------------------------------------------------------------------------------------------------

    def forward_in_chunks(self, backbone: Backbone, x: Tensor) -> list[Output]:
        """Three calls on chunks of unequal length that carry the state on; one call where the mode has no state."""
        third = x.shape[1] // 3
        sizes = (third, third - 1, x.shape[1] - 2 * third + 1) if self.stateful else (x.shape[1],)
        return run_chunks(lambda start, stop, state: backbone(x[:, start:stop], state=state), sizes)

    def loss(self, backbone: Backbone, *inputs: Tensor, in_chunks: bool = True) -> Tensor:
        """A scalar that depends on every hidden vector and every auxiliary loss; `inputs` as in `run`."""
        chunked = in_chunks and len(inputs) == 1
        outputs = self.forward_in_chunks(backbone, *inputs) if chunked else [run(backbone, *inputs)]
        terms = [weighted_sum(out.hidden, i) + sum(out.aux.values()) for i, out in enumerate(outputs)]
        return torch.stack(terms).sum()

    def segment_plan(self, length: int) -> SegmentPlan:
        """Segments of `length` tokens for an architecture that is fed by segments, else one call."""
        return SegmentPlan(length if self.capabilities.segment else None)


def random_input(backbone: Backbone, seq_len: int, *, batch: int = 2, seed: int = 0) -> Tensor:
    """Gaussian x (B, L, D) in the dtype of the backbone's parameters."""
    generator = torch.Generator().manual_seed(1000 + seed)
    x = torch.randn(batch, seq_len, backbone.dims.d_model, dtype=torch.float64, generator=generator)
    return x.to(real_dtype(backbone))


def random_inputs(backbone: Backbone, seq_len: int, target_len: int = 9, *, batch: int = 2) -> list[Tensor]:
    """Arguments of `run`: x (B, L, D), and in mode seq2seq a target y (B, T, D)."""
    x = random_input(backbone, seq_len, batch=batch)
    y = random_input(backbone, target_len, batch=batch, seed=20)
    return [x, y] if backbone.dims.mode == "seq2seq" else [x]


def encode(backbone: Backbone, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The memory of a source x (B, L, D), and its mask: that of the source, or None where the memory is latents."""
    memory = backbone(x, mask=mask).hidden
    return memory, mask if has_positions(backbone, memory.shape[1], x.shape[1]) else None


def run(backbone: Backbone, x: Tensor, y: Tensor | None = None, *, mask: Tensor | None = None) -> Output:
    """`forward` for x (B, L, D); with a target y (B, T, D), `decode` of y over the encoded source x."""
    if y is None:
        return backbone(x, mask=mask)
    memory, memory_mask = encode(backbone, x, mask)
    return backbone.decode(y, memory=memory, memory_mask=memory_mask)


def run_chunks(call: Callable[[int, int, State], Output], sizes: Sequence[int], state: State = None) -> list[Output]:
    """`call(start, stop, state)` for successive chunks, each with the state that the one before returned."""
    outputs: list[Output] = []
    for stop, size in zip(accumulate(sizes), sizes, strict=True):
        outputs.append(call(stop - size, stop, outputs[-1].state if outputs else state))
    return outputs


class TargetDecoder(Backbone):
    """Encoder and decoder of a backbone with a fixed source, the same for every row: a causal backbone over the target.

    The source is encoded in every call, so that gradients, autocast and devices include the encoder.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone.config, replace(backbone.dims, mode="causal"))
        self.backbone = backbone
        self.source: Tensor
        self.source_mask: Tensor
        self.register_buffer("source", random_input(backbone, 16, batch=1))
        self.register_buffer("source_mask", right_padded(16, (9,)))

    def __call__(self, *args: Any, **kwargs: Any) -> Output:
        """Call `forward` as it is: `decode` checks its arguments itself."""
        return nn.Module.__call__(self, *args, **kwargs)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """`mask` has no effect: it is right-padded, and outputs do not depend on later tokens."""
        memory, memory_mask = encode(self.backbone, self.source, self.source_mask)
        memory_mask = None if memory_mask is None else memory_mask.expand(len(x), -1)
        return self.backbone.decode(x, memory=memory.expand(len(x), -1, -1), memory_mask=memory_mask, state=state)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return self.backbone.init_state(batch, device=device, dtype=dtype)

    def state_size(self, seq_len: int) -> int:
        return self.backbone.state_size(seq_len)


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


def has_positions(backbone: Backbone, out_len: int, seq_len: int) -> bool:
    """Whether the hidden vectors belong to the last `out_len` positions of the input; latents belong to none."""
    return backbone.dims.mode == "causal" or (out_len == seq_len and not backbone.returns_latents)
