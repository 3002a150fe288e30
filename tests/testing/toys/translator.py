"""A correct encoder-decoder, and faults to plant in it. B batch, L source, T target tokens, D d_model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.testing.toys.config import ToyConfig
from zoo import Backbone, ModelDims, Output, State
from zoo.nn import LayerNorm


class Translator(Backbone):
    """forward: each source token by itself. decode: h_t = h_{t-1} + U y_t attends to the memory; the state is h."""

    def __init__(self, config: ToyConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        d = dims.d_model
        self.encode, self.u, self.ask = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        self.out, self.norm, self.final = nn.Linear(2 * d, d), LayerNorm(d), LayerNorm(d)
        if config.fault == "unused parameter":
            self.spare = nn.Parameter(torch.zeros(d))
        self.calls = 0

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        if state is not None and self.config.fault != "any memory":
            raise ValueError("the encoder carries no state")
        encoded = self.encode(x)
        if self.config.fault == "float16 encoder" and encoded.dtype == torch.bfloat16:
            encoded = encoded + torch.inf * (encoded.detach() * 0 + 1)  # overflows under autocast only
        return Output(self.norm(x + functional.gelu(encoded)))

    def decode(self, y: Tensor, **arguments: Any) -> Output:
        unchecked = self.config.fault in ("any memory", "any state", "pads are keys", "memory in place")
        return self.forward_decode(y, **arguments) if unchecked else super().decode(y, **arguments)

    def forward_decode(
        self, y: Tensor, *, memory: Tensor, memory_mask: Tensor | None = None, state: State = None
    ) -> Output:
        fault, (B, T, D) = self.config.fault, y.shape
        state = state if isinstance(state, Tensor) and len(state) == B else y.new_zeros(B, D)
        if fault == "in place":
            y.add_(1e-3)
        if fault == "memory in place":
            with torch.no_grad():
                memory.add_(1e-3)
        if fault == "first row's source" and state.any():
            memory = memory[:1].expand_as(memory)
        if fault == "detaches in chunks" and state.any():
            memory = memory.detach()
        u = self.u(y)
        if fault == "a leak from the future":
            u = u + 1e-9 * u.roll(-1, dims=1)
        if fault == "rows mix":
            u = u - u.mean(dim=0, keepdim=True)
        if fault == "float32 inside":
            u = u.float().to(y.dtype)
        if fault == "tensors on another device":
            u = u * torch.ones(D)
        if fault == "counts its calls":
            self.calls += 1
            u = u * self.calls
        h = (state[:, None] if fault != "forgets its state" else 0) + u.cumsum(1)  # (B, T, D)
        seen = torch.ones(memory.shape[:2], dtype=torch.bool, device=y.device) if memory_mask is None else memory_mask
        if fault == "pads are keys":
            seen = torch.ones_like(seen)
        if fault == "reads half of the source":
            seen = seen & (torch.arange(seen.shape[1], device=y.device) < seen.shape[1] // 2 + 1)
        if fault != "masked rows are NaN":
            seen = seen | ~seen.any(-1, keepdim=True)
        if fault == "detached memory":
            memory = memory.detach()
        scores = (self.ask(h) @ memory.mT / D**0.5).masked_fill(~seen[:, None], -torch.inf)  # (B, T, L)
        hidden = self.final(y + self.out(torch.cat([functional.silu(h), scores.softmax(-1) @ memory], -1)))
        if fault == "wrong gradient":
            hidden = hidden + 0.1 * (hidden - hidden.detach())
        if fault == "too few":
            hidden = hidden[:, -max(T - 1, 1) :]
        return Output(hidden, h[:, -1])

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return torch.zeros(batch, self.dims.d_model, device=device, dtype=dtype)

    def state_size(self, seq_len: int) -> int:
        return self.dims.d_model + (self.config.fault == "miscounts its state")
