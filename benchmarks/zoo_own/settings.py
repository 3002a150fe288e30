"""What a user may say of their data (`data.*`), the options of the tasks made of them (`task.*`), and the budget that
they are compared under. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from zoo import ConfigError, NonNegativeInt

Kind = Literal["classification", "pair_classification", "token_classification", "regression", "language_modeling"]
Form = Literal["text", "tokens", "numbers"]
BYTES = "bytes"
PIECE = 256
"""Tokens of a piece of running text."""


@dataclass
class DataSettings:
    """How data are read; what is not said is guessed where it is obvious."""

    input: list[str] = field(default_factory=list)
    """Column of the inputs; of pairs two, a,b. Empty = guessed from the names."""
    label: str = ""
    """Column of the labels, or of the numbers to be predicted. Empty = guessed from the names."""
    kind: Literal["auto", Kind] = "auto"
    """What is learned; auto: by the values of the label."""
    read: Literal["auto", Form] = "auto"
    """What an input is: a text, a list of tokens, or a list of numbers (or of lists of numbers, the channels); auto: by
    the first rows."""
    tokenizer: str = BYTES
    """Of texts: bytes, or the path of a tokenizer.json of the library tokenizers."""
    seed: NonNegativeInt = 0
    """Of the split of rows that files do not divide."""
    duplicates: Literal["refuse", "drop"] = "refuse"
    """Rows of one split whose input another split has, too: an error, or left out of the later of test, val, train."""
    name: str = ""
    """Name of the task; empty = that of the folder or file."""


@dataclass
class OwnOptions:
    """A task of a table's rows."""

    fingerprint: str = ""
    """Of the files and of how they are read; zoo sets it."""
    seq_len: NonNegativeInt = 0
    """Longer inputs lose their end; 0 = as long as the longest."""


@dataclass
class OwnTextOptions:
    """A task of text files."""

    fingerprint: str = ""
    """Of the files and of how they are read; zoo sets it."""
    tokenizer: str = BYTES
    """bytes, or the path of a tokenizer.json."""
    seq_len: NonNegativeInt = PIECE
    """Tokens of a piece."""
    slots: NonNegativeInt = 2
    """Without effect: running text has no slots."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids, those of padding, end and slot included."""
        if self.tokenizer == BYTES:
            return 259
        from zoo.data.tokens import vocab_size

        return vocab_size(self.tokenizer)

    def check(self) -> None:
        """Check the length, and that the tokenizer can be read."""
        if self.seq_len < 4:
            raise ConfigError("seq_len", f"expected 4 at least, got {self.seq_len}")
        _ = self.vocab_size


TOKENS, SAMPLES = 10_000_000, (4_000, 64_000)
"""What `quick` trains on: about so many tokens, but so many examples at least and at most."""


def protocols(length: int, options: dict[str, Any], *, running_text: bool = False) -> dict[str, dict[str, Any]]:
    """The budgets under which architectures are compared on data of this size; no published ones exist."""
    batch = 8 if running_text else 32
    least, most = (2_000, 16_000) if running_text else SAMPLES
    samples = min(max(TOKENS // length, least), most)
    common = {f"task.{key}": value for key, value in options.items()} | {"train.batch_size": batch, "optim.lr": 3e-3}
    return {
        "smoke": common
        | {"train.max_samples": 4 * batch, "train.val_limit": 64, "model.d_model": 16, "model.n_layers": 1},
        "quick": common
        | {
            "train.max_samples": samples // batch * batch,
            "train.val_every": samples // batch * batch // 4,
            "train.val_limit": 1_000,
            "model.match_params_of": "transformer",
            "model.d_model": 32,
            "model.n_layers": 2,
            "segments.length": max(length // 4, 8),
        },
    }
