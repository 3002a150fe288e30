"""Tasks of two texts: how a pair is stored, decoded and shown.

A stored row is the length of the first text in bytes (int32), the first, the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data.module import Split
from zoo.data.store import Chunk, StoredSplit
from zoo_lra.published import FilesData, join_rows
from zoo_lra.text import ByteDecoder, view_bytes

HEAD = 4


def pack(pairs: Sequence[tuple[bytes, bytes]], labels: Sequence[int]) -> Chunk:
    """Return pairs of texts and their labels as consecutive rows."""
    return join_rows([len(a).to_bytes(HEAD, "little") + a + b for a, b in pairs], labels)


def unpack(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two texts of a stored row."""
    n = int.from_bytes(bytes(row[:HEAD]), "little")
    return row[HEAD : HEAD + n], row[HEAD + n :]


@dataclass(frozen=True)
class PairDecoder:
    """A stored row -> ids (2, L), the shorter text padded with 0 on the right."""

    seq_len: int
    eos: bool

    def __call__(self, row: np.ndarray) -> np.ndarray:
        decode = ByteDecoder(self.seq_len, self.eos)
        texts = [decode(text) for text in unpack(row)]
        ids = np.zeros((2, max(map(len, texts))), np.int16)
        for padded, text in zip(ids, texts, strict=True):
            padded[: len(text)] = text
        return ids


def text_lengths(stored: StoredSplit) -> np.ndarray:
    """Bytes of both texts of every row, (n, 2)."""
    starts = np.concatenate([[0], np.asarray(stored.ends)[:-1]]).astype(np.int64)
    heads = stored.data[starts[:, None] + np.arange(HEAD)].astype(np.int64)  # (n, 4)
    first = (heads << np.arange(0, 8 * HEAD, 8)).sum(1)
    return np.stack([first, stored.ends - starts - HEAD - first], axis=1)


class PairData(FilesData):
    """Data of a task of two texts."""

    options: Any

    def decoder(self) -> PairDecoder:
        return PairDecoder(self.options.seq_len, self.options.eos)

    def lengths(self, split: Split) -> np.ndarray:
        return text_lengths(self.stored(split)) + self.options.eos

    def view(self, split: Split, i: int) -> str:
        room = self.options.seq_len - self.options.eos
        texts = unpack(self.stored(split).row(i))
        return "\n\n".join(f"── {n} ──\n{view_bytes(text, room)}" for n, text in zip("12", texts, strict=True))
