"""What the five tasks share: examples made when they are asked for, in groups, and the order in which they are read.

A law says what each split holds and draws its examples; each is a function of (version, data_seed, split, what its
group is told apart by, index within the group): nothing is stored, and no split changes with the sizes of the others.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import accumulate
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from zoo.data.module import Split, TaskData, Totals
from zoo.data.questions import IGNORE, Continuation, Marked, Specials
from zoo.data.rng import key

Asked = Marked | Continuation
ALL: tuple[Split, ...] = ("train", "val", "test", "length_generalization")
LOOK = 20_000
"""Questions that are looked at where a split is summed up."""
SOLVE = 8
"""Examples of each group that `verify` answers for itself."""


@dataclass(frozen=True)
class Group:
    """Questions of one kind within a split.

    what   what the record tells them apart by, such as {"length": 64, "pairs": 4}
    count  how many there are
    draw   settings that only the law reads, such as {"depth": -1}
    """

    what: dict[str, Any]
    count: int
    draw: dict[str, Any] = field(default_factory=dict)


class Law:
    """What one task's examples are, under its options. A task supplies everything that raises here."""

    name = ""
    version = "1"
    golden = ""
    """What `digest` must be, on every machine, or the version is another."""
    golden_settings: tuple[dict[str, Any], ...] = ({},)
    """Settings under which `digest` draws."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self._families: dict[Any, np.uint64] = {}

    def groups(self, split: Split) -> list[Group]:
        """In the order in which the split holds them; empty: no such split."""
        raise NotImplementedError

    def draw(self, split: Split, group: Group, index: int) -> Asked:
        """Example `index` of a group."""
        raise NotImplementedError

    def solve(self, question: Asked) -> np.ndarray:
        """The answer, (k,), found by reading the question."""
        raise NotImplementedError

    def told(self, question: Asked) -> str:
        """The question for a person."""
        raise NotImplementedError

    def law(self) -> dict[str, Any]:
        """The settings that decide what an example is."""
        counts = ("data_seed", "train_size", "val_size", "group_size", "path")
        return {k: list(v) if isinstance(v, list) else v for k, v in vars(self.options).items() if k not in counts}

    def family(self, split: Split, *told_apart: Any) -> np.uint64:
        """The key of a family of streams."""
        which = (split, *told_apart)
        if which not in self._families:
            # the streams of version "1" were drawn when length_generalization was called "beyond"
            name = "beyond" if split == "length_generalization" else split
            self._families[which] = key(f"recall/{self.name}", self.version, self.options.data_seed, name, *told_apart)
        return self._families[which]

    def size(self, split: Split) -> int:
        """What the options say of a split's size."""
        return int(getattr(self.options, {"train": "train_size", "val": "val_size"}.get(split, "group_size")))


def answer_of(question: Asked) -> np.ndarray:
    """The tokens that are asked for."""
    return question.answer if isinstance(question, Continuation) else question.labels[question.labels != IGNORE]


def shares(total: int, parts: Sequence[int]) -> list[int]:
    """`total` in proportion to `parts`, the remainders to the first ones."""
    counts = [total * part // sum(parts) for part in parts]
    for i in range(total - sum(counts)):
        counts[i] += 1
    return counts


def digest(law_of: type[Law], options_of: type[Any], each: int = 4) -> str:
    """sha256 of the first examples of every group under the golden settings."""
    total = sha256()
    for settings in law_of.golden_settings:
        law = law_of(options_of(**settings))
        for split in ALL:
            for group in law.groups(split):
                for i in range(min(each, group.count)):
                    for part in law.draw(split, group, i)[:2]:
                        total.update(np.asarray(part, "<i8").tobytes())
    return total.hexdigest()


class Questions(Dataset[Asked]):
    """One split: group after group."""

    def __init__(self, law: Law, split: Split) -> None:
        self.law, self.split = law, split
        self.groups = law.groups(split)
        self.ends = list(accumulate(group.count for group in self.groups))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, i: int) -> Asked:
        if not 0 <= i < len(self):
            raise IndexError(f"{self.split} has the examples 0 to {len(self) - 1}, not {i}")
        row = bisect_right(self.ends, i)
        index = i - self.ends[row] + self.groups[row].count
        return self.law.draw(self.split, self.groups[row], index)._replace(group=row)


