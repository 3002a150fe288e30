"""Text as token ids.

A tokeniser's own ids are shifted by one, because 0 pads in every task here; behind them come two that stand for
nothing in a text: the end symbol, which also begins a document, and the slot of the objective infilling. Bytes: 0 pads,
byte b is b + 1, 257 ends, 258 is a slot.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from zoo.data.cache import sha256
from zoo.spec.errors import ConfigError, DataError

BYTES = "bytes"
SPECIALS = 3
"""Padding, end, slot."""


class Encoded(NamedTuple):
    """A text in a tokeniser's own ids. n tokens, of which token i is made of the characters [begins[i], ends[i])."""

    ids: np.ndarray
    begins: np.ndarray
    ends: np.ndarray


class Tokenizer(Protocol):
    """What turns text into a tokeniser's own ids, 0 … size - 1.

    name     "bytes", or the file's name
    digest   sha256 of the file; "" for bytes
    unknown  the id that stands for what it does not know; None where there is none
    """

    name: str
    size: int
    digest: str
    unknown: int | None

    def encode(self, text: str) -> np.ndarray:
        """ids (n,)"""

    def align(self, text: str) -> Encoded:
        """ids, and which characters each is made of."""

    def decode(self, ids: Sequence[int]) -> str:
        """A text for a person."""


def dtype_of(size: int) -> np.dtype[Any]:
    """The smallest type that holds the ids 0 … size - 1 in files."""
    return np.dtype("u1") if size <= 1 << 8 else np.dtype("<u2") if size <= 1 << 16 else np.dtype("<u4")


class ByteTokenizer:
    """Bytes of UTF-8."""

    name, size, digest = BYTES, 256, ""
    unknown: int | None = None

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode("utf-8"), np.uint8)

    def align(self, text: str) -> Encoded:
        ids = self.encode(text)
        # a byte belongs to the character that began last
        begins = np.cumsum((ids & 0xC0) != 0x80) - 1
        return Encoded(ids, begins, begins + 1)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


class JsonTokenizer:
    """A `tokenizer.json` of the library `tokenizers`. Special tokens that it would add to a text are not added."""

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as Loaded
        except ImportError:
            raise ConfigError(
                "tokenizer", f"{path} needs the package tokenizers: pip install 'seqzoo[tokenizers]'"
            ) from None
        try:
            self.loaded = Loaded.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises Exception itself
            raise DataError(f"{path}: not a tokenizer of the library tokenizers ({error})") from error
        self.loaded.no_padding()
        self.loaded.no_truncation()
        self.name, self.digest = path.name, sha256(path)
        self.size = max(self.loaded.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        model = self.loaded.model
        named = getattr(model, "unk_token", None)
        self.unknown: int | None = self.loaded.token_to_id(named) if named else getattr(model, "unk_id", None)

    def encode(self, text: str) -> np.ndarray:
        return np.array(self.loaded.encode(text, add_special_tokens=False).ids, np.int64)

    def align(self, text: str) -> Encoded:
        found = self.loaded.encode(text, add_special_tokens=False)
        offsets = np.array(found.offsets, np.int64).reshape(-1, 2)
        return Encoded(np.array(found.ids, np.int64), offsets[:, 0], offsets[:, 1])

    def decode(self, ids: Sequence[int]) -> str:
        return self.loaded.decode(list(ids), skip_special_tokens=False)


def json_size(path: Path) -> int:
    """The number of ids of a `tokenizer.json`, without the library and without checking more of the file."""
    return _json_size(path, *_stamp(path))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError("tokenizer", f"{path}: {error.strerror or error}") from error
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=8)
def _json_size(path: Path, size: int, changed: int) -> int:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = tree["model"]["vocab"]
        # Unigram lists pairs of a piece and its score, the others map pieces to ids
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
        ids += [int(token["id"]) for token in tree.get("added_tokens") or ()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ConfigError("tokenizer", f"{path}: not a tokenizer.json of the library tokenizers ({why})") from error
    return max(ids, default=-1) + 1


def vocabulary(name: str) -> int:
    """How many ids a task with this tokeniser has: its own and the three of our own. Raises ConfigError."""
    return (256 if name == BYTES else json_size(Path(name).expanduser())) + SPECIALS


def tokenizer(name: str) -> Tokenizer:
    """ "bytes", or the path of a `tokenizer.json`. Raises ConfigError or DataError."""
    if name == BYTES:
        return ByteTokenizer()
    path = Path(name).expanduser()
    return _loaded(path, *_stamp(path))


@lru_cache(maxsize=2)
def _loaded(path: Path, size: int, changed: int) -> JsonTokenizer:
    return JsonTokenizer(path)


__all__ = [
    "BYTES",
    "SPECIALS",
    "ByteTokenizer",
    "Encoded",
    "JsonTokenizer",
    "Tokenizer",
    "dtype_of",
    "tokenizer",
    "vocabulary",
]
