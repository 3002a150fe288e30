"""Running text as examples: pieces that are read one after the other, and words with the text before them.

A piece has at most `seq_len` tokens of one document. Its ids are the token before each of its tokens, the end symbol
at a document's beginning, so that every token of a text is predicted once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo.data.questions import IGNORE, Continuation, Piece
from zoo.data.splits import hashed_number
from zoo.data.tokenized import TokenStream
from zoo.spec.errors import DataError

FILLER = -1
"""Index of an example without labels, for a row of a batch that has run out of text."""
MAX_DRAWS = 100_000
"""Random positions that are tried before the corpus is said to have no word."""


class Pieces:
    """All pieces of a split in the order of its text. Index i + len(self) is piece i with `fresh` set, as if nothing
    preceded it; FILLER is one token without a label.

    documents  only these
    context    tokens before a piece that are read again with it, without labels; then no state is carried
    """

    def __init__(
        self, text: TokenStream, seq_len: int, end: int, documents: Sequence[int] | None = None, context: int = 0
    ) -> None:
        self.text, self.seq_len, self.end, self.context = text, seq_len, end, context
        chosen = np.arange(len(text.starts)) if documents is None else np.asarray(documents, np.int64)
        self.starts, self.ends = text.starts[chosen], text.ends[chosen]
        self.counts = -(-(self.ends - self.starts) // seq_len)  # (documents,) pieces of each
        self.before = np.cumsum(self.counts) - self.counts  # (documents,) index of its first piece

    def __len__(self) -> int:
        return int(self.counts.sum())

    def span(self, i: int) -> tuple[int, int, int]:
        """Positions [start, stop) of piece i, and where its document begins."""
        document = int(np.searchsorted(self.before, i, "right")) - 1
        begin, end = int(self.starts[document]), int(self.ends[document])
        start = begin + (i - int(self.before[document])) * self.seq_len
        return start, min(start + self.seq_len, end), begin

    def __getitem__(self, i: int) -> Piece:
        if i == FILLER:
            return Piece(np.array([self.end]), np.array([IGNORE]))
        n = len(self)
        if not 0 <= i < 2 * n:
            raise IndexError(f"piece {i} of {n}")
        start, stop, begin = self.span(i % n)
        first = max(begin, start - self.context)
        if first == begin:
            labels = self.text.read(first, stop)
            ids = np.append(self.end, labels[:-1])
        else:
            tokens = self.text.read(first - 1, stop)
            ids, labels = tokens[:-1], tokens[1:].copy()
        labels[: start - first] = IGNORE
        return Piece(ids, labels, fresh=i >= n or start == begin or self.context > 0)


class RowSampler:
    """Pieces for the training samples [start, stop), for one of `world` devices.

    The effective batch has `rows` rows: sample k goes to row k % rows. The rows begin at positions spread evenly over
    the corpus and shifted by the seed, and each reads on from there, round and round.
    """

    def __init__(self, pieces: int, rows: int, seed: int, start: int, stop: int, rank: int, world: int) -> None:
        self.pieces, self.rows, self.start, self.stop = pieces, rows, start, stop
        self.rank, self.world = rank, world
        self.shift = hashed_number(pieces, "rows", seed)

    def __len__(self) -> int:
        return len(range(self.start + self.rank, self.stop, self.world))

    def __iter__(self) -> Iterator[int]:
        for k in range(self.start + self.rank, self.stop, self.world):
            row, turn = k % self.rows, k // self.rows
            piece = (self.shift + row * self.pieces // self.rows + turn) % self.pieces
            yield piece + self.pieces * (k < self.start + self.rows)


def document_order(counts: Sequence[int], rows: int, limit: int | None) -> list[int]:
    """Order of pieces in evaluation, turn by turn over the rows of a batch.

    Whole documents, of `counts` pieces each, go to the row that is free first; FILLER where a row has run out. At most
    `limit` pieces, the first ones, whatever the number of rows.
    """
    table: list[list[int]] = [[] for _ in range(rows)]
    first = 0
    for count in counts:
        taken = count if limit is None else min(count, limit - first)
        min(table, key=len).extend(range(first, first + taken))
        first += count
    turns = max(map(len, table))
    return [row[t] if t < len(row) else FILLER for t in range(turns) for row in table]


class Words:
    """Words drawn uniformly from a corpus, to be predicted from the text before them in their document.

    Example k depends on the key and k alone.

    n           length of the data set; k may be larger
    room        tokens of a prompt, at most
    max_answer  tokens of a word, at most
    """

    def __init__(self, text: TokenStream, n: int, room: int, max_answer: int, end: int, key: tuple[Any, ...]) -> None:
        self.text, self.n, self.room, self.max_answer, self.end, self.key = text, n, room, max_answer, end, key

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, k: int) -> Continuation:
        size = len(self.text)
        for attempt in range(MAX_DRAWS):
            position = hashed_number(size, *self.key, k, attempt)
            n = self.text.word_length(position)
            if 0 < n <= self.max_answer:
                return Continuation(self._text_before(position), self.text.read(position, position + n))
        raise DataError(f"no word in {MAX_DRAWS:,} random places of {self.text.stored.folder}")

    def _text_before(self, position: int) -> np.ndarray:
        document = int(np.searchsorted(self.text.starts, position, "right")) - 1
        begin = int(self.text.starts[document])
        start = max(begin, position - self.room)
        tokens = self.text.read(start, position)
        return np.append(self.end, tokens)[-self.room :] if start == begin else tokens