class RecallData(TaskData):
    """A task of the suite names its `law_of`."""

    law_of: type[Law] = Law

    @cached_property
    def law(self) -> Any:
        """The law under the options."""
        return self.law_of(self.options)

    def prepare(self) -> None:
        """Nothing is stored."""

    def dataset(self, split: Split) -> Questions:
        return Questions(self.law, split)

    def has(self, split: Split) -> bool:
        return bool(self.law.groups(split))

    def groups(self, split: Split) -> list[dict[str, Any]]:
        return [group.what for group in self.law.groups(split)]

    @property
    def specials(self) -> Specials:
        size = self.options.vocab_size
        answer = len(answer_of(self.dataset("train")[0]))
        return Specials(slot=size - 2, end=size - 1, slots=answer + 1)

    def score(self, split: Split, totals: Totals) -> dict[str, float]:
        """accuracy: of tokens where answers are asked for in place, else of whole answers; exact: whole questions."""
        exact = totals.whole / totals.questions
        if isinstance(self.dataset("train")[0], Continuation):
            return {"accuracy": exact}
        accuracy = {"accuracy": totals.hits / totals.answers}
        return accuracy if totals.answers == totals.questions else {**accuracy, "exact": exact}

    def train_order(self, start: int, stop: int, rank: int, world: int) -> Sampler[int]:
        counts = [group.count for group in self.law.groups("train")]
        return BlockOrder(counts, self.loading.train_rows, self.loading.seed, stop, start, rank=rank, world=world)

    def provenance(self) -> dict[str, Any]:
        splits = [split for split in ALL if self.has(split)]
        counts = {split: len(self.dataset(split)) for split in splits}
        told = {"kind": "regenerated", "version": self.law.version, "seed": self.options.data_seed, "counts": counts}
        return {**told, "law": self.law.law()}

    def verify(self) -> list[str]:
        """Whether this machine draws what the version promises, and whether the answers are right."""
        wrong = []
        if digest(self.law_of, type(self.options)) != self.law.golden:
            wrong.append(f"{self.law.name}: version {self.law.version} draws other examples on this machine")
        for split in ALL:
            for group in self.law.groups(split):
                for i in range(min(SOLVE, group.count)):
                    fault = self._fault(self.law.draw(split, group, i), group)
                    if fault:
                        wrong.append(f"{self.law.name}: {split} {group.what}, example {i}: {fault}")
        return wrong

    def _fault(self, question: Asked, group: Group) -> str:
        given = question[0]
        length = len(given) + (len(question.answer) + 1 if isinstance(question, Continuation) else 0)
        if length > self.options.longest:
            return f"{length} tokens, the longest are {self.options.longest}"
        tokens = np.concatenate([given, answer_of(question)])
        if tokens.min() < 1 or tokens.max() >= self.specials.slot:
            return f"ids from {tokens.min()} to {tokens.max()}, expected 1 to {self.specials.slot - 1}"
        if not np.array_equal(self.law.solve(question), answer_of(question)):
            return f"the answer is {self.law.solve(question).tolist()}, not {answer_of(question).tolist()}"
        return ""

    # -- for people ------------------------------------------------------------------------------------------------

    def labels(self, split: Split) -> np.ndarray:
        """All answers, one token after the other; of a large split those of LOOK questions, evenly spread."""
        data = self.dataset(split)
        return np.concatenate([answer_of(data[i]) for i in _spread(len(data), LOOK)])

    def majority(self) -> float | None:
        """Of always giving the most frequent answer of train."""
        train, test = self.dataset("train"), self.dataset("test")
        answers = np.stack([_first(train[i]) for i in _spread(len(train), 2_000)])
        kinds, counts = np.unique(answers, axis=0, return_counts=True)
        top = kinds[counts.argmax()]
        hits = [_right(top, test[i]) for i in _spread(len(test), 2_000)]
        return float(np.mean(np.concatenate(hits)))

    def lengths(self, split: Split) -> np.ndarray:
        """Tokens of every example that is looked at, answer and end symbol included."""
        data = self.dataset(split)
        found = [data[i] for i in _spread(len(data), 2_000)]
        return np.array([len(q[0]) + (len(q.answer) + 1 if isinstance(q, Continuation) else 0) for q in found])

    def view(self, split: Split, i: int) -> str:
        """Example i for a person."""
        return self.law.told(self.dataset(split)[i])


