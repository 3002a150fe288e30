"""B batch, L seq_len, D d_model, H heads, E = D / H. Faults are named in the configuration and planted inline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.testing.toys.config import ToyConfig
from zoo import Backbone, ModelDims, Output, State
from zoo.nn import Block, LayerNorm, Mixer, StackBackbone


class EMAMixer(Mixer):
    """h_t = a h_{t-1} + (1 - a) u_t at real tokens, h_t = h_{t-1} at pads; y = V (h * silu(G x))."""

    def __init__(self, config: ToyConfig, dims: ModelDims) -> None:
        super().__init__()
        d = dims.d_model
        self.fault, self.mode = config.fault, dims.mode
        self.u, self.gate, self.out = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        self.rate = nn.Parameter(torch.randn(d))
        if self.fault == "unused parameter":
            self.spare = nn.Parameter(torch.zeros(d))
        if self.fault == "state in a buffer":
            self.register_buffer("last", torch.zeros(d))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return None if self.mode != "causal" else torch.zeros(batch, len(self.rate), device=device, dtype=dtype)

    def scan(self, u: Tensor, h: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """u (B, L, D), h (B, D) -> every h (B, L, D), the last (B, D)."""
        a = torch.sigmoid(self.rate)
        if self.fault == "autocast decides":
            a = a.to(u.dtype)
        if self.fault == "shapes differ":
            h = torch.cat([h, h])
        every = []
        for t, u_t in enumerate(((1 - a) * u).unbind(1)):
            new = a * h + u_t
            h = new if mask is None or self.fault == "pads enter the state" else torch.where(mask[:, t, None], new, h)
            every.append(h)
        return torch.stack(every, dim=1), h

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        u = self.u(x)
        if self.fault == "float32 inside":
            u = u.float().to(x.dtype)
        if self.fault == "a leak from the future" and x.shape[1] > 1:
            u = u + 1e-9 * u.roll(-1, dims=1)
        if self.fault == "rows mix":
            u = u - u.mean(dim=0, keepdim=True)
        if self.fault == "random":
            u = u + torch.randn_like(u)
        if self.fault == "state in a buffer":
            u = u + self.last
            self.last = u[0, -1].detach()
        h = torch.zeros_like(u[:, 0]) if state is None else state
        if self.fault == "detached state":
            h = h.detach()
        if self.fault == "rows of the state mix" and state is not None:
            h = h - h.mean(dim=0, keepdim=True)
        every, last = self.scan(u, h, mask)
        if self.mode == "bidirectional":
            back, _ = self.scan(u.flip(1), torch.zeros_like(h), None if mask is None else mask.flip(1))
            every, last = every + back.flip(1), None
        if self.fault == "quadratic":
            weights = torch.exp(-(torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])).square().to(x.dtype))
            weights = weights.tril() * (1 + x.mean(-1)[:, :, None].square())
            every = every + (weights if mask is None else weights * mask[:, None, :]) @ u
        if self.fault == "forgets its state" and last is not None:
            last = torch.zeros_like(last)
        y = self.out(every * functional.silu(self.gate(x)))
        if self.fault == "tensors on another device":
            every = every * torch.ones(len(self.rate))
        if self.fault == "wrong gradient":
            y = y + 0.1 * (y - y.detach())
        return y, last

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        a = torch.sigmoid(self.rate)
        h = a * state + (1 - a) * self.u(x_t)
        gate = torch.sigmoid(self.gate(x_t)) if self.fault == "another step" else functional.silu(self.gate(x_t))
        return self.out(h * gate), h

    def state_size(self, seq_len: int) -> int:
        return 0 if self.mode != "causal" else len(self.rate) + (self.fault == "miscounts its state")


class EMA(StackBackbone):
    def build_block(self, layer: int) -> Block:
        return Block(EMAMixer(self.config, self.dims), LayerNorm(self.dims.d_model))

    def build_final_norm(self) -> LayerNorm:
        return LayerNorm(self.dims.d_model)

    def on_step(self, step: int) -> None:
        if self.config.fault == "drifts":
            with torch.no_grad():
                next(self.parameters()).add_(0.01)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        if self.config.fault == "in place":
            x.add_(1e-3)
        out = super().forward(x, mask=mask, state=state)
        if self.config.fault == "undeclared auxiliary loss":
            return out._replace(aux={"surprise": out.hidden.square().mean()})
        if self.config.fault == "bare tensor":
            return out.hidden
        return out


class Memory(Backbone):
    """One layer: attention to the segment's past and to the last 8 real tokens before it, at first to none."""

    ROWS = 8
    UNCHECKED = ("pads are keys", "any batch", "any state", "NaN at pads")

    def __init__(self, config: ToyConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        d = dims.d_model
        self.q, self.kv, self.out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.norm, self.final = LayerNorm(d), LayerNorm(d)

    def __call__(self, x: Tensor, **kwargs: Any) -> Output:
        if self.config.fault in self.UNCHECKED:
            return nn.Module.__call__(self, x, **kwargs)
        return super().__call__(x, **kwargs)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        fault, (B, L, D) = self.config.fault, x.shape
        if self.dims.max_len < L and fault != "any length":
            raise ValueError(f"a segment of {L} tokens, built for at most {self.dims.max_len}")
        valid = x.new_ones(B, L, dtype=torch.bool) if mask is None or fault == "pads are keys" else mask
        state = {"rows": x[:, :0], "valid": valid[:, :0]} if state is None else state
        rows, rows_valid = torch.cat([state["rows"], x], dim=1), torch.cat([state["valid"], valid], dim=1)
        K = rows.shape[1]
        heads = self.config.heads
        q = self.q(self.norm(x)).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, H, L, E)
        k, v = self.kv(self.norm(rows)).unflatten(-1, (2 * heads, -1)).transpose(1, 2).chunk(2, dim=1)  # (B, H, K, E)
        seen = torch.ones(L, K, dtype=torch.bool, device=x.device).tril(K - L) & rows_valid[:, None, None, :]
        if fault != "masked rows are NaN":
            seen = seen | ~seen.any(dim=-1, keepdim=True)  # a query that sees nothing: any finite answer will do
        scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~seen, float("-inf"))
        y = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)  # (B, L, D)
        if fault == "asks for values without gradients" and not torch.is_grad_enabled():
            y = y if y.any() else y.zero_()
        # the last real rows, in their order, behind invalid ones where there are fewer
        real = torch.cat([state["valid"], x.new_ones(B, L, dtype=torch.bool) if mask is None else mask], dim=1)
        order = real.to(torch.int8).argsort(dim=1, stable=True)[:, -self.ROWS :]
        if fault == "pads push rows out":
            order = torch.arange(K).expand(B, K)[:, -self.ROWS :]
        kept = rows.gather(1, order.unsqueeze(-1).expand(-1, -1, D))
        kept = kept if fault == "attached memory" else kept.detach()
        new = {"rows": kept, "valid": real.gather(1, order)}
        if fault == "batch second":
            new = {"rows": kept.transpose(0, 1), "valid": new["valid"]}
        return Output(self.final(x + self.out(y)), new)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        rows = torch.zeros(batch, 0, self.dims.d_model, device=device, dtype=dtype)
        return {"rows": rows, "valid": torch.zeros(batch, 0, device=device, dtype=torch.bool)}

    def state_size(self, seq_len: int) -> int:
        return min(seq_len, self.ROWS) * self.dims.d_model
