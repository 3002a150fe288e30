"""Tokenizers: text as token ids.

A tokenizer's own ids are shifted by one, because 0 pads in every task here; behind them come two that stand for
nothing in a text: the end symbol, which also begins a document, and the slot of the objective infilling. Bytes: 0 pads,
byte b is b + 1, 257 ends, 258 is a slot.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.data.files import sha256
from zoo.spec.errors import ConfigError

BYTES = "bytes"
SPECIALS = 3
"""Padding, end, slot."""


class Encoding(NamedTuple):
    """A text in a tokenizer's own ids. Token i is made of the characters [starts[i], stops[i])."""

    ids: np.ndarray
    starts: np.ndarray
    stops: np.ndarray


def dtype_of(size: int) -> np.dtype[Any]:
    """Return the smallest type that holds the ids 0 … size - 1 in files."""
    return np.dtype("u1") if size <= 1 << 8 else np.dtype("<u2") if size <= 1 << 16 else np.dtype("<u4")


class ByteTokenizer:
    """Turns text into its UTF-8 bytes."""

    name, size, digest = BYTES, 256, ""
    unknown: int | None = None

    def encode(self, text: str) -> Encoding:
        ids = np.frombuffer(text.encode("utf-8"), np.uint8)
        # a byte belongs to the character that began last
        starts = np.cumsum((ids & 0xC0) != 0x80) - 1
        return Encoding(ids, starts, starts + 1)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


class JsonTokenizer:
    """Turns text into the ids of a `tokenizer.json` of the library `tokenizers`, without its special tokens.

    name     the file's name
    size     its own ids are 0 … size - 1
    digest   sha256 of the file; "" for bytes
    unknown  id of the unknown token; None where there is none
    """

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as LibraryTokenizer
        except ImportError:
            raise ConfigError(
                "tokenizer", f"{path} needs the package tokenizers: pip install 'seqzoo[tokenizers]'"
            ) from None
        try:
            self.library = LibraryTokenizer.from_str(path.read_text(encoding="utf-8-sig"))
        except Exception as error:  # the library raises Exception itself
            message = f"{path}: not a tokenizer.json of the library tokenizers ({error})"
            raise ConfigError("tokenizer", message) from error
        self.library.no_padding()
        self.library.no_truncation()
        self.name, self.digest = path.name, sha256(path)
        self.size = max(self.library.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        model = self.library.model
        token = getattr(model, "unk_token", None)
        self.unknown: int | None = self.library.token_to_id(token) if token else getattr(model, "unk_id", None)

    def encode(self, text: str) -> Encoding:
        encoding = self.library.encode(text, add_special_tokens=False)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        return Encoding(np.array(encoding.ids, np.int64), offsets[:, 0], offsets[:, 1])

    def decode(self, ids: Sequence[int]) -> str:
        return self.library.decode(list(ids), skip_special_tokens=False)


Tokenizer = ByteTokenizer | JsonTokenizer


def load_tokenizer(name: str) -> Tokenizer:
    """Load "bytes" or the path of a `tokenizer.json`. Raises ConfigError."""
    if name == BYTES:
        return ByteTokenizer()
    path = Path(os.path.expanduser(name))
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError("tokenizer", f"{path}: {error.strerror or error}") from error
    return _load(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _load(path: Path, size: int, changed: int) -> JsonTokenizer:
    return JsonTokenizer(path)


def vocab_size(name: str) -> int:
    """Number of ids of a task with this tokenizer: its own and the three of our own. Raises ConfigError."""
    return load_tokenizer(name).size + SPECIALS
