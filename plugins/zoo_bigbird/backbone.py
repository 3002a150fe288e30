"""BigBird (Zaheer et al. 2020, arXiv 2007.14062).

B batch, L seq_len, D d_model, H heads, d = d_qkv / H, S tokens of a block, n blocks, r random ones.

    x = x + Attention(LN x);  x = x + W2 act(W1 LN x + b1) + b2;  LN after the last block       (prenorm)
    x = LN(x + Attention x);  x = LN(x + W2 act(W1 x + b1) + b2)                                 (as BERT)

Attention is in op.py. The random blocks of a layer and head are a function of (config.seed, layer, head, position,
number of blocks of the example): the same in training and evaluation, whoever else is in the batch.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from zoo import Backbone, ModelDims, Output, State
from zoo.nn import Block, LayerNorm, Mixer, ResidualStack, block_around, last_real, projections
from zoo.ops.attention import attention, join_heads, split_heads
from zoo.ops.blocked import Side
from zoo_bigbird.config import BigBirdConfig
from zoo_bigbird.op import Pattern, bigbird_attention, causal_pattern, draw_blocks, two_way_pattern


class BigBirdAttention(Mixer):
    """Global, window and random blocks of one layer, for inputs of up to `max_len` tokens."""

    def __init__(self, config: BigBirdConfig, d_model: int, *, layer: int, causal: bool, max_len: int) -> None:
        super().__init__()
        d_qkv = config.d_qkv or d_model
        self.config, self.causal, self.max_len = config, causal, max_len
        self.q, self.k, self.v, self.out = projections(d_model, d_qkv, bias=config.bias)
        # integers, which no cast of the module rounds; made again from the seed, so not saved with the weights
        generator = torch.Generator(device="cpu").manual_seed(config.seed * 100_003 + layer)
        shape = (-(-max_len // config.block_size), config.n_heads, config.n_random)
        draws = torch.randint(1 << 31, shape, generator=generator, device="cpu").transpose(0, 1)
        self.draws: Tensor
        self.register_buffer("draws", draws, persistent=False)  # (H, blocks of max_len, r)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> tuple[Tensor, State]:
        if x.shape[1] > self.max_len:
            raise ValueError(f"a sequence of {x.shape[1]} tokens, but random blocks for max_len {self.max_len}")
        q, k, v = (split_heads(linear(x), self.config.n_heads) for linear in (self.q, self.k, self.v))  # (B, H, L, d)
        dropout = self.config.attn_dropout if self.training else 0.0
        pattern = self.pattern(x.shape[1], mask)
        if pattern is None:
            y = attention(q, k, v, mask=mask, dropout=dropout)
            y = y if mask is None else y.masked_fill(~mask[:, None, :, None], 0)
        else:
            again = self.first_again(k, v, mask) if self.config.random_blocks == "first" else None
            y = bigbird_attention(
                q, k, v, pattern=pattern, block=self.config.block_size, side=again, mask=mask, dropout=dropout
            )
        return self.out(join_heads(y)), None  # (B, H, L, d) -> (B, L, D)

    def first_again(self, k: Tensor, v: Tensor, mask: Tensor | None) -> Side:
        """The keys of block 0, n_random times more, for examples that are not attended to in full."""
        S, r = self.config.block_size, self.config.n_random
        real = None
        if mask is not None:
            sparse = last_real(mask) > self.config.full_below * S
            real = (mask[:, :S] & sparse[:, None]).repeat(1, r)
        return Side(k[:, :, :S].repeat(1, 1, r, 1), v[:, :, :S].repeat(1, 1, r, 1), real)

    def pattern(self, length: int, mask: Tensor | None) -> Pattern | None:
        """Who sees whom in a call; None where all examples are so short that everybody sees everybody."""
        n, limit = -(-length // self.config.block_size), self.config.full_below
        if self.causal:
            return causal_pattern(self.random_blocks(n))
        if n <= limit:
            return None
        if mask is None:
            count = torch.tensor([n], device=self.draws.device)
        else:
            # blocks of each example, not of what it is padded to: its outputs must not depend on its company
            count = (last_real(mask) + self.config.block_size - 1).div(self.config.block_size, rounding_mode="floor")
            count = count.clamp(min=1)
        pattern = two_way_pattern(self.random_blocks(n, count), count - 1)
        short = count <= limit
        if mask is None or not bool(short.any()):
            return pattern
        table = nn.functional.pad(pattern.table, (0, max(limit - pattern.table.shape[-1], 0)), value=-1)
        every = torch.arange(table.shape[-1], device=table.device)
        every = torch.where(every < count[:, None], every, -1)[:, None, None]  # (B, 1, 1, T)
        return pattern._replace(table=torch.where(short[:, None, None, None], every, table))

    def random_blocks(self, n: int, count: Tensor | None = None) -> Tensor:
        """The random blocks of each of n blocks: (B or 1, H, n, r). count (B or 1,): blocks of each example."""
        b = torch.arange(n, device=self.draws.device)
        if self.config.random_blocks == "first":
            return self.draws.new_empty(1, 1, n, 0)
        if self.causal:
            return draw_blocks(self.draws[:, :n], (b + 1)[None], torch.stack([0 * b, b - 1, b], -1)[None])
        count = torch.tensor([n], device=self.draws.device) if count is None else count
        near = torch.stack([0 * b, b - 1, b, b + 1], -1).expand(len(count), -1, -1)  # (B|1, n, 4)
        last = (count - 1)[:, None, None].expand(-1, n, 1)
        return draw_blocks(self.draws[:, :n], count[:, None].expand(-1, n), torch.cat([near, last], -1))


def bigbird_block(config: BigBirdConfig, d_model: int, *, layer: int, causal: bool, max_len: int) -> Block:
    """Attention and channel MLP of one layer."""
    mixer = partial(BigBirdAttention, config, d_model, layer=layer, causal=causal, max_len=max_len)
    return block_around(mixer, config, d_model, prenorm=config.prenorm)


class BigBirdBackbone(Backbone):
    """Blocks of sparse attention. Positions come from outside."""

    def __init__(self, config: BigBirdConfig, dims: ModelDims) -> None:
        super().__init__(config, dims)
        blocks = [
            bigbird_block(config, dims.d_model, layer=n, causal=dims.mode == "causal", max_len=dims.max_len)
            for n in range(dims.n_layers)
        ]
        self.stack = ResidualStack(blocks, LayerNorm(dims.d_model, eps=config.norm_eps) if config.prenorm else None)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, state: State = None) -> Output:
        """x (B, L, D), mask (B, L) -> hidden (B, L, D). ValueError beyond max_len, and for a state: none is carried."""
        return self.stack(x, mask=mask, state=state)
