"""A corpus as tokens: written to a prepared folder, and read from it at any position.

A row of the folder is a block of a document: its n tokens in the smallest type that holds them, then two bitmaps, the
first with a bit where a word begins, the second where it ends (n % 8 is the row's label). A word is a blank and
letters, perhaps with an apostrophe or hyphen within, whose edges are edges of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import regex

from zoo.data.corpus import Block, CorpusScan
from zoo.data.files import decode_utf8
from zoo.data.module import Split
from zoo.data.splits import HOLD_OUT_ORDER
from zoo.data.store import Chunk, Rows, StoredSplit
from zoo.data.tokens import Encoding, Tokenizer, dtype_of
from zoo.spec.errors import DataError

READER = "2"
"""Raised when the same files would give other tokens, documents or splits."""
BEGINS, UNKNOWN, LOST = 1, 2, 4
"""Bits of a row's note: a document begins here; it has an unknown token; a character other than white space has no
token."""
WORD = regex.compile(r"( (?<=[^\s\x1c-\x1f] )\p{L}++(?:['’-]\p{L}++)*+)(?![\p{N}_])")
"""A word on a line after other text; \\x1c to \\x1f are white space to Python, but not to regex."""


def find_words(encoding: Encoding, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last token of every word whose edges are edges of tokens."""
    edges = np.cumsum(np.fromiter(map(len, WORD.split(text)), np.int64))  # text between, word, between, word, …
    starts, stops = edges[:-1:2], edges[1::2]
    # the token that holds the blank may or may not count the blank among its characters
    first = np.searchsorted(encoding.starts, starts, "left")
    past = np.searchsorted(encoding.starts, stops, "left")
    safe = np.minimum(first, max(len(encoding.starts) - 1, 0))
    clean = (past > first) & (encoding.starts[safe] <= starts + 1) & (encoding.stops[past - 1] <= stops)
    clean &= (first == 0) | (encoding.stops[np.maximum(first, 1) - 1] <= starts)
    return first[clean], past[clean] - 1


def pack_row(encoding: Encoding, text: str, dtype: np.dtype[Any]) -> bytes:
    """Return a row: tokens, bitmap of where words begin, bitmap of where they end."""
    parts = [encoding.ids.astype(dtype).tobytes()]
    for tokens in find_words(encoding, text):
        bits = np.zeros(len(encoding.ids), bool)
        bits[tokens] = True
        parts.append(np.packbits(bits, bitorder="little").tobytes())
    return b"".join(parts)


class CorpusRecipe:
    """Writes a corpus as tokens. Implements zoo.data.store.Recipe.

    description  further entries of the provenance
    """

    def __init__(self, scan: CorpusScan, tokenizer: Tokenizer, description: Mapping[str, Any]) -> None:
        self.scan, self.tokenizer, self.description = scan, tokenizer, description
        self.blocks = {split: [b for d in scan.documents[split] for b in d.blocks] for split in HOLD_OUT_ORDER}

    def counts(self) -> Mapping[Split, int]:
        return {split: len(blocks) for split, blocks in self.blocks.items()}

    def provenance(self) -> dict[str, Any]:
        """`documents` has, per document, its words and bytes."""
        return {
            "kind": "published",
            "version": READER,
            "files": self.scan.files,
            **self.description,
            "tokenizer": {"name": self.tokenizer.name, "sha256": self.tokenizer.digest, "size": self.tokenizer.size},
            "documents": {split: [[d.words, d.bytes] for d in part] for split, part in self.scan.documents.items()},
            "left_out": self.scan.left_out,
            "notes": self.scan.notes,
        }

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        for block in self.blocks[split][start:]:
            yield self._encode(block)

    def _encode(self, block: Block) -> Chunk:
        with block.path.open("rb") as file:
            file.seek(block.start)
            text = decode_utf8(file.read(block.stop - block.start), block.path, offset=block.start)
        encoding = self.tokenizer.encode(text)
        row = np.frombuffer(pack_row(encoding, text, dtype_of(self.tokenizer.size)), np.uint8)
        note = BEGINS * block.begins | self._gaps(encoding, text)
        return Chunk(row, np.array([len(row)]), np.array([len(encoding.ids) % 8]), np.array([note]))

    def _gaps(self, encoding: Encoding, text: str) -> int:
        """Return the bits LOST and UNKNOWN of a block's note."""
        covered = np.zeros(len(text) + 1, np.int64)
        np.add.at(covered, encoding.starts, 1)
        np.add.at(covered, np.maximum(encoding.stops, encoding.starts), -1)
        bare = np.flatnonzero(np.cumsum(covered)[:-1] == 0)
        lost = any(not text[i].isspace() for i in bare.tolist())
        unknown = self.tokenizer.unknown is not None and bool((encoding.ids == self.tokenizer.unknown).any())
        return LOST * lost | UNKNOWN * unknown


class TokenStream:
    """The tokens of one split, document after document: positions 0 … len - 1. May be sent to other processes.

    starts, ends  (documents,) positions at which each document begins and ends
    """

    def __init__(self, stored: StoredSplit, tokenizer_size: int) -> None:
        self.stored, self.dtype = stored, dtype_of(tokenizer_size)
        row_ends, rest = np.asarray(stored.ends, np.int64), np.asarray(stored.labels, np.int64)
        self.row_starts = np.concatenate([[0], row_ends[:-1]]).astype(np.int64)
        width = self.dtype.itemsize
        # a row has n tokens of `width` bytes and two bitmaps of n bits, and rest = n % 8
        eights = (row_ends - self.row_starts - rest * width - 2 * (rest > 0)) // (8 * width + 2)
        self.sizes = 8 * eights + rest  # (blocks,) tokens of each
        self.stops = np.cumsum(self.sizes)
        begins = np.asarray(stored.notes) & BEGINS > 0
        self.starts = (self.stops - self.sizes)[begins]
        self.ends = np.append(self.starts[1:], len(self))

    def __len__(self) -> int:
        return int(self.stops[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the task ids of the tokens [start, stop), int64."""
        parts = []
        block = int(np.searchsorted(self.stops, start, "right"))
        while start < stop:
            first = start - int(self.stops[block] - self.sizes[block])
            n = min(stop - start, int(self.sizes[block]) - first)
            at = int(self.row_starts[block]) + first * self.dtype.itemsize
            parts.append(self.stored.data[at : at + n * self.dtype.itemsize].view(self.dtype))
            start, block = start + n, block + 1
        return np.concatenate(parts).astype(np.int64) + 1 if parts else np.empty(0, np.int64)

    def word_length(self, position: int) -> int:
        """Number of tokens of the word that begins at a position; 0 where none begins."""
        block = int(np.searchsorted(self.stops, position, "right"))
        n = int(self.sizes[block])
        first = position - int(self.stops[block]) + n
        begins = int(self.row_starts[block]) + n * self.dtype.itemsize
        if not self.stored.data[begins + first // 8] >> (first % 8) & 1:
            return 0
        ends = begins + -(-n // 8)
        bitmap = self.stored.data[ends + first // 8 : ends + -(-n // 8)]
        bits = np.unpackbits(bitmap, bitorder="little").view(bool)[first % 8 :]
        if not bits.any():
            raise DataError(f"{self.stored.folder}: a word of {self.stored.split} without end; prepare it anew")
        return int(bits.argmax()) + 1

    def gaps(self) -> dict[str, int]:
        """Number of blocks with unknown tokens, and with characters that have no token."""
        notes = np.asarray(self.stored.notes)
        return {"unknown": int((notes & UNKNOWN > 0).sum()), "lost": int((notes & LOST > 0).sum())}
