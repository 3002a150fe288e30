"""What the five tasks share: examples generated when they are read, in groups, and the order of training.

A generator knows the groups of each split and draws its examples; each is a function of (version, data_seed, split, the
attributes of its group, index within the group): nothing is stored, and no split changes with the sizes of the others.
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

from zoo.data.module import Split, TaskData, Totals
from zoo.data.questions import Continuation, Marked, Specials
from zoo.data.rng import key
from zoo.data.splits import evenly_spaced
from zoo.data.stats import answer_of
from zoo.data.tokens import BYTES, Tokenizer
from zoo_recall.wording import Wording

RecallQuestion = Marked | Continuation
ALL: tuple[Split, ...] = ("train", "val", "test", "length_generalization")
LABEL_SAMPLE, SAMPLE = 20_000, 2_000
"""Questions that are drawn to list the answers of a split, and for its other statistics."""
VERIFY_SAMPLE = 8
"""Examples of each group that `verify` solves."""


@dataclass(frozen=True)
class Group:
    """Questions of one kind within a split.

    attributes  what distinguishes them in the record, such as {"length": 64, "pairs": 4}
    count       number of questions
    settings    read by the generator alone, such as {"depth": -1}
    """

    attributes: dict[str, Any]
    count: int
    settings: dict[str, Any] = field(default_factory=dict)


class Generator:
    """Draws the examples of one task under its options. A task supplies every method that raises here."""

    name = ""
    version = "1"
    golden = ""
    """The value of `digest` on every machine; another value needs another version."""
    golden_options: tuple[dict[str, Any], ...] = ({},)
    """Options under which `digest` draws."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self._families: dict[Any, np.uint64] = {}

    def groups(self, split: Split) -> list[Group]:
        """The groups of a split in their order; empty: no such split."""
        raise NotImplementedError

    def draw(self, split: Split, group: Group, index: int) -> RecallQuestion:
        """Draw example `index` of a group."""
        raise NotImplementedError

    def solve(self, question: RecallQuestion) -> np.ndarray:
        """Find the answer, (k,), by reading the question."""
        raise NotImplementedError

    def to_text(self, question: RecallQuestion) -> str:
        """Return the question as a person reads it."""
        raise NotImplementedError

    @cached_property
    def wording(self) -> Wording:
        """The tokens of form=text."""
        return Wording(self.options.tokenizer)

    def settings(self) -> dict[str, Any]:
        """The options that decide what an example is."""
        others = ("data_seed", "train_size", "val_size", "group_size", "path", "tokenizer")
        return {k: list(v) if isinstance(v, list) else v for k, v in vars(self.options).items() if k not in others}

    def family(self, split: Split, *attributes: Any) -> np.uint64:
        """Return the key of a family of random streams."""
        which = (split, *attributes)
        if which not in self._families:
            # the streams of version "1" were drawn when length_generalization was called "beyond"
            name = "beyond" if split == "length_generalization" else split
            parts = (self.version, self.options.data_seed, name, *attributes)
            self._families[which] = key(f"recall/{self.name}", *parts)
        return self._families[which]

    def size(self, split: Split) -> int:
        """The option with the size of a split (or of its groups)."""
        return int(getattr(self.options, {"train": "train_size", "val": "val_size"}.get(split, "group_size")))


def digest(generator_class: type[Generator], options_class: type[Any], per_group: int = 4) -> str:
    """Return the sha256 of the first examples of every group under the golden options."""
    total = sha256()
    for options in generator_class.golden_options:
        generator = generator_class(options_class(**options))
        for split in ALL:
            for group in generator.groups(split):
                for i in range(min(per_group, group.count)):
                    for part in generator.draw(split, group, i)[:2]:
                        total.update(np.asarray(part, "<i8").tobytes())
    return total.hexdigest()


class Questions:
    """One split, group after group."""

    def __init__(self, generator: Generator, split: Split) -> None:
        self.generator, self.split = generator, split
        self.groups = generator.groups(split)
        self.ends = list(accumulate(group.count for group in self.groups))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, i: int) -> RecallQuestion:
        if not 0 <= i < len(self):
            raise IndexError(f"{self.split} has the examples 0 to {len(self) - 1}, not {i}")
        row = bisect_right(self.ends, i)
        index = i - self.ends[row] + self.groups[row].count
        return self.generator.draw(self.split, self.groups[row], index)._replace(group=row)

    def sample(self, limit: int) -> Iterator[RecallQuestion]:
        """Yield at most `limit` questions, evenly spaced."""
        return (self[i] for i in evenly_spaced(len(self), limit))


