"""mqar: multi-query associative recall. Arora et al. 2024 (arXiv 2312.04927), as its code draws it
(HazyResearch/zoology, zoology/data/multiquery_ar.py): k1 v1 … kn vn, then fillers; each key comes once more, and its
value is to be told there. The answer is not among the inputs: what stands after the question is another filler."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from zoo.data.module import Split
from zoo.data.questions import IGNORE, Marked
from zoo_recall import draw
from zoo_recall.generated import Asked, Group, Law, RecallData, shares
from zoo_recall.options import MqarOptions, cells

MIXED: tuple[Split, ...] = ("train", "val")


class Mqar(Law):
    """Keys are the lower half of the symbols, values the upper one."""

    name = "mqar"
    golden = "a9900db2e94ff4ddad061c7d7e24cd107d5664a25f28f40f13fbf80aa191c475"
    golden_settings = ({}, {"filler_keys": False}, {"random_non_queries": False})
    options: MqarOptions

    def groups(self, split: Split) -> list[Group]:
        option = {"test": "test_cells", "length_generalization": "generalization_cells"}.get(split, "mixture")
        found = cells(option, getattr(self.options, option))
        counts = [self.size(split)] * len(found)
        if split in MIXED:
            counts = shares(self.size(split), [cell.share for cell in found])
        whats = [{"length": cell.length, "pairs": cell.pairs} for cell in found]
        return [Group(what, count) for what, count in zip(whats, counts, strict=True) if count]

    def draw(self, split: Split, group: Group, index: int) -> Marked:
        o, length, pairs = self.options, group.what["length"], group.what["pairs"]
        weights = _weights((length - 2 * pairs) // 2, o.power_a)
        ids, labels = np.empty((2, length), np.int64)
        family = self.family(split, length, pairs)
        draw.mqar(family, index, pairs, o.vocab, weights, o.random_non_queries, o.filler_keys, ids, labels)
        return Marked(ids, labels)

    def solve(self, question: Asked) -> np.ndarray:
        asked = np.flatnonzero(question[1] != IGNORE)
        ids = question[0].tolist()
        bound = dict(zip(ids[: 2 * len(asked) : 2], ids[1 : 2 * len(asked) : 2], strict=True))
        return np.array([bound[ids[i]] for i in asked])

    def told(self, question: Asked) -> str:
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

    law_of = Mqar

    def majority(self) -> float | None:
        """Of guessing among the values that the sequence holds: one of `pairs`."""
        groups = self.law.groups("test")
        return sum(group.count for group in groups) / sum(group.count * group.what["pairs"] for group in groups)
