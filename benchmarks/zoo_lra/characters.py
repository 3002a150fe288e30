"""The characters of the S4 code's Text: those that occur at least 15 times in the first 4,095 of IMDB's 25,000 training
reviews. ids: 0 = padding, 1 … 131 these in the order of their code points, 132 = any other, 133 = end of sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ALPHABET = (
    "\t !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
    "\x84\x85\x91\x96\x97\xa1\xa3\xa8\xab\xb4\xbb\xbd"
    "\xe0\xe1\xe2\xe3\xe4\xe5\xe7\xe8\xe9\xea\xeb\xed\xef\xf1\xf3\xf4\xf6\xfa\xfc\u2013\u2019\u201c\u201d"
)
UNKNOWN = len(ALPHABET) + 1
EOS = UNKNOWN + 1
_POINTS = np.array([ord(c) for c in ALPHABET], np.uint32)


def count_characters(data: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Number of characters of each UTF-8 text: data (N,) uint8, ends (n,) of the texts in it -> (n,) int64"""
    total = np.concatenate([[0], np.cumsum((np.asarray(data) & 0xC0) != 0x80)])
    return np.diff(total[ends], prepend=0)


@dataclass(frozen=True)
class CharacterDecoder:
    """Bytes of a text -> ids (L,), L <= seq_len."""

    seq_len: int
    eos: bool

    def __call__(self, row: np.ndarray) -> np.ndarray:
        """row (n,) uint8 -> ids (L,) uint8"""
        room = self.seq_len - self.eos
        text = bytes(row[: 4 * room]).decode("utf-8", "ignore")[:room]  # a character has at most four bytes
        points = np.frombuffer(text.encode("utf-32-le"), "<u4")
        at = np.searchsorted(_POINTS, points).clip(max=len(_POINTS) - 1)
        ids = np.where(_POINTS[at] == points, at + 1, UNKNOWN).astype(np.uint8)
        return np.append(ids, np.uint8(EOS)) if self.eos else ids
