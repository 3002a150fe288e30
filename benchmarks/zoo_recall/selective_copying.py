"""selective_copying: repeat the data tokens that are strewn among noise, in order. Gu and Dao 2023 (arXiv 2312.00752,
§4.1.1) in the layout of S4's `copying` with variable places: noise and tokens, then a marker for every token, whose
label it is."""

from __future__ import annotations

import numpy as np

from zoo.data.module import Split
from zoo.data.questions import IGNORE, Marked
from zoo_recall import draw
from zoo_recall.generated import Generator, Group, RecallData, RecallQuestion
from zoo_recall.options import SelectiveCopyingOptions


class SelectiveCopying(Generator):
    """Noise is id 1, data tokens 2 … vocab - 1, the marker vocab."""

    name = "selective_copying"
    golden = "c9a895c5826f2ec4af9ae1b38aae805498f1ca144bf14e172bb1a86e2b70f032"
    options: SelectiveCopyingOptions

    def groups(self, split: Split) -> list[Group]:
        o = self.options
        lengths = (
            [o.seq_len * times for times in o.generalization_factors]
            if split == "length_generalization"
            else [o.seq_len]
        )
        return [Group({"length": length}, self.size(split)) for length in lengths]

    def draw(self, split: Split, group: Group, index: int) -> Marked:
        length = group.attributes["length"]
        ids, labels = np.empty((2, length), np.int64)
        family = self.family(split, length)
        draw.selective_copying(family, index, self.options.tokens, self.options.vocab, ids, labels)
        return Marked(ids, labels)

    def solve(self, question: RecallQuestion) -> np.ndarray:
        return question[0][(question[0] > 1) & (question[0] < self.options.vocab)]

    def to_text(self, question: RecallQuestion) -> str:
        words = []
        for token, label in zip(*question[:2], strict=True):
            if label != IGNORE:
                words.append(f"[{letter(label - 2)}]")
            else:
                words.append("." if token == 1 else letter(token - 2))
        return "".join(words)


def letter(number: int) -> str:
    """Return a … z, then numbers in brackets."""
    return chr(ord("a") + number) if number < 26 else f"({number})"


class SelectiveCopyingData(RecallData):
    """Data of the task `selective_copying`."""

    generator_class = SelectiveCopying
