"""What the runner asks of a task's data. B batch, L seq_len."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.data.questions import IGNORE, Question, Specials, lay_out
from zoo.spec.architecture import Objective

Split = Literal["train", "val", "test", "length_generalization"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
"""What every task has."""
LENGTH_GENERALIZATION: Split = "length_generalization"
"""What some have besides: test questions that are longer or harder than any in training."""

Example = tuple[np.ndarray, int] | Question
"""Classification and matching: (ids or values of one sequence, label); for matching the first has shape (2, L) and pads
as id 0. The kinds lm and recall: a question."""


class Batch(NamedTuple):
    """What the model is given.

    inputs  (B, L) int64 ids or float32 values; (B, 2, L) for matching
    mask    same shape, bool, True = real token; None when every token of every row is real
    labels  (B,) int64; for lm and recall (B, L), or (B, T) beside `target`, IGNORE where nothing is asked
    target  (B, T) int64, what the decoder reads; seq2seq only
    fresh   (B,) bool: rows whose text begins here, and carries nothing from the batch before; None = all
    groups  (B,) int64, rows of `TaskData.groups`; None = there are none
    """

    inputs: Tensor
    mask: Tensor | None
    labels: Tensor
    target: Tensor | None = None
    fresh: Tensor | None = None
    groups: Tensor | None = None


class Totals(NamedTuple):
    """Sums over the questions of a split, or of a group of it.

    questions  how many; of running text: pieces
    answers    tokens asked for
    hits       of these, told right
    whole      questions of which every token was
    nats       -sum of log probabilities of the right tokens
    squares    sum over the questions of their nats, squared
    """

    questions: int
    answers: int
    hits: int
    whole: int
    nats: float
    squares: float


def perplexity(nats: float) -> float:
    """exp of a mean loss; infinite where float64 has no such number (an untrained model's, say)."""
    return math.exp(nats) if nats < 709.0 else math.inf


class TaskData(LightningDataModule):
    """Examples of one task under its options. A task supplies `prepare`, `dataset`, `provenance` and `verify`.

    options  the task's options dataclass
    root     the data directory (`ZOO_DATA_DIR`, else the platform's cache directory)
    """

    def __init__(self, options: Any, root: Path) -> None:
        super().__init__()
        self.options = options
        self.root = root
        self.configure(batch_size=32, eval_batch_size=32, seed=0, round_of=lambda: (0, 0))

    # -- what a task supplies ------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Generate, or convert the user's files, into the cache. Idempotent, resumable, atomic, safe against a
        second process doing the same. Raises DataError that names the file at fault."""
        raise NotImplementedError

    def dataset(self, split: Split) -> Dataset[Example]:
        """One split: `len()` and `[i]`, memory bounded whatever its size. Only after `prepare`."""
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        """For the record: {"kind": "regenerated" | "published", "version", "seed" or "files": {name: sha256},
        "counts": {split: n}}."""
        raise NotImplementedError

    def verify(self) -> list[str]:
        """Everything that is wrong with the cached data, one line each that names the file; empty when sound."""
        raise NotImplementedError

    # -- what tasks of the kinds lm and recall supply besides -------------------------------------------------------

    @property
    def specials(self) -> Specials:
        """Ids of slot and end symbol."""
        raise NotImplementedError

    def groups(self, split: Split) -> list[dict[str, Any]]:
        """What the questions of a split are told apart by, such as [{"length": 64, "pairs": 4}, …]; a question's
        `group` is a row of this. Empty: by nothing."""
        return []

    def has(self, split: Split) -> bool:
        """Whether there is such a split."""
        return split in SPLITS

    def score(self, split: Split, totals: Totals) -> dict[str, float]:
        """The metrics of a split, or of a group of it; the task's own metrics for "test", its first one for "val".

        A share of right answers is called accuracy. A standard error of the mean, in nats, may come as "stderr".
        """
        return {"accuracy": totals.hits / totals.answers}

    def train_order(self, start: int, stop: int, rank: int, world: int) -> Sampler[int]:
        """Which examples the samples [start, stop) of the training stream are, for one of `world` devices."""
        size = len(self.dataset("train"))  # type: ignore[arg-type]
        return StreamOrder(size, self.seed, stop, start, rank=rank, world=world)

    def eval_order(self, split: Split, limit: int | None) -> Sequence[int] | Sampler[int]:
        """In which order a split is evaluated, at most `limit` examples of it."""
        size = len(self.dataset(split))  # type: ignore[arg-type]
        return range(size if limit is None else min(limit, size))

    # -- what the runner uses ------------------------------------------------------------------------------------

    def configure(
        self,
        *,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        round_of: Callable[[], tuple[int, int]],
        val_limit: int | None = None,
        num_workers: int = 0,
        objective: Objective = "classify",
        rows: int = 0,
        beyond: bool = True,
    ) -> None:
        """Set what the run decides.

        batch_size  examples that one device holds at once
        round_of    called when a training loader is made; the samples [start, stop) of the run's stream that it
                    is to deliver, so that a resumed run goes on exactly where it was
        val_limit   look at this many examples of the validation split; None = all
        objective   how questions are put
        rows        the effective batch: how many texts are read side by side in training; 0 = batch_size
        beyond      whether the model can read more than in training
        """
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.round_of, self.val_limit, self.num_workers = round_of, val_limit, num_workers
        self.objective: Objective = objective
        self.rows = rows or batch_size
        self.beyond = beyond

    def train_dataloader(self) -> DataLoader:
        start, stop = self.round_of()
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self._loader("train", self.train_order(start, stop, rank, world), self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader("val", self.val_limit)

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        loaders = [self.eval_dataloader("test")]
        if self.beyond and self.has(LENGTH_GENERALIZATION):
            loaders.append(self.eval_dataloader(LENGTH_GENERALIZATION))
        return loaders

    def eval_dataloader(self, split: Split, limit: int | None = None) -> DataLoader:
        """A split in its order."""
        # questions of several times the length in a batch as large as those of training might not fit
        batch = max(self.eval_batch_size // 8, 1) if split == LENGTH_GENERALIZATION else self.eval_batch_size
        return self._loader(split, self.eval_order(split, limit), batch)

    def _loader(self, split: Split, order: Any, batch_size: int) -> DataLoader:
        # a generator of its own: making an iterator must not draw from the random state of the model
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            self.dataset(split),
            batch_size=batch_size,
            sampler=order,
            collate_fn=collate if self.objective == "classify" else Collate(self.objective, self.specials),
            generator=generator,
            num_workers=self.num_workers,
        )

    def majority(self) -> float | None:
        """Accuracy on test of always answering train's most frequent label: the line that learning must pass; None
        where there is no such line."""
        train, test = self.labels("train"), self.labels("test")
        label = np.bincount(train).argmax()
        return float((test == label).mean())

    def labels(self, split: Split) -> np.ndarray:
        """All labels of a split; tasks with cheaper access than example by example override this."""
        data = self.dataset(split)
        return np.array([data[i][1] for i in range(len(data))])  # type: ignore[arg-type]

    # -- for a person ----------------------------------------------------------------------------------------------

    def view(self, split: Split, i: int) -> str | np.ndarray:
        """Example i: a text, or a picture (H, W) or (H, W, 3) uint8."""
        return " ".join(map(str, np.asarray(self.dataset(split)[i][0]).tolist()))

    def lengths(self, split: Split) -> np.ndarray | None:
        """Tokens of the examples before any is cut to the task's length, (n,), or (n, 2) for matching; None where they
        are not known without looking at every example."""
        return None

    def left_out(self) -> list[str]:
        """Examples of the user's files that are not used, a line each with the reason."""
        return []


@dataclass(frozen=True)
class Collate:
    """Questions -> a batch under one objective: right-padded with 0, labels with IGNORE."""

    objective: Objective
    specials: Specials

    def __call__(self, questions: Sequence[Question]) -> Batch:
        laid = [lay_out(question, self.objective, self.specials) for question in questions]
        inputs = _padded([one.inputs for one in laid], 0)
        lengths = torch.tensor([len(one.inputs) for one in laid])
        mask = None
        if int(lengths.min()) < inputs.shape[1]:
            mask = torch.arange(inputs.shape[1]) < lengths[:, None]
        targets = [one.target for one in laid if one.target is not None]
        return Batch(
            inputs,
            mask,
            _padded([one.labels for one in laid], IGNORE),
            target=_padded(targets, self.specials.end) if targets else None,
            fresh=torch.tensor([one.fresh for one in laid]),
            groups=torch.tensor([one.group for one in laid]),
        )


def _padded(rows: Sequence[np.ndarray], value: int) -> Tensor:
    """(B, longest) int64"""
    out = np.full((len(rows), max(len(row) for row in rows)), value, np.int64)
    for into, row in zip(out, rows, strict=True):
        into[: len(row)] = row
    return torch.from_numpy(out)


class StreamOrder(Sampler[int]):
    """Indices of training samples: permutation after permutation of the data, fixed by the seed.

    Delivers the samples [start, stop) of that endless stream: a run that resumes after k samples builds it with
    `start=k` and sees exactly what the unbroken run would have. Of `world` devices each takes every world-th sample.
    """

    def __init__(self, size: int, seed: int, stop: int, start: int = 0, *, rank: int = 0, world: int = 1) -> None:
        if size < 1:
            raise ValueError("an empty training split")
        self.size, self.seed, self.stop, self.start = size, seed, stop, start
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return len(range(self.start + self.rank, self.stop, self.world))

    def __iter__(self) -> Iterator[int]:
        epoch = -1
        order: np.ndarray = np.empty(0, dtype=np.int64)
        for k in range(self.start + self.rank, self.stop, self.world):
            if k // self.size != epoch:
                epoch = k // self.size
                order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
            yield int(order[k % self.size])


def collate(examples: Sequence[tuple[np.ndarray, int]]) -> Batch:
    """Right-pad with 0 to the longest of the batch."""
    arrays = [np.asarray(inputs) for inputs, _ in examples]
    labels = torch.tensor([label for _, label in examples], dtype=torch.int64)
    lengths = [a.shape[-1] for a in arrays]
    longest = max(lengths)
    real = np.issubdtype(arrays[0].dtype, np.floating)
    inputs = np.zeros((len(arrays), *arrays[0].shape[:-1], longest), dtype=np.float32 if real else np.int64)
    for row, array in zip(inputs, arrays, strict=True):
        row[..., : array.shape[-1]] = array
    tensor = torch.from_numpy(inputs)
    if arrays[0].ndim == 2:
        return Batch(tensor, tensor != 0, labels)
    if min(lengths) == longest:
        return Batch(tensor, None, labels)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return Batch(tensor, mask, labels)


Progress = Callable[[int, int], None]
"""Called with (done, total) while data are prepared."""
