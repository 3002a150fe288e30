"""The class that every task's data extend. Imports no torch before a loader is made. B batch, L seq_len."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from zoo.data.questions import Question, Specials
from zoo.data.sampler import IntervalSampler, StreamOrder
from zoo.data.tokens import Tokenizer
from zoo.spec.architecture import Objective
from zoo.spec.errors import UserError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from zoo.data.batch import Batch

Split = Literal["train", "val", "test", "length_generalization"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
"""The splits that every task has."""
LENGTH_GENERALIZATION: Split = "length_generalization"
"""A split of some tasks: test examples that are longer or harder than any in training."""

Example = tuple[np.ndarray, int] | Question
"""Of classes: (ids or values (L,), label), for pairs ids (2, L) padded with 0. With token answers: a question."""

T_co = TypeVar("T_co", covariant=True)


class Dataset(Protocol[T_co]):
    """The examples of a split: PyTorch's map-style dataset, which need not extend torch's class."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> T_co: ...


class Sampler(Protocol):
    """The indices of examples in the order in which a loader reads them: PyTorch's sampler."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


class Totals(NamedTuple):
    """Sums over the questions of a split, or of a group of it.

    questions  their number; of running text: pieces
    answers    scored tokens
    hits       of these, predicted right
    whole      questions of which every token was predicted right
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


class Collator(Protocol):
    """The part of a kind of task (zoo.kinds) that makes batches of examples."""

    def build_collate_fn(self, data: TaskData) -> Callable[[Sequence[Any]], Batch]: ...


@dataclass(frozen=True)
class LoaderConfig:
    """What a run decides about its data.

    kind                   makes batches of examples; needed for loaders only
    batch_size             examples that one device holds at once
    rows                   the effective batch: how many texts are read side by side in training; 0 = batch_size
    eval_batch_size        examples of a batch of evaluation
    seed                   of the order of the training samples
    interval, max_samples  training samples between two validations (0 = all), and in the whole run
    val_limit              evaluate this many examples of the validation split; None = all
    num_workers            processes that load data
    objective              how questions are put (zoo/data/questions.py)
    length_generalization  whether the model can read longer inputs than in training
    """

    kind: Collator | None = None
    batch_size: int = 32
    rows: int = 0
    eval_batch_size: int = 32
    seed: int = 0
    interval: int = 0
    max_samples: int = 0
    val_limit: int | None = None
    num_workers: int = 0
    objective: Objective = "classify"
    length_generalization: bool = True

    @property
    def train_rows(self) -> int:
        """Texts that are read side by side in training."""
        return self.rows or self.batch_size