def _spread(size: int, most: int) -> np.ndarray:
    """At most `most` indices below `size`, evenly."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64))


def _first(question: Asked) -> np.ndarray:
    """What a constant guess is made of: the whole answer, or the first token asked for in place."""
    return answer_of(question) if isinstance(question, Continuation) else answer_of(question)[:1]


def _right(guess: np.ndarray, question: Asked) -> np.ndarray:
    """Which answers a constant guess meets, (1,) or (answers,)."""
    answer = answer_of(question)
    return np.atleast_1d(np.array_equal(guess, answer)) if isinstance(question, Continuation) else answer == guess[0]


class BlockOrder(Sampler[int]):
    """Which examples the samples [start, stop) of the training stream are, of groups with `counts` examples each.

    Blocks of `rows` samples, the effective batch, are of one group, as Zoology trains: sequences of one length, with
    nothing to pad. The blocks of an epoch are in random order, groups in proportion to their counts; a group of fewer
    than `rows` examples fills one block by repeating some. Within a group the examples, which are independent draws,
    are read in the order of i -> (a i + c) mod count, other a and c in every epoch: no table is held of them.
    """

    def __init__(
        self, counts: Sequence[int], rows: int, seed: int, stop: int, start: int = 0, *, rank: int = 0, world: int = 1
    ) -> None:
        if not counts or min(counts) < 1:
            raise ValueError("an empty training split or group")
        self.counts, self.rows, self.seed = list(counts), rows, seed
        self.stop, self.start, self.rank, self.world = stop, start, rank, world
        self.blocks = [max(1, count // rows) for count in self.counts]
        self.epoch_size = sum(self.blocks) * rows

    def __len__(self) -> int:
        return len(range(self.start + self.rank, self.stop, self.world))

    def __iter__(self) -> Iterator[int]:
        firsts = [0, *accumulate(self.counts)]
        epoch = -1
        for k in range(self.start + self.rank, self.stop, self.world):
            if k // self.epoch_size != epoch:
                epoch = k // self.epoch_size
                rng = np.random.default_rng([self.seed, epoch])
                schedule = rng.permutation(np.repeat(np.arange(len(self.counts)), self.blocks))
                before = np.empty(len(schedule), np.int64)  # how many blocks of its group came before each
                for group, n in enumerate(self.blocks):
                    before[schedule == group] = np.arange(n)
                steps = [_coprime(rng, count) for count in self.counts]
                offsets = [int(rng.integers(count)) for count in self.counts]
            block, place = divmod(k % self.epoch_size, self.rows)
            group = int(schedule[block])
            i = int(before[block]) * self.rows + place
            yield firsts[group] + (steps[group] * i + offsets[group]) % self.counts[group]


def _coprime(rng: np.random.Generator, count: int) -> int:
    """A number with which multiplying modulo `count` is a permutation."""
    while True:
        step = int(rng.integers(1, count + 1))
        if math.gcd(step, count) == 1:
            return step
