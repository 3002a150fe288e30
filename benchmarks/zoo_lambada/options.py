"""The named settings (`task.*`) of the language tasks. No torch or NumPy here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from zoo import ConfigError

BYTES = "bytes"
LARGEST = 1 << 20


def _check(options: Any, *sizes: str) -> None:
    for key in sizes:
        if getattr(options, key) < 0:
            raise ConfigError(key, f"expected zero (all) or more, got {getattr(options, key)}")
    if options.data_seed < 0:
        raise ConfigError("data_seed", f"expected zero or more, got {options.data_seed}")
    if not options.corpus.strip():
        raise ConfigError("corpus", "empty; valid: auto, wikitext-2, wikitext-103, pg19, or a path")
    if not options.slots + 2 <= options.seq_len <= LARGEST:
        raise ConfigError("seq_len", f"expected {options.slots + 2} to {LARGEST:,}, got {options.seq_len}")
    _ = options.vocab_size


def _vocabulary(tokenizer: str) -> int:
    if tokenizer == BYTES:
        return 259
    from zoo.data.tokens import vocab_size

    return vocab_size(tokenizer)


@dataclass
class LambadaOptions:
    """What a LAMBADA task is, and what its models are trained on."""

    path: str = ""
    """Folder with the test passages (or one above it), and perhaps the corpus; else both are looked for in the data
    directory."""
    corpus: str = "auto"
    """auto | wikitext-2 | wikitext-103 | pg19 | a path: what is trained on. A path is a folder in the form of one of
    these, or a text file. auto is the first of the three that is there; the record says which."""
    tokenizer: str = BYTES
    """bytes, or the path of a tokenizer.json of the library tokenizers."""
    seq_len: int = 1_024
    """Longest sequence the model is given, in training and in test. A longer passage loses its beginning, as in
    lm-evaluation-harness; in bytes all passages fit in 1,024."""
    slots: int = 32
    """Slots that the objective infilling offers for an answer and its end symbol; the longest answer has 23 bytes."""
    val_size: int = 2_000
    """Validation examples from the corpus's held-out text, at most: pieces of seq_len tokens under causal_lm, words to
    be told under infilling and seq2seq. 0 = all pieces (or 2,000 words)."""
    test_size: int = 0
    """Test passages, at most, the first ones; 0 = all 5,153."""
    data_seed: int = 0
    """Seed of what is held out where the corpus has no splits, and of the validation words."""

    def check(self) -> None:
        """Raise ConfigError for what cannot be."""
        if self.slots < 2:
            raise ConfigError("slots", f"expected two at least (a token and the end symbol), got {self.slots}")
        _check(self, "val_size", "test_size")

    @property
    def vocab_size(self) -> int:
        """Those of the tokeniser, and padding, end and slot."""
        return _vocabulary(self.tokenizer)


@dataclass
class WikitextOptions:
    """What is read and how."""

    path: str = ""
    """Folder above the corpus; else it is looked for in the data directory."""
    corpus: str = "wikitext-2"
    """wikitext-2 | wikitext-103 | pg19 | a path: a folder in the form of one of these, or a text file."""
    tokenizer: str = BYTES
    """bytes, or the path of a tokenizer.json of the library tokenizers."""
    seq_len: int = 1_024
    """Tokens of a piece. What was before it is known only to architectures that carry state from piece to piece."""
    stride: int = field(default=0, metadata={"later": True})
    """0: pieces side by side. Else validation and test read windows of seq_len tokens that move on by so many, and ask
    for these: more context for architectures without state, nothing carried for the others."""
    val_size: int = 0
    """Validation documents, at most, evenly spaced; 0 = all."""
    test_size: int = 0
    """Test documents, at most, evenly spaced; 0 = all."""
    data_seed: int = 0
    """Seed of what is held out where the corpus has no splits."""

    def check(self) -> None:
        """Raise ConfigError for what cannot be."""
        _check(self, "val_size", "test_size")
        if not 0 <= self.stride <= self.seq_len:
            raise ConfigError("stride", f"expected 0 to task.seq_len {self.seq_len}, got {self.stride}")

    @property
    def slots(self) -> int:
        """None are asked for; the specials say one."""
        return 1

    @property
    def vocab_size(self) -> int:
        """Those of the tokeniser, and padding, end and slot."""
        return _vocabulary(self.tokenizer)