class RecallData(TaskData):
    """Data of a task of the suite, which supplies its generator's class."""

    generator_class: type[Generator] = Generator

    @cached_property
    def generator(self) -> Any:
        """The generator under the options."""
        return self.generator_class(self.options)

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self.generator.wording.tokenizer if getattr(self.options, "form", "") == "text" else None

    def prepare(self) -> None:
        """Nothing is stored."""

    def dataset(self, split: Split) -> Questions:
        return Questions(self.generator, split)

    def has(self, split: Split) -> bool:
        return bool(self.generator.groups(split))

    def groups(self, split: Split) -> list[dict[str, Any]]:
        return [group.attributes for group in self.generator.groups(split)]

    @property
    def specials(self) -> Specials:
        size = self.options.vocab_size
        answer = len(answer_of(self.dataset("train")[0]))
        return Specials(slot=size - 2, end=size - 1, slots=answer + 1)

    def score(self, split: Split, totals: Totals) -> dict[str, float]:
        """accuracy: of tokens where answers are in place, else of whole answers; exact: of whole questions."""
        exact = totals.whole / totals.questions
        if isinstance(self.dataset("train")[0], Continuation):
            return {"accuracy": exact}
        accuracy = {"accuracy": totals.hits / totals.answers}
        return accuracy if totals.answers == totals.questions else {**accuracy, "exact": exact}

    def batch_lengths(self, split: Split) -> None:
        """Groups are of one length and come one after the other."""

    def train_order(self, start: int, stop: int, rank: int, world: int) -> BlockSampler:
        counts = [group.count for group in self.generator.groups("train")]
        return BlockSampler(counts, self.loading.train_rows, self.loading.seed, stop, start, rank=rank, world=world)

    def provenance(self) -> dict[str, Any]:
        facts = {
            "kind": "regenerated",
            "version": self.generator.version,
            "seed": self.options.data_seed,
            "counts": {split: len(self.dataset(split)) for split in ALL if self.has(split)},
            "settings": self.generator.settings(),
        }
        own = self.tokenizer
        if own is not None and own.name != BYTES:
            facts["tokenizer"] = {"name": own.name, "sha256": own.digest, "size": own.size}
        return facts

    def verify(self) -> list[str]:
        """Check that this machine draws the examples of the version, and that their answers are right."""
        generator, faults = self.generator, []
        if digest(self.generator_class, type(self.options)) != generator.golden:
            faults.append(f"{generator.name}: version {generator.version} draws other examples on this machine")
        for split in ALL:
            for group in generator.groups(split):
                for i in range(min(VERIFY_SAMPLE, group.count)):
                    fault = self._find_fault(generator.draw(split, group, i))
                    if fault:
                        faults.append(f"{generator.name}: {split} {group.attributes}, example {i}: {fault}")
        return faults

    def _find_fault(self, question: RecallQuestion) -> str:
        answer = answer_of(question)
        if _length(question) > self.options.longest:
            return f"{_length(question)} tokens, the longest are {self.options.longest}"
        tokens = np.concatenate([question[0], answer])
        if tokens.min() < 1 or tokens.max() >= self.specials.slot:
            return f"ids from {tokens.min()} to {tokens.max()}, expected 1 to {self.specials.slot - 1}"
        solved = self.generator.solve(question)
        return "" if np.array_equal(solved, answer) else f"the answer is {solved.tolist()}, not {answer.tolist()}"

    # -- for people ------------------------------------------------------------------------------------------------

    def labels(self, split: Split) -> np.ndarray:
        """All answers, one token after the other; of a large split those of a sample."""
        return np.concatenate([answer_of(question) for question in self.dataset(split).sample(LABEL_SAMPLE)])

    def majority(self) -> float | None:
        """Accuracy of always giving the most frequent answer of train: the whole answer, or one token in place."""
        answers = np.stack([_guess(question) for question in self.dataset("train").sample(SAMPLE)])
        values, counts = np.unique(answers, axis=0, return_counts=True)
        guess = values[counts.argmax()]
        return float(
            np.mean(np.concatenate([_hits(guess, question) for question in self.dataset("test").sample(SAMPLE)]))
        )

    def lengths(self, split: Split) -> np.ndarray:
        """Tokens of a sample of the examples, answer and end symbol included."""
        return np.array([_length(question) for question in self.dataset(split).sample(SAMPLE)])

    def view(self, split: Split, i: int) -> str:
        return self.generator.to_text(self.dataset(split)[i])


def _length(question: RecallQuestion) -> int:
    return len(question[0]) + (len(question.answer) + 1 if isinstance(question, Continuation) else 0)


def _guess(question: RecallQuestion) -> np.ndarray:
    """The constant guess that this question supports: its whole answer, or its first token in place."""
    return answer_of(question) if isinstance(question, Continuation) else answer_of(question)[:1]


def _hits(guess: np.ndarray, question: RecallQuestion) -> np.ndarray:
    """Whether a constant guess is right for each answer of a question, (1,) or (answers,) bool."""
    answer = answer_of(question)
    return np.atleast_1d(np.array_equal(guess, answer)) if isinstance(question, Continuation) else answer == guess[0]


class BlockSampler:
    """Orders the training samples [start, stop) in blocks of one group; group g has counts[g] examples.

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
                before = np.empty(len(schedule), np.int64)  # blocks of the same group before each block
                for group, n in enumerate(self.blocks):
                    before[schedule == group] = np.arange(n)
                steps = [_coprime(rng, count) for count in self.counts]
                offsets = [int(rng.integers(count)) for count in self.counts]
            block, place = divmod(k % self.epoch_size, self.rows)
            group = int(schedule[block])
            i = int(before[block]) * self.rows + place
            yield firsts[group] + (steps[group] * i + offsets[group]) % self.counts[group]


def _coprime(rng: np.random.Generator, count: int) -> int:
    """Draw a number such that multiplying by it modulo `count` is a permutation."""
    while True:
        step = int(rng.integers(1, count + 1))
        if math.gcd(step, count) == 1:
            return step
