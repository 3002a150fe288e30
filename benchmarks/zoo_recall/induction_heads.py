"""induction_heads: predict the token that followed the trigger before.

The task of Fu et al. 2023 (arXiv 2212.14052) with the settings of Gu and Dao 2023 (arXiv 2312.00752, §4.1.2): random
tokens, the trigger at one place and at the end.
"""

from __future__ import annotations

import numpy as np

from zoo.data.module import Split
from zoo.data.questions import Marked
from zoo_recall import draw
from zoo_recall.generated import Generator, Group, RecallData, RecallQuestion
from zoo_recall.options import InductionHeadsOptions
from zoo_recall.selective_copying import letter


class InductionHeads(Generator):
    """Ordinary tokens are 1 … vocab - 1, the trigger vocab."""

    name = "induction_heads"
    golden = "8b0a057fa5a09130ad89840972e77b29b44b4f7d535459d6afd45315e45ead40"
    options: InductionHeadsOptions

    def groups(self, split: Split) -> list[Group]:
        o = self.options
        lengths = {
            "test": o.test_lengths,
            "length_generalization": [o.seq_len * times for times in o.generalization_factors],
        }.get(split, [o.seq_len])
        return [Group({"length": length}, self.size(split)) for length in lengths]

    def draw(self, split: Split, group: Group, index: int) -> Marked:
        length = group.attributes["length"]
        ids, labels = np.empty((2, length), np.int64)
        draw.induction_heads(self.family(split, length), index, self.options.vocab, ids, labels)
        return Marked(ids, labels)

    def solve(self, question: RecallQuestion) -> np.ndarray:
        at = question[0].tolist().index(self.options.vocab)
        return question[0][at + 1 : at + 2]

    def to_text(self, question: RecallQuestion) -> str:
        words = ["!" if token == self.options.vocab else letter(token - 1) for token in question[0]]
        return f"{''.join(words)}[{letter(question[1][-1] - 1)}]"


class InductionHeadsData(RecallData):
    """Data of the task `induction_heads`."""

    generator_class = InductionHeads
