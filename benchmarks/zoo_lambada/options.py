"""Options (`task.*`) of the language tasks. No torch or NumPy here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from zoo import ConfigError, NonNegativeInt

BYTES = "bytes"
LARGEST = 1 << 20
WORD_BYTES = 34_423 / 5_153
"""Bytes of a last word of LAMBADA and the blank before it, on average."""


def _check(options: LambadaOptions | WikitextOptions) -> None:
    """Check the corpus, the length, and that the tokenizer can be read."""
    if not options.corpus.strip():
        raise ConfigError("corpus", "empty; valid: auto, wikitext-2, wikitext-103, pg19, or a path")
    if not options.slots + 2 <= options.seq_len <= LARGEST:
        raise ConfigError("seq_len", f"expected {options.slots + 2} to {LARGEST:,}, got {options.seq_len}")
    _ = options.vocab_size


def _vocabulary(tokenizer: str) -> int:
    """Number of token ids, those of padding, end and slot included."""
    if tokenizer == BYTES:
        return 259
    from zoo.data.tokens import vocab_size

    return vocab_size(tokenizer)


@dataclass
class LambadaOptions:
    """Test passages of LAMBADA, and the corpus that models are trained on."""

    path: str = ""
    """Folder with the test passages (or one above it), and perhaps the corpus; empty = search the data directory."""
    corpus: str = "auto"
    """Training corpus: auto, wikitext-2, wikitext-103, pg19, or a path of a folder in the form of one of these or of a
    text file. auto is the first of the three that is there; the record says which."""
    tokenizer: str = BYTES
    """bytes, or the path of a tokenizer.json of the library tokenizers."""
    seq_len: int = 1_024
    """Longest input of the model, in training and in test. A longer passage loses its beginning, as in
    lm-evaluation-harness; in bytes all passages fit in 1,024."""
    slots: Annotated[int, Ge(2)] = 32
    """Slots of the objective infilling, for an answer and its end symbol; the longest answer has 23 bytes."""
    val_size: NonNegativeInt = 2_000
    """Validation examples from the corpus's held-out text, at most: pieces of seq_len tokens under causal_lm,
    predicted words under infilling and seq2seq. 0 = all pieces (or 2,000 words)."""
    test_size: NonNegativeInt = 0
    """Test passages, at most, the first ones; 0 = all 5,153."""
    data_seed: NonNegativeInt = 0
    """Seed of the held-out text where the corpus has no splits, and of the validation words."""
    rank_by: Literal["accuracy", "perplexity"] = "accuracy"
    """The score that results are ranked by: accuracy, or the perplexity of the last word."""

    @property
    def metric(self) -> tuple[str, bool]:
        """Name of the ranked score, and whether higher is better."""
        return self.rank_by, self.rank_by == "accuracy"

    @property
    def chance(self) -> float:
        """The ranked score of a uniform guess: each of a last word's WORD_BYTES bytes among 256."""
        return 0.0 if self.rank_by == "accuracy" else 256**WORD_BYTES

    def check(self) -> None:
        """Raise ConfigError for a corpus, length or tokenizer that cannot be used."""
        _check(self)

    @property
    def vocab_size(self) -> int:
        """Number of token ids: those of the tokenizer, and padding, end and slot."""
        return _vocabulary(self.tokenizer)


@dataclass
class WikitextOptions:
    """The corpus, and how it is cut into pieces."""

    path: str = ""
    """Folder above the corpus; empty = search the data directory."""
    corpus: str = "wikitext-2"
    """wikitext-2, wikitext-103, pg19, or a path of a folder in the form of one of these or of a text file."""
    tokenizer: str = BYTES
    """bytes, or the path of a tokenizer.json of the library tokenizers."""
    seq_len: int = 1_024
    """Tokens of a piece. Only architectures that carry state from piece to piece have context from before it."""
    stride: NonNegativeInt = 0
    """0: pieces side by side. Else validation and test use sliding windows of seq_len tokens, this many tokens apart,
    and score the new tokens of each: more context for architectures without state, no carried state for the others."""
    val_size: NonNegativeInt = 0
    """Validation documents, at most, evenly spaced; 0 = all."""
    test_size: NonNegativeInt = 0
    """Test documents, at most, evenly spaced; 0 = all."""
    data_seed: NonNegativeInt = 0
    """Seed of the held-out text where the corpus has no splits."""

    def check(self) -> None:
        """Raise ConfigError for a corpus, length, stride or tokenizer that cannot be used."""
        _check(self)
        if self.stride > self.seq_len:
            raise ConfigError("stride", f"expected at most task.seq_len {self.seq_len}, got {self.stride}")

    @property
    def slots(self) -> int:
        """Slots for an answer: one, the least that the special tokens allow; this task has no answers."""
        return 1

    @property
    def vocab_size(self) -> int:
        """Number of token ids: those of the tokenizer, and padding, end and slot."""
        return _vocabulary(self.tokenizer)
