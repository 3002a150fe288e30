"""The named settings (`task.*`) of the tasks. No torch or NumPy here.

Lengths count the whole sequence: the prompt and, where the answer goes on from it, the answer and its end symbol, so
that a question has room under every objective.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zoo import ConfigError
from zoo_recall.texts import ADJECTIVES, HAY, NOUNS, kv_length, needle_overhead

SHARED = 2.0**-10
"""More examples than this must not be expected in train and in another split."""


def at_least(options: Any, lows: dict[str, int]) -> None:
    """Raise ConfigError for a setting that is too small."""
    for key, low in lows.items():
        if getattr(options, key) < low:
            raise ConfigError(key, f"expected at least {low}, got {getattr(options, key)}")


def sizes(options: Any) -> None:
    """Raise ConfigError for an empty split or a seed that is none."""
    at_least(options, {"data_seed": 0, "train_size": 1, "val_size": 1, "group_size": 1})


def ascending(key: str, values: list[int], low: int) -> None:
    """Raise ConfigError unless `values` ascend from `low` on."""
    if any(b <= a for a, b in zip([low - 1, *values], values, strict=False)):
        raise ConfigError(key, f"expected ascending numbers from {low} on, got {list(values)}")


def roomy(key: str, options: Any, bits: float) -> None:
    """Raise ConfigError when train and test must be expected to share an example.

    bits  log2 of the number of equally likely examples, or less
    """
    expected = math.log2(options.train_size) + math.log2(max(options.val_size, options.group_size)) - bits
    if expected > math.log2(SHARED):
        raise ConfigError(key, f"only 2^{bits:.0f} different examples: those of test would occur in training")


class Cell(NamedTuple):
    """Sequences of `length` tokens with `pairs` pairs, `share` parts of a mixture."""

    length: int
    pairs: int
    share: int = 1


def cells(key: str, texts: list[str]) -> list[Cell]:
    """["64x4*5", "128x8"] -> cells. Raises ConfigError."""
    found = []
    for text in texts:
        match = re.fullmatch(r"\s*(\d+)x(\d+)(?:\*(\d+))?\s*", str(text))
        if match is None:
            raise ConfigError(key, f"{text!r}: expected LENGTHxPAIRS or LENGTHxPAIRS*SHARE, such as 64x4*5")
        found.append(Cell(int(match[1]), int(match[2]), int(match[3] or 1)))
    if any(cell.share < 1 for cell in found):
        raise ConfigError(key, f"a share of 0 in {list(texts)}")
    if len({cell[:2] for cell in found}) < len(found):
        raise ConfigError(key, f"the same cell twice in {list(texts)}")
    return found


@dataclass
class MqarOptions:
    """Multi-query associative recall (Arora et al. 2024, "Zoology")."""

    data_seed: int = 0
    """Seed of the examples."""
    train_size: int = 180_000
    """Training examples of all cells of the mixture."""
    val_size: int = 1_000
    """Validation examples, drawn as those of train are."""
    group_size: int = 1_000
    """Test examples of each cell."""
    seq_len: int = 256
    """Longest sequence in training."""
    vocab: int = 8_192
    """Symbols: a blank, keys (the lower half) and values (the upper half)."""
    mixture: list[str] = field(default_factory=lambda: ["64x4*5", "128x8", "256x16", "256x32", "256x64"])
    """What train and val hold: LENGTHxPAIRS*SHARE."""
    test_cells: list[str] = field(default_factory=lambda: ["64x4", "64x8", "64x16", "128x32", "256x64"])
    """What test holds, LENGTHxPAIRS; no longer than seq_len."""
    generalization_cells: list[str] = field(default_factory=lambda: ["512x128", "1024x256"])
    """What length_generalization holds, LENGTHxPAIRS; longer than seq_len."""
    power_a: float = 0.01
    """The gap between a pair and its question has probability ~ gap^(a - 1); 1 is uniform."""
    random_non_queries: bool = True
    """Fillers between the questions are random symbols; else the blank."""
    filler_keys: bool = True
    """A random filler may equal a key of its sequence, as published: such a place is not asked, and what a key is bound
    to is said by the pairs alone, so that the answers stay unambiguous. False: it never does."""

    def check(self) -> None:
        """Raise ConfigError for what cannot be."""
        sizes(self)
        at_least(self, {"seq_len": 4, "vocab": 8})
        if not self.power_a > 0:
            raise ConfigError("power_a", f"expected a positive number, got {self.power_a}")
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
        roomy("vocab", self, bits)

    @property
    def longest(self) -> int:
        """The longest sequence of any split."""
        return max([self.seq_len, *(cell.length for cell in cells("generalization_cells", self.generalization_cells))])

    @property
    def chance(self) -> float:
        """Of a uniform guess among the values."""
        return 1 / (self.vocab - self.vocab // 2)

    @property
    def vocab_size(self) -> int:
        """Padding, the symbols, slot and end."""
        return self.vocab + 3


GENERALIZATION_FACTORS = (2, 4, 8)


def longest_of(options: Any) -> int:
    """The longest sequence of any split, where length_generalization has multiples of seq_len."""
    return max([1, *options.generalization_factors]) * options.seq_len


@dataclass
class SelectiveCopyingOptions:
    """Selective copying (Gu and Dao 2023, "Mamba")."""

    data_seed: int = 0
    """Seed of the examples."""
    train_size: int = 25_600_000
    """Training examples; 25.6 million are never seen twice in the published 400,000 steps."""
    val_size: int = 1_000
    """Validation examples."""
    group_size: int = 1_000
    """Test examples of each length."""
    seq_len: int = 4_112
    """Length of a sequence: noise with the tokens in it (4,096 as published), and a marker for each token."""
    tokens: int = 16
    """Data tokens, and markers."""
    vocab: int = 16
    """Symbols: the noise, the data tokens, the marker."""
    generalization_factors: list[int] = field(default_factory=lambda: list(GENERALIZATION_FACTORS))
    """Lengths of the split length_generalization as multiples of seq_len, `tokens` unchanged. Empty: no such split."""

    def check(self) -> None:
        """Raise ConfigError for what cannot be."""
        sizes(self)
        at_least(self, {"tokens": 1, "vocab": 4})
        ascending("generalization_factors", self.generalization_factors, 2)
        noise = self.seq_len - self.tokens
        if noise < self.tokens:
            raise ConfigError("seq_len", f"{self.seq_len} is too short for {self.tokens} tokens and their markers")
        bits = math.log2(math.comb(noise, self.tokens)) + self.tokens * math.log2(self.vocab - 2)
        roomy("tokens", self, bits)

    @property
    def longest(self) -> int:
        """The longest sequence of any split."""
        return longest_of(self)

    @property
    def chance(self) -> float:
        """Of a uniform guess among the data tokens."""
        return 1 / (self.vocab - 2)

    @property
    def vocab_size(self) -> int:
        """Padding, the symbols, slot and end."""
        return self.vocab + 3


@dataclass
class InductionHeadsOptions:
    """Induction heads with the settings of Gu and Dao 2023 ("Mamba")."""

    data_seed: int = 0
    """Seed of the examples."""
    train_size: int = 1_638_400
    """Training examples; so many are never seen twice in the published 204,800 steps of 8."""
    val_size: int = 1_000
    """Validation examples."""
    group_size: int = 1_000
    """Test examples of each length."""
    seq_len: int = 256
    """Length of a sequence in training, the final trigger included."""
    vocab: int = 16
    """Symbols: the ordinary ones and the trigger."""
    test_lengths: list[int] = field(default_factory=lambda: [64, 128, 256])
    """Lengths in test, none above seq_len."""
    generalization_factors: list[int] = field(default_factory=lambda: [2, 4, 8, 16, 32, 64])
    """Lengths of the split length_generalization as multiples of seq_len. Published up to 4,096 (2^20 tokens), where
    memory allows. Empty: no such split."""

    def check(self) -> None:
        """Raise ConfigError for what cannot be."""
        sizes(self)
        at_least(self, {"vocab": 3, "seq_len": 4})
        ascending("test_lengths", self.test_lengths, 4)
        ascending("generalization_factors", self.generalization_factors, 2)
        if not self.test_lengths or self.test_lengths[-1] > self.seq_len:
            raise ConfigError(
                "test_lengths", f"expected some up to task.seq_len {self.seq_len}, got {list(self.test_lengths)}"
            )
        roomy("test_lengths", self, (self.test_lengths[0] - 3) * math.log2(self.vocab - 1))

    @property
    def longest(self) -> int:
        """The longest sequence of any split."""
        return longest_of(self)

    @property
    def chance(self) -> float:
        """Of a uniform guess among the ordinary tokens."""
        return 1 / (self.vocab - 1)

    @property
    def vocab_size(self) -> int:
        """Padding, the symbols, slot and end."""
        return self.vocab + 3


FORMS = ("text", "symbols")


def form(value: str) -> None:
    """Raise ConfigError for a form that is none."""
    if value not in FORMS:
        raise ConfigError("form", f"{value!r}; valid: {', '.join(FORMS)}")


BYTES = 256


@dataclass
class NeedleOptions:
    """Needle in a haystack (Kamradt 2023; texts as in RULER, Hsieh et al. 2024)."""

    data_seed: int = 0
    """Seed of the examples."""
    train_size: int = 100_000
    """Training examples. Their needles are at random depths."""
    val_size: int = 500
    """Validation examples."""
    group_size: int = 100
    """Test examples of each cell of the grid, length by depth."""
    seq_len: int = 4_096
    """Longest sequence in training."""
    form: str = "text"
    """text | symbols: bytes of RULER's niah_single_1 (with `distractors`, of its multi-key kind), or a made-up language
    of `hay` words."""
    train_lengths: list[int] = field(default_factory=list)
    """Lengths in training, equally frequent; empty = seq_len alone."""
    test_lengths: list[int] = field(default_factory=list)
    """Lengths in test, none above seq_len; empty = those of training."""
    generalization_factors: list[int] = field(default_factory=lambda: list(GENERALIZATION_FACTORS))
    """Lengths of the split length_generalization as multiples of seq_len. Empty: no such split."""
    depths: int = 11
    """Depths of the grid, evenly from 0 (at the beginning) to 1 (right before the question)."""
    digits: int = 7
    """Digits of the number that is asked for; all must be right."""
    distractors: int = 0
    """Needles with other keys in the same haystack."""
    hay: int = 64
    """symbols: different straws."""
    keys: int = 32
    """symbols: different keys."""

    def check(self) -> None:
        """Raise ConfigError for what cannot be."""
        sizes(self)
        form(self.form)
        if self.form == "text" and self.digits > 9:
            raise ConfigError("digits", f"expected at most 9, got {self.digits}")
        at_least(self, {"depths": 2, "digits": 1, "distractors": 0, "hay": 2, "keys": 1})
        ascending("generalization_factors", self.generalization_factors, 2)
        shortest = self.overhead + (128 if self.form == "text" else 16)
        for key in ("train_lengths", "test_lengths"):
            ascending(key, getattr(self, key), shortest)
        if self.seq_len < shortest:
            raise ConfigError("seq_len", f"expected at least {shortest} for these needles, got {self.seq_len}")
        for key in ("train_lengths", "test_lengths"):
            if getattr(self, key) and getattr(self, key)[-1] > self.seq_len:
                raise ConfigError(key, f"{list(getattr(self, key))} goes above task.seq_len {self.seq_len}")
        if self.train_lengths and self.train_lengths[-1] != self.seq_len:
            raise ConfigError("train_lengths", f"task.seq_len {self.seq_len} is the longest of them")
        known = len(ADJECTIVES) * len(NOUNS) if self.form == "text" else self.keys
        if self.distractors >= known:
            raise ConfigError("distractors", f"{self.distractors} others have no different keys among {known}")
        bits = math.log2(known) + (self.digits - 1) * math.log2(10)
        hay = min([self.seq_len, *self.train_lengths, *self.test_lengths]) - self.overhead
        # hay of text is always the same: what differs is the key, the number, and the place between two lines
        bits += math.log2(hay // (len(HAY) + 1) + 1) if self.form == "text" else hay * math.log2(self.hay)
        roomy("digits", self, bits)

    @property
    def overhead(self) -> int:
        """Tokens of a sequence that are no hay, at most: needles, question, answer and end."""
        if self.form == "text":
            return needle_overhead(self.digits, self.distractors)
        return (1 + self.distractors) * (3 + self.digits) + 3 + self.digits + 1

    @property
    def longest(self) -> int:
        """The longest sequence of any split."""
        return longest_of(self)

    @property
    def chance(self) -> float:
        """Of a uniform guess among the numbers."""
        return 1 / (9 * 10 ** (self.digits - 1)) if self.form == "text" else 0.1**self.digits

    @property
    def vocab_size(self) -> int:
        """Padding, the symbols, slot and end."""
        return (BYTES if self.form == "text" else self.hay + self.keys + 10 + 3) + 3


@dataclass
class KvRetrievalOptions:
    """Key-value retrieval (Liu et al. 2023, "Lost in the middle")."""

    path: str = ""
    """text: folder with the published kv-retrieval-{75,140,300}_keys.jsonl.gz (or one above it): test and
    length_generalization are theirs. Empty: where zoo data prepare --from found them; else generated."""
    data_seed: int = 0
    """Seed of the generated examples."""
    train_size: int = 100_000
    """Training examples, always generated. The pair that is asked for is at a random position."""
    val_size: int = 500
    """Validation examples."""
    group_size: int = 500
    """Sets of pairs per number of pairs in test, each asked for with its pair at every tested position; of the
    published files at most so many."""
    form: str = "text"
    """text | symbols: the bytes of the published prompt with UUIDs, or short keys and values."""
    seq_len: int = 6_400
    """Longest sequence in training; must hold the pairs."""
    train_pairs: list[int] = field(default_factory=lambda: [75])
    """Numbers of pairs in training, equally frequent."""
    test_pairs: list[int] = field(default_factory=lambda: [75])
    """Numbers of pairs in test, none above those of training."""
    generalization_pairs: list[int] = field(default_factory=lambda: [140, 300])
    """Numbers of pairs in length_generalization, above those of training. Empty: no such split."""
    positions: int = 5
    """How many positions of the pair are tested, evenly from the first to the last."""
    alphabet: int = 16
    """symbols: different characters."""
    key_len: int = 2
    """symbols: characters of a key."""
    value_len: int = 2
    """symbols: characters of a value; all must be right."""

    def check(self) -> None:
        """Raise ConfigError for what cannot be."""
        sizes(self)
        form(self.form)
        at_least(self, {"positions": 2, "alphabet": 2, "key_len": 1, "value_len": 1})
        for key in ("train_pairs", "test_pairs", "generalization_pairs"):
            ascending(key, getattr(self, key), 2)
        if not self.train_pairs or not self.test_pairs:
            raise ConfigError("train_pairs" if not self.train_pairs else "test_pairs", "no numbers of pairs")
        top = self.train_pairs[-1]
        if self.test_pairs[-1] > top:
            raise ConfigError("test_pairs", f"{list(self.test_pairs)} goes above the {top} pairs of training")
        if self.generalization_pairs and self.generalization_pairs[0] <= top:
            raise ConfigError(
                "generalization_pairs", f"{list(self.generalization_pairs)} is not above the {top} pairs of training"
            )
        if self.seq_len < self.length(top):
            raise ConfigError("seq_len", f"{top} pairs have {self.length(top)} tokens, got {self.seq_len}")
        if self.form == "symbols":
            most, keys = max([top, *self.generalization_pairs]), self.alphabet**self.key_len
            if self.key_len * math.log2(self.alphabet) > 62:
                raise ConfigError("key_len", f"expected at most 62 bits, got {self.key_len} of {self.alphabet}")
            if most > keys:
                raise ConfigError("key_len", f"{keys} different keys are too few for {most} pairs")
            fewest = min(*self.train_pairs, *self.test_pairs)
            bits = sum(math.log2(keys - i) for i in range(fewest))
            roomy("value_len", self, bits + fewest * self.value_len * math.log2(self.alphabet))

    def length(self, pairs: int) -> int:
        """Tokens of a sequence with so many pairs: prompt, answer and end."""
        if self.form == "text":
            return kv_length(pairs)
        return pairs * (self.key_len + self.value_len + 2) + self.key_len + 2 + self.value_len + 1

    @property
    def longest(self) -> int:
        """The longest sequence of any split."""
        return max(self.seq_len, *(self.length(pairs) for pairs in [*self.train_pairs, *self.generalization_pairs]))

    @property
    def chance(self) -> float:
        """Of a uniform guess among the values; of UUIDs nearly none."""
        return 0.0 if self.form == "text" else self.alphabet**-self.value_len

    @property
    def vocab_size(self) -> int:
        """Padding, the symbols, slot and end."""
        return (BYTES if self.form == "text" else self.alphabet + 3) + 3
