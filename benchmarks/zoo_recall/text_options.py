"""Options (`task.*`) of the tasks that have a form in text: needle and kv_retrieval. No torch or NumPy here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge

from zoo import ConfigError, NonNegativeInt, PositiveInt
from zoo_recall.options import GENERALIZATION_FACTORS, check_ascending, check_disjoint, longest_of
from zoo_recall.texts import ADJECTIVES, HAY, NOUNS, kv_length, needle_overhead

Form = Literal["text", "symbols"]
BYTES = "bytes"
SPECIALS = 3
"""Padding, slot and end."""


def text_vocabulary(tokenizer: str) -> int:
    """Number of token ids of form=text: those of the tokenizer, and padding, slot and end."""
    if tokenizer == BYTES:
        return 256 + SPECIALS
    from zoo.data.tokens import vocab_size

    return vocab_size(tokenizer)


def counter(tokenizer: str) -> Callable[[str], int]:
    """What counts the tokens of a text of the suite, all of which are ASCII."""
    if tokenizer == BYTES:
        return len
    from zoo_recall.wording import Wording

    return Wording(tokenizer).count


@dataclass
class NeedleOptions:
    """Needle in a haystack (Kamradt 2023; texts as in RULER, Hsieh et al. 2024)."""

    data_seed: NonNegativeInt = 0
    """Seed of the examples."""
    train_size: PositiveInt = 100_000
    """Training examples, with needles at random depths."""
    val_size: PositiveInt = 500
    """Validation examples."""
    group_size: PositiveInt = 100
    """Test examples of each cell of the grid, length by depth."""
    seq_len: int = 4_096
    """Longest sequence in training."""
    form: Form = "text"
    """text: RULER's niah_single_1 (with `distractors`, of its multi-key kind). symbols: an artificial language with a
    vocabulary of `hay` words."""
    tokenizer: str = BYTES
    """form=text: bytes, or the path of a tokenizer.json of the library tokenizers; lengths are in its tokens."""
    train_lengths: list[int] = field(default_factory=list)
    """Lengths in training, equally frequent; empty = seq_len alone."""
    test_lengths: list[int] = field(default_factory=list)
    """Lengths in test, none above seq_len; empty = those of training."""
    generalization_factors: list[int] = field(default_factory=lambda: list(GENERALIZATION_FACTORS))
    """Lengths of the split length_generalization as multiples of seq_len."""
    depths: Annotated[int, Ge(2)] = 11
    """Depths of the grid, evenly from 0 (at the beginning) to 1 (right before the question)."""
    digits: PositiveInt = 7
    """Digits of the number that is the answer; all must be right."""
    distractors: NonNegativeInt = 0
    """Needles with other keys in the same haystack."""
    hay: Annotated[int, Ge(2)] = 64
    """form=symbols: number of hay words."""
    keys: PositiveInt = 32
    """form=symbols: number of different keys."""

    def check(self) -> None:
        """Raise ConfigError for lengths and keys that do not fit, and for splits that would share examples."""
        if self.form == "text" and self.digits > 9:
            raise ConfigError("digits", f"expected at most 9, got {self.digits}")
        check_ascending("generalization_factors", self.generalization_factors, 2)
        shortest = self.overhead + (38 + counter(self.tokenizer)(HAY) if self.form == "text" else 16)
        for key in ("train_lengths", "test_lengths"):
            check_ascending(key, getattr(self, key), shortest)
        if self.seq_len < shortest:
            raise ConfigError("seq_len", f"expected at least {shortest} for these needles, got {self.seq_len}")
        for key in ("train_lengths", "test_lengths"):
            if getattr(self, key) and getattr(self, key)[-1] > self.seq_len:
                raise ConfigError(key, f"{list(getattr(self, key))} goes above task.seq_len {self.seq_len}")
        if self.train_lengths and self.train_lengths[-1] != self.seq_len:
            raise ConfigError("train_lengths", f"task.seq_len {self.seq_len} is the longest of them")
        known = len(ADJECTIVES) * len(NOUNS) if self.form == "text" else self.keys
        if self.distractors >= known:
            raise ConfigError(
                "distractors", f"{self.distractors} needles besides the answer's need more than {known} keys"
            )
        bits = math.log2(known) + (self.digits - 1) * math.log2(10)
        hay = min([self.seq_len, *self.train_lengths, *self.test_lengths]) - self.overhead
        if self.form == "text":
            # hay is constant: examples differ in the key, the number, and the position between two lines
            bits += math.log2(hay // (counter(self.tokenizer)(HAY) + 1) + 1)
        else:
            bits += hay * math.log2(self.hay)
        check_disjoint("digits", self, bits)

    @property
    def overhead(self) -> int:
        """Largest number of tokens that are not hay: needles, question, answer and end."""
        if self.form == "text":
            return needle_overhead(self.digits, self.distractors, counter(self.tokenizer))
        return (1 + self.distractors) * (3 + self.digits) + 3 + self.digits + 1

    @property
    def longest(self) -> int:
        """The longest sequence of any split."""
        return longest_of(self)

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess among the numbers."""
        return 1 / (9 * 10 ** (self.digits - 1)) if self.form == "text" else 0.1**self.digits

    @property
    def vocab_size(self) -> int:
        """Number of token ids: padding, the symbols, slot and end."""
        return text_vocabulary(self.tokenizer) if self.form == "text" else self.hay + self.keys + 10 + 3 + SPECIALS