class TaskData:
    """Examples of one task under its options. A task supplies `prepare`, `dataset`, `provenance` and `verify`.

    options  the task's options dataclass
    root     the data directory (`ZOO_DATA_DIR`, else the platform's cache directory)
    loading  what the run decides; fixed for the life of the object
    """

    def __init__(self, options: Any, root: Path, loading: LoaderConfig | None = None) -> None:
        self.options = options
        self.root = root
        self.loading = loading or LoaderConfig()
        self._lengths: dict[Split, np.ndarray | None] = {}
        self._codec: Mapping[str, Any] | None = None

    # -- what a task supplies ------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Generate examples, or convert the user's files, into the cache: idempotent, resumable, atomic, safe against
        a second process. Raises DataError that names the file at fault."""
        raise NotImplementedError

    def prepare_test(self) -> None:
        """Prepare what the test split needs, where that is less."""
        self.prepare()

    def dataset(self, split: Split) -> Dataset[Any]:
        """The examples of a split, in bounded memory. Only after `prepare`."""
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        """The origin of the data, for the record: {"kind": "regenerated", "published" or "part" (of the published),
        "version", "seed" or "files": {name: sha256}, "counts": {split: n}}."""
        raise NotImplementedError

    def test_provenance(self) -> dict[str, Any]:
        """The origin of what `prepare_test` prepares."""
        return self.provenance()

    def verify(self) -> list[str]:
        """Check the cached data; one line per fault that names the file."""
        raise NotImplementedError

    # -- what tasks with token answers supply besides -------------------------------------------------------

    @property
    def specials(self) -> Specials:
        """Ids of the slot and end symbols."""
        raise NotImplementedError

    def groups(self, split: Split) -> list[dict[str, Any]]:
        """The groups of a split's questions, such as [{"length": 64, "pairs": 4}, …]; a question's `group` is an index
        into this list. Empty: no groups."""
        return []

    def has(self, split: Split) -> bool:
        """Whether the task has the split."""
        return split in SPLITS

    def score(self, split: Split, totals: Totals) -> dict[str, float]:
        """Compute the metrics of a split, or of a group of it: for "val" the ranked one, for "test" all of them.

        "stderr", the standard error of the mean loss in nats, may be among them.
        """
        return {"accuracy": totals.hits / totals.answers}

    def n_examples(self, split: Split) -> int:
        """Number of examples of a split."""
        return len(self.dataset(split))

    def train_order(self, start: int, stop: int, rank: int, world: int) -> Sampler:
        """Indices of the examples of the samples [start, stop) of the training stream, for one of `world` devices."""
        loading, size = self.loading, self.n_examples("train")
        lengths, rows = self._lengths_of_all("train"), loading.train_rows
        return StreamOrder(size, loading.seed, stop, start, rank=rank, world=world, lengths=lengths, rows=rows)

    def eval_order(self, split: Split, limit: int | None) -> Sampler:
        """Indices of a split's first `limit` examples in their order of evaluation: by length where that is known."""
        size, lengths = self.n_examples(split), self._lengths_of_all(split)
        n = size if limit is None else min(limit, size)
        return range(n) if lengths is None else np.argsort(lengths[:n], kind="stable").tolist()

    def batch_lengths(self, split: Split) -> np.ndarray | None:
        """The lengths (n,) by which examples come together in a batch; None = as they come. By default those of
        `lengths`, of a pair the longer."""
        lengths = self.lengths(split)
        return lengths if lengths is None or lengths.ndim == 1 else lengths.max(1)

    def _lengths_of_all(self, split: Split) -> np.ndarray | None:
        if split not in self._lengths:
            self._lengths[split] = self.batch_lengths(split)
        return self._lengths[split]

    # -- for `zoo predict` and `zoo eval` ------------------------------------------------------------------------------

    @property
    def channels(self) -> int:
        """Real numbers per position of examples (L, channels); 0 = examples are (L,), or pairs (2, L)."""
        return 0

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What turns a text into the task's ids, its own shifted by one; None where ids stand for no text."""
        return None

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Columns of a user's table that hold an input."""
        return ("input",)

    def make_codec(self) -> dict[str, Any]:
        """What the options do not say and `encode` and `label_names` need, as JSON values; of a tokenizer in a file its
        sha256. Only after `prepare`."""
        return {"tokenizer_sha256": self.tokenizer.digest} if self.tokenizer and self.tokenizer.digest else {}

    @property
    def codec(self) -> Mapping[str, Any]:
        """The codec of the prepared data, or that of the run whose model was loaded. Setting it raises UserError where
        the tokenizer's file is another one now."""
        if self._codec is None:
            self._codec = self.make_codec()
        return self._codec

    @codec.setter
    def codec(self, codec: Mapping[str, Any]) -> None:
        known = codec.get("tokenizer_sha256")
        if known and self.tokenizer and self.tokenizer.digest != known:
            raise UserError(f"task.tokenizer {self.options.tokenizer}: not the file that the model was trained with")
        self._codec = codec

    @property
    def target_scale(self) -> tuple[float, float]:
        """Of numbers to be predicted: what was subtracted from them, and by what they were then divided."""
        return 0.0, 1.0

    @property
    def label_names(self) -> Sequence[str] | None:
        """The names of the classes; None where they are numbers."""
        return None

    def encode(self, values: Sequence[Any]) -> Any:
        """An input, the values of `input_columns`, as the kind's collate function takes it. By default the ids or
        values that the model reads. Raises ValueError."""
        array = np.asarray(values[0])
        if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.number):
            raise ValueError("expected a list of the numbers that the model reads (zoo data sample --json shows them)")
        return array.astype(np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64)

    # -- loaders ---------------------------------------------------------------------------------------------------

    def train_dataloader(self, epoch: int = 0, rank: int = 0, world: int = 1) -> DataLoader:
        """The training samples of validation interval `epoch`, for device `rank` of `world`."""
        from zoo.data.batch import TrainLoader

        sampler = IntervalSampler(
            lambda start, stop: self.train_order(start, stop, rank, world),
            self.loading.interval or self.loading.max_samples,
            self.loading.max_samples,
        )
        # Lightning calls set_epoch as well, but reads the length before, and the last interval is shorter
        sampler.set_epoch(epoch)
        loader = self._loader("train", sampler, self.loading.batch_size, TrainLoader)
        loader.batches_per_step = max(self.loading.train_rows // (self.loading.batch_size * world), 1)
        return loader

    def val_dataloader(self) -> DataLoader:
        """The examples that a run's validation reads."""
        return self.eval_dataloader("val", self.loading.val_limit)

    @property
    def test_splits(self) -> tuple[Split, ...]:
        """The splits that the test loaders read, in their order."""
        longer = self.loading.length_generalization and self.has(LENGTH_GENERALIZATION)
        return ("test", LENGTH_GENERALIZATION) if longer else ("test",)

    def eval_dataloader(self, split: Split, limit: int | None = None) -> DataLoader:
        """A split in its order of evaluation, at most `limit` examples of it."""
        from torch.utils.data import DataLoader

        batch_size = self.loading.eval_batch_size
        if split == LENGTH_GENERALIZATION:
            # questions of several times the length in a batch as large as those of training might not fit
            batch_size = max(batch_size // 8, 1)
        return self._loader(split, self.eval_order(split, limit), batch_size, DataLoader)

    def _loader(self, split: Split, order: Sampler, batch_size: int, loader: Any) -> Any:
        import torch

        if self.loading.kind is None:
            raise ValueError("loaders need the kind of the task: LoaderConfig(kind=...)")
        # a generator of its own: making an iterator must not draw from the random state of the model
        generator = torch.Generator().manual_seed(self.loading.seed)
        return loader(
            self.dataset(split),
            batch_size=batch_size,
            sampler=order,
            collate_fn=self.loading.kind.build_collate_fn(self),
            generator=generator,
            num_workers=self.loading.num_workers,
        )

    def majority(self) -> float | None:
        """Test accuracy of always answering the most frequent training label; None where there is no such baseline."""
        train, test = self.labels("train"), self.labels("test")
        label = np.bincount(train).argmax()
        return float((test == label).mean())

    def labels(self, split: Split) -> np.ndarray:
        """All labels of a split (n,). Override where they are cheaper to read than example by example."""
        data = self.dataset(split)
        return np.array([data[i][1] for i in range(len(data))])

    # -- for `zoo data` ----------------------------------------------------------------------------------------------

    def view(self, split: Split, i: int) -> str | np.ndarray:
        """Example i as a text, or as a picture (H, W) or (H, W, 3) uint8."""
        return " ".join(map(str, np.asarray(self.dataset(split)[i][0]).tolist()))

    def lengths(self, split: Split) -> np.ndarray | None:
        """Tokens of the examples before truncation, (n,), or (n, 2) for pairs; None where they are not known without
        reading every example. Batches are made of examples of about the same length."""
        return None

    def left_out(self) -> list[str]:
        """Examples of the user's files that are not used, one line each with the reason."""
        return []


Progress = Callable[[int, int], None]
"""Called with (done, total) while data are prepared."""
