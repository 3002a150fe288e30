"""Tasks whose answers are tokens, small enough to be checked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from zoo.data.module import SPLITS, Split, TaskData, Totals
from zoo.data.questions import IGNORE, Continuation, Marked, Piece, Question, Specials

END, SLOT = 22, 23
ASK = 21


class Questions(Dataset[Question]):
    """Symbols 1 … 20, then a query for the first symbol; or a prompt whose answer is its first two symbols."""

    def __init__(self, split: Split, n: int, lengths: Sequence[int], form: str) -> None:
        rng = np.random.default_rng(["train", "val", "test", "length_generalization"].index(split))
        self.rows: list[Question] = []
        for i in range(n):
            group = i % len(lengths)
            ids = rng.integers(1, 21, size=lengths[group])
            if form == "continuation":
                self.rows.append(Continuation(ids[:-4], ids[: 1 + i % 2].copy(), group))
                continue
            ids[-1] = ASK
            labels = np.full(len(ids), IGNORE)
            labels[-1] = ids[0]
            self.rows.append(Marked(ids, labels, group))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Question:
        return self.rows[index]


class RecallData(TaskData):
    specials = Specials(slot=SLOT, end=END, slots=4)

    def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    def text_lengths(self, split: Split) -> list[int]:
        o = self.options
        return [o.longest // 2, o.longest] if split == "length_generalization" else [o.seq_len // 2, o.seq_len]

    def groups(self, split: Split) -> list[dict[str, Any]]:
        return [{"length": length} for length in self.text_lengths(split)]

    def has(self, split: Split) -> bool:
        return True

    def dataset(self, split: Split) -> Dataset[Question]:
        n = self.options.train_size if split == "train" else 40
        return Questions(split, n, self.text_lengths(split), self.options.form)

    def score(self, split: Split, totals: Totals) -> dict[str, float]:
        whole = self.options.form == "continuation"
        return {"accuracy": totals.whole / totals.questions if whole else totals.hits / totals.answers}

    def majority(self) -> float:
        return 0.05

    def provenance(self) -> dict[str, Any]:
        counts = {split: len(self.dataset(split)) for split in (*SPLITS, "length_generalization")}
        return {"kind": "regenerated", "version": "1", "seed": 0, "counts": counts}

    def verify(self) -> list[str]:
        return []


class Rows(Sampler[int]):
    """Piece after piece of `rows` texts side by side; -1 where a text is over."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Any:
        return iter(self.order)


class Texts(Dataset[Question]):
    """Texts of `pieces` pieces: the first symbol, then only 5; at the end of each piece the first symbol again."""

    def __init__(self, split: Split, texts: int, pieces: int, length: int, ragged: bool = False) -> None:
        rng = np.random.default_rng(SPLITS.index(split))
        self.pieces, self.length, self.ragged = pieces, length, ragged
        self.first = rng.integers(1, 5, size=texts)

    def __len__(self) -> int:
        return len(self.first) * self.pieces

    def __getitem__(self, index: int) -> Question:
        if index < 0:
            return Piece(np.array([END]), np.array([IGNORE]), fresh=True)
        text, piece = divmod(index, self.pieces)
        tokens = np.full(self.length - (7 * index % 10 if self.ragged else 0), 5)
        tokens[-1] = self.first[text]
        begin = END
        if piece == 0:
            tokens[0] = self.first[text]
        return Piece(np.concatenate([[begin], tokens[:-1]]), tokens, fresh=piece == 0)


class TextData(RecallData):
    PIECES = 3

    def has(self, split: Split) -> bool:
        return split in SPLITS

    def groups(self, split: Split) -> list[dict[str, Any]]:
        return []

    def dataset(self, split: Split) -> Dataset[Question]:
        texts = self.options.train_size if split == "train" else 13
        return Texts(split, texts, self.PIECES, self.options.seq_len, self.options.ragged)

    def train_order(self, start: int, stop: int, rank: int, world: int) -> Sampler[int]:
        size = len(self.dataset("train"))  # type: ignore[arg-type]
        share = self.options.train_size // self.loading.train_rows * self.PIECES
        return Rows(
            [
                ((k % self.loading.train_rows) * share + k // self.loading.train_rows) % size
                for k in range(start + rank, stop, world)
            ]
        )

    def eval_order(self, split: Split, limit: int | None) -> Sampler[int]:
        texts, rows = 13, self.loading.eval_batch_size
        order = []
        for first in range(0, texts, rows):
            for piece in range(self.PIECES):
                order += [(t * self.PIECES + piece) if t < texts else -1 for t in range(first, first + rows)]
        return Rows(order)

    def score(self, split: Split, totals: Totals) -> dict[str, float]:
        return {"perplexity": math.exp(totals.nats / totals.answers)}

    def majority(self) -> float | None:  # type: ignore[override]
        return None

    def provenance(self) -> dict[str, Any]:
        counts = {split: len(self.dataset(split)) for split in SPLITS}  # type: ignore[arg-type]
        return {"kind": "regenerated", "version": "1", "seed": 0, "counts": counts}
