"""Tiny backbones with a carried state, for the segment driver."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State


def dims(d_model: int = 4, mode: str = "causal", max_len: int = 64) -> ModelDims:
    return ModelDims(d_model=d_model, n_layers=1, mode=mode, max_len=max_len)


class Recurrent(Backbone):
    """h' = tanh(W [x; h]) at real tokens, h' = h at pads; y = h'. Each parameter is used once a token."""

    def __init__(self, config: object, dims: ModelDims, dropout: float = 0.0) -> None:
        super().__init__(config, dims)
        self.cell = nn.Linear(2 * dims.d_model, dims.d_model)
        self.dropout = nn.Dropout(dropout)
        self.calls: list[int] = []

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"h": torch.zeros(batch, self.dims.d_model, device=device, dtype=dtype)}

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        self.calls.append(x.shape[1])
        h = self.init_state(len(x), device=x.device, dtype=x.dtype)["h"] if state is None else state["h"]
        outputs = []
        for t in range(x.shape[1]):
            new = self.dropout(torch.tanh(self.cell(torch.cat([x[:, t], h], dim=-1))))
            h = new if mask is None else torch.where(mask[:, t, None], new, h)
            outputs.append(h)
        return Output(torch.stack(outputs, dim=1), {"h": h}, {"size": h.square().mean()})


class SlotMemory(Backbone):
    """One read and one write per call, so that every parameter is used once a segment: memory slots as in RMT."""

    def __init__(self, config: object, dims: ModelDims, dropout: float = 0.0) -> None:
        super().__init__(config, dims)
        self.read = nn.Linear(dims.d_model, dims.d_model)
        self.write = nn.Linear(dims.d_model, dims.d_model)
        self.first = nn.Parameter(torch.randn(1, 2, dims.d_model))
        self.dropout = nn.Dropout(dropout)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return [self.first.expand(batch, -1, -1).to(device=device, dtype=dtype), torch.ones(batch, 2).bool()]

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        state = self.init_state(len(x), device=x.device, dtype=x.dtype) if state is None else state
        memory, valid = state
        hidden = self.dropout(torch.tanh(self.read(x) + memory.mean(dim=1, keepdim=True)))
        written = self.write(hidden)
        written = written if mask is None else written * mask.unsqueeze(-1)
        changed = torch.tanh(memory + written.sum(dim=1, keepdim=True))
        memory = changed if mask is None else torch.where(mask.any(dim=1)[:, None, None], changed, memory)
        return Output(hidden, [memory, valid], {})


class GrowingMemory(Backbone):
    """Keeps the last 8 inputs, detached, starting from none: its memory grows while it fills."""

    def __init__(self, config: object, dims: ModelDims) -> None:
        super().__init__(config, dims)
        self.project = nn.Linear(dims.d_model, dims.d_model)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        valid = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        rows, row_valid = (x[:, :0], valid[:, :0]) if state is None else (state["rows"], state["valid"])
        keys = torch.cat([rows, x], dim=1)
        keys_valid = torch.cat([row_valid, valid], dim=1)
        mean = (keys * keys_valid.unsqueeze(-1)).sum(1, keepdim=True) / keys_valid.sum(1).clamp_min(1)[:, None, None]
        # the last 8 valid rows of each row of the batch, valid ones last
        order = keys_valid.to(torch.int8).argsort(dim=1, stable=True)[:, -8:]
        kept = keys.detach().gather(1, order.unsqueeze(-1).expand(-1, -1, keys.shape[-1]))
        return Output(self.project(x) + mean, {"rows": kept, "valid": keys_valid.gather(1, order)}, {})

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        rows = torch.zeros(batch, 0, self.dims.d_model, device=device, dtype=dtype)
        return {"rows": rows, "valid": torch.zeros(batch, 0, device=device, dtype=torch.bool)}


class Latents(Backbone):
    """Three latents, each the mean of the real tokens."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        weights = torch.ones(x.shape[:2], dtype=x.dtype) if mask is None else mask.to(x.dtype)
        mean = (x * weights.unsqueeze(-1)).sum(1, keepdim=True) / weights.sum(1).clamp_min(1)[:, None, None]
        return Output(mean.expand(-1, 3, -1))
