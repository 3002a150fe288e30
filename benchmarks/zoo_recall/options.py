"""Options (`task.*`) of the tasks. No torch or NumPy here.

Lengths count the whole sequence: the prompt and, where the answer continues it, the answer and its end symbol, so that
a question fits under every objective.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from annotated_types import Ge

from zoo import ConfigError, NonNegativeInt, PositiveFloat, PositiveInt

MAX_SHARED = 2.0**-10
"""Largest expected number of examples that are both in train and in another split."""

GENERALIZATION_FACTORS = (2, 4, 8)


def check_ascending(key: str, values: list[int], low: int) -> None:
    """Raise ConfigError unless `values` are ascending and none is below `low`."""
    if any(b <= a for a, b in zip([low - 1, *values], values, strict=False)):
        raise ConfigError(key, f"expected ascending numbers from {low} on, got {list(values)}")


def check_disjoint(key: str, options: Any, bits: float) -> None:
    """Raise ConfigError where train and another split are likely to share an example.

    bits  log2 of the number of equally likely examples, or less
    """
    expected = math.log2(options.train_size) + math.log2(max(options.val_size, options.group_size)) - bits
    if expected > math.log2(MAX_SHARED):
        raise ConfigError(key, f"only 2^{bits:.0f} different examples: those of test would occur in training")


class Cell(NamedTuple):
    """Sequences of `length` tokens with `pairs` pairs, with weight `share` in a mixture."""

    length: int
    pairs: int
    share: int = 1


def cells(key: str, texts: list[str]) -> list[Cell]:
    """Parse cells such as ["64x4*5", "128x8"]. Raises ConfigError for `key`."""
    parsed = []
    for text in texts:
        match = re.fullmatch(r"\s*(\d+)x(\d+)(?:\*(\d+))?\s*", str(text))
        if match is None:
            raise ConfigError(key, f"{text!r}: expected LENGTHxPAIRS or LENGTHxPAIRS*SHARE, such as 64x4*5")
        parsed.append(Cell(int(match[1]), int(match[2]), int(match[3] or 1)))
    if any(cell.share < 1 for cell in parsed):
        raise ConfigError(key, f"a share of 0 in {list(texts)}")
    if len({cell[:2] for cell in parsed}) < len(parsed):
        raise ConfigError(key, f"the same cell twice in {list(texts)}")
    return parsed


@dataclass
class MqarOptions:
    """Multi-query associative recall (Arora et al. 2024, "Zoology")."""

    data_seed: NonNegativeInt = 0
    """Seed of the examples."""
    train_size: PositiveInt = 180_000
    """Training examples of all cells of the mixture."""
    val_size: PositiveInt = 1_000
    """Validation examples, from the distribution of train."""
    group_size: PositiveInt = 1_000
    """Test examples of each cell."""
    seq_len: Annotated[int, Ge(4)] = 256
    """Longest sequence in training."""
    vocab: Annotated[int, Ge(8)] = 8_192
    """Symbols: a blank, keys (the lower half) and values (the upper half)."""
    mixture: list[str] = field(default_factory=lambda: ["64x4*5", "128x8", "256x16", "256x32", "256x64"])
    """Cells of train and val, LENGTHxPAIRS*SHARE."""
    test_cells: list[str] = field(default_factory=lambda: ["64x4", "64x8", "64x16", "128x32", "256x64"])
    """Cells of test, LENGTHxPAIRS; no longer than seq_len."""
    generalization_cells: list[str] = field(default_factory=lambda: ["512x128", "1024x256"])
    """Cells of the split length_generalization, LENGTHxPAIRS; longer than seq_len."""
    power_a: PositiveFloat = 0.01
    """The gap between a pair and its question has probability ~ gap^(a - 1); 1 is uniform."""
    random_non_queries: bool = True
    """Fillers between the questions are random symbols; else the blank."""
    filler_keys: bool = True
    """A random filler may equal a key of its sequence, as published; no answer is scored there, and only the pairs bind
    keys to values, so that the answers stay unambiguous. false: fillers are never keys of their sequence."""

    def check(self) -> None:
        """Raise ConfigError for cells that do not fit, and for splits that would share examples."""
        if not self.mixture or not self.test_cells:
            raise ConfigError("mixture" if not self.mixture else "test_cells", "no cells")
        keys = self.vocab // 2 - 1
        values = self.vocab - self.vocab // 2
        bits = math.inf
        for key in ("mixture", "test_cells", "generalization_cells"):
            for cell in cells(key, getattr(self, key)):
                name = f"{cell.length}x{cell.pairs}"
                if cell.pairs < 1 or 4 * cell.pairs > cell.length or cell.length % 2:
                    raise ConfigError(key, f"{name}: needs an even length of at least 4 tokens per pair")
                if cell.pairs > keys:
                    raise ConfigError("vocab", f"{self.vocab} symbols have {keys} keys, too few for {name} of {key}")
                if key == "generalization_cells" and cell.length <= self.seq_len:
                    raise ConfigError(key, f"{name} is no longer than task.seq_len {self.seq_len}")
                if key != "generalization_cells" and cell.length > self.seq_len:
                    raise ConfigError(key, f"{name} is longer than task.seq_len {self.seq_len}")
                own = sum(math.log2(keys - i) + math.log2(values - i) for i in range(cell.pairs))
                if self.random_non_queries:
                    own += (cell.length - 3 * cell.pairs) * math.log2(self.vocab - cell.pairs)
                bits = min(bits, own)
        check_disjoint("vocab", self, bits)

    @property
    def longest(self) -> int:
        """The longest sequence of any split."""
        return max([self.seq_len, *(cell.length for cell in cells("generalization_cells", self.generalization_cells))])

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess among the values."""
        return 1 / (self.vocab - self.vocab // 2)

    @property
    def vocab_size(self) -> int:
        """Number of token ids: padding, the symbols, slot and end."""
        return self.vocab + 3


def longest_of(options: Any) -> int:
    """Tokens of the longest example of any split, where length_generalization has multiples of seq_len."""
    return max([1, *options.generalization_factors]) * options.seq_len


@dataclass
class SelectiveCopyingOptions:
    """Selective copying (Gu and Dao 2023, "Mamba")."""

    data_seed: NonNegativeInt = 0
    """Seed of the examples."""
    train_size: PositiveInt = 25_600_000
    """Training examples; of 25.6 million none is repeated in the published 400,000 steps."""
    val_size: PositiveInt = 1_000
    """Validation examples."""
    group_size: PositiveInt = 1_000
    """Test examples of each length."""
    seq_len: int = 4_112
    """Length of a sequence: noise with the tokens in it (4,096 as published), and a marker for each token."""
    tokens: PositiveInt = 16
    """Data tokens, and markers."""
    vocab: Annotated[int, Ge(4)] = 16
    """Symbols: the noise, the data tokens, the marker."""
    generalization_factors: list[int] = field(default_factory=lambda: list(GENERALIZATION_FACTORS))
    """Lengths of the split length_generalization as multiples of seq_len; the number of tokens stays. Empty = none."""

    def check(self) -> None:
        """Raise ConfigError for a sequence that is too short, and for splits that would share examples."""
        check_ascending("generalization_factors", self.generalization_factors, 2)
        noise = self.seq_len - self.tokens
        if noise < self.tokens:
            raise ConfigError("seq_len", f"{self.seq_len} is too short for {self.tokens} tokens and their markers")
        bits = math.log2(math.comb(noise, self.tokens)) + self.tokens * math.log2(self.vocab - 2)
        check_disjoint("tokens", self, bits)

    @property
    def longest(self) -> int:
        """The longest sequence of any split."""
        return longest_of(self)

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess among the data tokens."""
        return 1 / (self.vocab - 2)

    @property
    def vocab_size(self) -> int:
        """Number of token ids: padding, the symbols, slot and end."""
        return self.vocab + 3


@dataclass
class InductionHeadsOptions:
    """Induction heads with the settings of Gu and Dao 2023 ("Mamba")."""

    data_seed: NonNegativeInt = 0
    """Seed of the examples."""
    train_size: PositiveInt = 1_638_400
    """Training examples; of this many none is repeated in the published 204,800 steps of 8."""
    val_size: PositiveInt = 1_000
    """Validation examples."""
    group_size: PositiveInt = 1_000
    """Test examples of each length."""
    seq_len: Annotated[int, Ge(4)] = 256
    """Length of a sequence in training, the final trigger included."""
    vocab: Annotated[int, Ge(3)] = 16
    """Symbols: the ordinary ones and the trigger."""
    test_lengths: list[int] = field(default_factory=lambda: [64, 128, 256])
    """Lengths in test, none above seq_len."""
    generalization_factors: list[int] = field(default_factory=lambda: [2, 4, 8, 16, 32, 64])
    """Lengths of the split length_generalization as multiples of seq_len. Published up to 4,096 (2^20 tokens), where
    memory allows."""

    def check(self) -> None:
        """Raise ConfigError for lengths that do not fit, and for splits that would share examples."""
        check_ascending("test_lengths", self.test_lengths, 4)
        check_ascending("generalization_factors", self.generalization_factors, 2)
        if not self.test_lengths or self.test_lengths[-1] > self.seq_len:
            raise ConfigError(
                "test_lengths", f"expected some up to task.seq_len {self.seq_len}, got {list(self.test_lengths)}"
            )
        check_disjoint("test_lengths", self, (self.test_lengths[0] - 3) * math.log2(self.vocab - 1))

    @property
    def longest(self) -> int:
        """The longest sequence of any split."""
        return longest_of(self)

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess among the ordinary tokens."""
        return 1 / (self.vocab - 1)

    @property
    def vocab_size(self) -> int:
        """Number of token ids: padding, the symbols, slot and end."""
        return self.vocab + 3
