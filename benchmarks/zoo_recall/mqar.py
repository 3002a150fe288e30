"""mqar: multi-query associative recall. Arora et al. 2024 (arXiv 2312.04927), as its code draws it
(HazyResearch/zoology, zoology/data/multiquery_ar.py): k1 v1 … kn vn, then fillers; each key comes once more, with its
value as label. The answer is not among the inputs: after the query comes another filler."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from zoo.data.module import Split
from zoo.data.questions import IGNORE, Marked
from zoo.data.splits import apportion
from zoo_recall import draw
from zoo_recall.generated import Generator, Group, RecallData, RecallQuestion
from zoo_recall.options import MqarOptions, cells

MIXED: tuple[Split, ...] = ("train", "val")


class Mqar(Generator):
    """Keys are the lower half of the symbols, values the upper one."""

    name = "mqar"
    golden = "a9900db2e94ff4ddad061c7d7e24cd107d5664a25f28f40f13fbf80aa191c475"
    golden_options = ({}, {"filler_keys": False}, {"random_non_queries": False})
    options: MqarOptions

    def groups(self, split: Split) -> list[Group]:
        option = {"test": "test_cells", "length_generalization": "generalization_cells"}.get(split, "mixture")
        split_cells = cells(option, getattr(self.options, option))
        counts = [self.size(split)] * len(split_cells)
        if split in MIXED:
            counts = apportion(self.size(split), [cell.share for cell in split_cells])
        attributes = [{"length": cell.length, "pairs": cell.pairs} for cell in split_cells]
        return [Group(a, count) for a, count in zip(attributes, counts, strict=True) if count]

    def draw(self, split: Split, group: Group, index: int) -> Marked:
        o, length, pairs = self.options, group.attributes["length"], group.attributes["pairs"]
        weights = _weights((length - 2 * pairs) // 2, o.power_a)
        ids, labels = np.empty((2, length), np.int64)
        family = self.family(split, length, pairs)
        draw.mqar(family, index, pairs, o.vocab, weights, o.random_non_queries, o.filler_keys, ids, labels)
        return Marked(ids, labels)

    def solve(self, question: RecallQuestion) -> np.ndarray:
        queries = np.flatnonzero(question[1] != IGNORE)
        ids = question[0].tolist()
        bound = dict(zip(ids[: 2 * len(queries) : 2], ids[1 : 2 * len(queries) : 2], strict=True))
        return np.array([bound[ids[i]] for i in queries])

    def to_text(self, question: RecallQuestion) -> str:
        ids, labels = question[:2]
        pairs = 2 * int((labels != IGNORE).sum())
        words = [f"{a}:{b}" for a, b in zip(ids[:pairs:2], ids[1:pairs:2], strict=True)]
        for token, label in zip(ids[pairs:], labels[pairs:], strict=True):
            words.append(f"{token}" if label == IGNORE else f"[{token}? {label}]")
        return f"pairs {' '.join(words[: pairs // 2])}\nthen {' '.join(words[pairs // 2 :])}"


@lru_cache(maxsize=64)
def _weights(places: int, a: float) -> np.ndarray:
    """(places,) up to a factor, the probability of each gap between the last pair and a question."""
    return a * np.arange(1, places + 1) ** (a - 1)


class MqarData(RecallData):
    """Data of the task `mqar`."""

    generator_class = Mqar

    def majority(self) -> float | None:
        """Accuracy of guessing among the values that the sequence holds: one of `pairs`."""
        groups = self.generator.groups("test")
        return sum(group.count for group in groups) / sum(group.count * group.attributes["pairs"] for group in groups)