@dataclass
class KvRetrievalOptions:
    """Key-value retrieval (Liu et al. 2023, "Lost in the middle")."""

    path: str = ""
    """form=text: folder with the published kv-retrieval-{75,140,300}_keys.jsonl.gz (or one above it) for test
    and length_generalization. Empty = the folder of zoo data prepare --from; where there is none, generated."""
    data_seed: NonNegativeInt = 0
    """Seed of the generated examples."""
    train_size: PositiveInt = 100_000
    """Training examples, always generated, with the queried pair at a random position."""
    val_size: PositiveInt = 500
    """Validation examples."""
    group_size: PositiveInt = 500
    """Sets of pairs per number of pairs in test, each queried with its pair at every tested position; of the published
    files at most this many."""
    form: Form = "text"
    """text: the published prompt with UUIDs. symbols: short keys and values."""
    tokenizer: str = BYTES
    """form=text: bytes, or the path of a tokenizer.json of the library tokenizers. Lengths stay those in bytes, which
    tokens do not exceed."""
    seq_len: int = 6_400
    """Longest sequence in training; must hold the pairs."""
    train_pairs: list[int] = field(default_factory=lambda: [75])
    """Numbers of pairs in training, equally frequent."""
    test_pairs: list[int] = field(default_factory=lambda: [75])
    """Numbers of pairs in test, none above those of training."""
    generalization_pairs: list[int] = field(default_factory=lambda: [140, 300])
    """Numbers of pairs in the split length_generalization."""
    positions: Annotated[int, Ge(2)] = 5
    """Number of tested positions of the pair, evenly from the first to the last."""
    alphabet: Annotated[int, Ge(2)] = 16
    """form=symbols: number of different characters."""
    key_len: PositiveInt = 2
    """form=symbols: characters of a key."""
    value_len: PositiveInt = 2
    """form=symbols: characters of a value; all must be right."""

    def check(self) -> None:
        """Raise ConfigError for numbers of pairs that do not fit, and for splits that would share examples."""
        for key in ("train_pairs", "test_pairs", "generalization_pairs"):
            check_ascending(key, getattr(self, key), 2)
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
            check_disjoint("value_len", self, bits + fewest * self.value_len * math.log2(self.alphabet))

    def length(self, pairs: int) -> int:
        """Tokens of a sequence with this many pairs: prompt, answer and end."""
        if self.form == "text":
            return kv_length(pairs)
        return pairs * (self.key_len + self.value_len + 2) + self.key_len + 2 + self.value_len + 1

    @property
    def longest(self) -> int:
        """The longest sequence of any split."""
        return max(self.seq_len, *(self.length(pairs) for pairs in [*self.train_pairs, *self.generalization_pairs]))

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess among the values; practically 0 for UUIDs."""
        return 0.0 if self.form == "text" else self.alphabet**-self.value_len

    @property
    def vocab_size(self) -> int:
        """Number of token ids: padding, the symbols, slot and end."""
        return text_vocabulary(self.tokenizer) if self.form == "text" else self.alphabet + 3 + SPECIALS
