"""The passages of LAMBADA: from the published files to context and last word, as lm-evaluation-harness has them.

The word is what follows the last blank, with that blank; everything before is the context, whose trailing white space,
if any, moves to the word. The word's tokens are those of the whole passage behind as many as the context alone has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo import DataError
from zoo.data.files import decode_utf8, read_archive, sha256
from zoo.data.module import Split
from zoo.data.splits import published_kind
from zoo.data.store import Chunk, Rows
from zoo.data.tokens import Tokenizer, dtype_of
from zoo_lambada.needs import CHECKSUMS, STANDARD_TEXT

READER = "2"
"""Raised when the same file would give other passages."""
PASSAGES = 5_153
LINE_LIMIT, FILE_LIMIT = 1 << 16, 1 << 26
"""No passage has 64 kB; the longest published one has 986 bytes."""
ARCHIVES = (".tar.gz", ".tgz", ".tar")
Encode = Callable[[str], Sequence[int]]


def split_passage(text: str) -> tuple[str, str]:
    """Return the context and the last word of a passage. Raises ValueError for a passage of one word."""
    context, blank, word = text.rpartition(" ")
    kept = context.rstrip()
    if not blank or not word.strip() or not kept:
        raise ValueError("expected a context, a blank and a last word")
    return kept, context[len(kept) :] + blank + word


def encode_parts(encode: Encode, context: str, word: str) -> tuple[list[int], list[int]]:
    """Return the tokens of context and last word. Raises ValueError where one of them has none."""
    before = list(encode(context))
    after = list(encode(context + word))[len(before) :]
    if not before or not after:
        raise ValueError(f"the tokeniser leaves nothing of {word if before else context!r}")
    return before, after


def read_passages(path: Path) -> list[str]:
    """Return the passages of JSON lines, plain lines or the published archive. Raises DataError naming the line."""
    if path.name.endswith(ARCHIVES):
        members = read_archive(path, lambda name: name.rpartition("/")[2] == STANDARD_TEXT, FILE_LIMIT)
        contents = next((contents for _, contents in list(members)), None)
        if contents is None:
            raise DataError(f"{path}: no {STANDARD_TEXT} in it")
    else:
        contents = path.read_bytes()
    lines = decode_utf8(contents, path).removesuffix("\n").split("\n")
    if not contents:
        raise DataError(f"{path}: empty")
    return [_check_passage(path, number, line) for number, line in enumerate(lines, 1)]


def _check_passage(path: Path, number: int, text: str) -> str:
    """Return the passage of a line. Raises DataError."""
    where = f"{path}:{number}"
    size = len(text.encode())
    if size > LINE_LIMIT:
        raise DataError(f"{where}: a line of {size:,} bytes, expected at most {LINE_LIMIT:,}")
    if path.suffix in (".jsonl", ".json"):
        try:
            text = json.loads(text)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f'{where}: expected {{"text": …}} ({type(error).__name__}: {error})') from error
        if not isinstance(text, str):
            raise DataError(f"{where}: the text is {type(text).__name__}, expected a string")
    try:
        split_passage(text)
    except ValueError as error:
        raise DataError(f"{where}: {error}, got {text[:60]!r}") from error
    return text


class PassagesRecipe:
    """Passages as rows of tokens, context and last word; the number of the word's tokens is the label. Implements
    zoo.data.store.Recipe."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        self.path, self.tokenizer = path, tokenizer
        self.texts = read_passages(path)
        self.digest = sha256(path)
        self.notes: list[str] = []
        if len(self.texts) != PASSAGES:
            self.notes.append(f"{path.name}: {len(self.texts):,} passages, the published set has {PASSAGES:,}")
        elif CHECKSUMS.get(path.name, self.digest) != self.digest:
            self.notes.append(f"{path.name}: sha256 {self.digest}, the published file has {CHECKSUMS[path.name]}")

    def counts(self) -> Mapping[Split, int]:
        return {"test": len(self.texts)}

    def provenance(self) -> dict[str, Any]:
        kind = published_kind({"test": len(self.texts)}, {"test": PASSAGES})
        return {"kind": kind, "version": READER, "files": {self.path.name: self.digest}, "notes": self.notes}

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        dtype = dtype_of(self.tokenizer.size)
        for number, text in enumerate(self.texts[start:], start + 1):
            try:
                before, after = encode_parts(lambda t: self.tokenizer.encode(t).ids.tolist(), *split_passage(text))
            except ValueError as error:
                raise DataError(f"{self.path}:{number}: {error}") from error
            if len(after) > 255:
                raise DataError(f"{self.path}:{number}: a last word of {len(after)} tokens, expected at most 255")
            row = np.frombuffer(np.array(before + after, dtype).tobytes(), np.uint8)
            yield Chunk(row, np.array([len(row)]), np.array([len(after)]), np.zeros(1))
