"""BigBird (Zaheer et al. 2020, arXiv 2007.14062).

Shapes: B batch, L seq_len, D d_model, H heads, d = d_qkv / H, S tokens of a block, n blocks, r random ones.

    pre-norm    x = x + Attention(LN x);  x = x + W_2 act(W_1 LN x + b_1) + b_2;  LN after the last block
    post-norm   x = LN(x + Attention x);  x = LN(x + W_2 act(W_1 x + b_1) + b_2)                  (BERT)

Attention (§2) is in op.py. The random blocks of a layer and head are a function of (config.seed, layer, head, position,
number of blocks of the example): the same in training and evaluation, whatever else is in the batch.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import State
from zoo.nn import MultiHeadAttention, TransformerStack, derived_buffer, has_values, sequence_lengths
from zoo.ops.attention import attention
from zoo.ops.blocked import Side
from zoo_bigbird.config import BigBirdConfig
from zoo_bigbird.op import Pattern, bigbird_attention, build_pattern, draw_blocks, structured_blocks


class BigBirdAttention(MultiHeadAttention):
    """Attention over global, window and random blocks of one layer, for inputs of up to `max_len` tokens."""

    def __init__(self, config: BigBirdConfig, d_model: int, *, layer: int, causal: bool, max_len: int) -> None:
        super().__init__(
            d_model, config.n_heads, d_qkv=config.d_qkv, bias=config.bias, causal=causal, dropout=config.attn_dropout
        )
        self.config, self.max_len = config, max_len
        shape = (-(-max_len // config.block_size), config.n_heads, config.n_random)
        self.draws: Tensor  # (H, blocks of max_len, r)
        derived_buffer(self, "draws", partial(random_draws, config.seed * 100_003 + layer, shape))

    def compute_attention(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, state: State
    ) -> tuple[Tensor, State]:
        if q.shape[2] > self.max_len:
            raise ValueError(f"a sequence of {q.shape[2]} tokens, but random blocks for max_len {self.max_len}")
        pattern = self.pattern(q.shape[2], mask)
        if pattern is None:
            y = attention(q, k, v, mask=mask, dropout=self.dropout_p)
            return y if mask is None else y.masked_fill(~mask[:, None, :, None], 0), None
        side = self.repeat_first_block(k, v, mask) if self.config.random_blocks == "first" else None
        S = self.config.block_size
        return bigbird_attention(q, k, v, pattern=pattern, block=S, side=side, mask=mask, dropout=self.dropout_p), None

    def repeat_first_block(self, k: Tensor, v: Tensor, mask: Tensor | None) -> Side:
        """Repeat the keys of block 0 n_random times, for examples that are too long for full attention."""
        S, r = self.config.block_size, self.config.n_random
        real = None
        if mask is not None:
            sparse = sequence_lengths(mask) > self.config.full_below * S
            real = (mask[:, :S] & sparse[:, None]).repeat(1, r)
        return Side(k[:, :, :S].repeat(1, 1, r, 1), v[:, :, :S].repeat(1, 1, r, 1), real)

    def pattern(self, length: int, mask: Tensor | None) -> Pattern | None:
        """Build the pattern of a batch; None where all examples are short enough for full attention."""
        S, limit = self.config.block_size, self.config.full_below
        n = -(-length // S)
        if self.causal:
            return build_pattern(self.random_blocks(n), None)
        if n <= limit:
            return None
        if mask is None:
            return build_pattern(self.random_blocks(n), torch.tensor([n - 1], device=self.draws.device))
        # blocks of each example, not of the padded batch: its outputs must not depend on the other examples
        count = (sequence_lengths(mask) + S - 1).div(S, rounding_mode="floor").clamp(min=1)
        pattern = build_pattern(self.random_blocks(n, count), count - 1)
        short = count <= limit
        if short.device.type == "cpu" and has_values(short) and not bool(short.any()):  # elsewhere it would wait
            return pattern
        table = F.pad(pattern.table, (0, max(limit - pattern.table.shape[-1], 0)), value=-1)
        every = torch.arange(table.shape[-1], device=table.device)
        every = torch.where(every < count[:, None], every, -1)[:, None, None]  # (B, 1, 1, T)
        return pattern._replace(table=torch.where(short[:, None, None, None], every, table))

    def random_blocks(self, n: int, count: Tensor | None = None) -> Tensor:
        """Draw the random blocks of each of n blocks: (B or 1, H, n, r). `count` (B or 1,) limits each example."""
        device = self.draws.device
        if self.config.random_blocks == "first":
            return self.draws.new_empty(1, 1, n, 0)
        if self.causal:
            below, last = torch.arange(1, n + 1, device=device)[None], None
        else:
            count = torch.tensor([n], device=device) if count is None else count
            below, last = count[:, None].expand(-1, n), count - 1
        return draw_blocks(self.draws[:, :n], below, structured_blocks(n, last, device))


def random_draws(seed: int, shape: tuple[int, int, int]) -> Tensor:
    """Draw numbers for the random blocks, (n, H, r) -> (H, n, r): integers, which no cast of the module rounds."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randint(1 << 31, shape, generator=generator, device="cpu").transpose(0, 1)


class BigBirdBackbone(TransformerStack):
    """Transformer blocks with sparse attention. Positions come from outside; longer than max_len is a ValueError."""

    def build_mixer(self, layer: int) -> BigBirdAttention:
        dims = self.dims
        return BigBirdAttention(
            self.config, dims.d_model, layer=layer, causal=dims.mode == "causal", max_len=dims.max_len
        )
