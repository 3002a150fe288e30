"""induction_heads: what followed the trigger when it was seen before? The task of Fu et al. 2023 (arXiv 2212.14052)
with the settings of Gu and Dao 2023 (arXiv 2312.00752, §4.1.2): random tokens, the trigger at one place and at the
end."""

from __future__ import annotations

import numpy as np

from zoo.data.module import Split
from zoo.data.questions import Marked
from zoo_recall import draw
from zoo_recall.generated import Asked, Group, Law, RecallData
from zoo_recall.options import InductionHeadsOptions
from zoo_recall.selective_copying import letter


class InductionHeads(Law):
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
        length = group.what["length"]
        ids, labels = np.empty((2, length), np.int64)
        draw.induction_heads(self.family(split, length), index, self.options.vocab, ids, labels)
        return Marked(ids, labels)

    def solve(self, question: Asked) -> np.ndarray:
        at = question[0].tolist().index(self.options.vocab)
        return question[0][at + 1 : at + 2]

    def told(self, question: Asked) -> str:
        words = ["!" if token == self.options.vocab else letter(token - 1) for token in question[0]]
        return f"{''.join(words)}[{letter(question[1][-1] - 1)}]"


class InductionHeadsData(RecallData):
    """Data of the task `induction_heads`."""

    law_of = InductionHeads
