"""Base classes of the tasks that read published files, and the splits of data sets without validation split."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo import ConfigError, DataError, MissingFiles
from zoo.data.cached import CachedData, hashed_name
from zoo.data.files import file_stamps
from zoo.data.module import SPLITS, Split
from zoo.data.paths import advice_for_file, find_files
from zoo.data.splits import HOLD_OUT_ORDER, drop_duplicates, published_kind
from zoo.data.store import Chunk, Recipe, Rows

CHUNK = 512
"""Examples of a chunk."""


class FilesData(CachedData):
    """Data of a task that cannot be generated.

    reader  version of the recipe
    names   where below a release its files may be
    layout  the names of the files, and `needs` what a user must bring, for messages
    """

    suite = "lra"
    reader: str
    names: tuple[str, ...]
    layout: str
    needs: str

    @abstractmethod
    def accepts(self, place: Path) -> bool:
        """Whether a folder or archive holds the files."""

    @abstractmethod
    def input_files(self, place: Path) -> Iterable[Path]:
        """The files and folders that change when the examples do."""

    def place(self) -> Path:
        """Return the user's folder or archive. Raises MissingFiles, in one line."""
        path = self.options.path
        place = find_files(path, self.root, self.name, self.names, self.accepts)
        if place is not None:
            return place
        if path:
            raise MissingFiles(f"{_not_there(path, self.names, self.layout)}; bring {self.needs}")
        raise MissingFiles(
            f"{self.name} cannot be generated: bring {self.needs}; put it in {self.root}, or name its folder with"
            f" zoo data prepare {self.name} --from DIR"
        )

    def folder_name(self) -> str:
        place, o = self.place(), self.options
        values = {"reader": self.reader, "place": str(place.resolve()), "files": file_stamps(self.input_files(place))}
        values |= {"counts": [o.train_size, o.val_size, o.test_size], "duplicates": o.duplicates}
        return hashed_name(f"published-{self.reader}", values)


class GeneratedOrFilesData(CachedData):
    """Data of a task that is generated unless the published files are to be used (`task.source` and `task.path`).

    version  of the generator, and `reader` of the published files' recipe
    """

    suite = "lra"
    version: str
    reader: str

    @property
    def prefix(self) -> str:
        """Beginning of the folder's name."""
        return ""

    @abstractmethod
    def find_published(self) -> Path | None:
        """Return the user's folder if it is to be used; see `find`."""

    @abstractmethod
    def input_files(self, folder: Path) -> Iterable[Path]:
        """The files and folders that change when the examples do."""

    @abstractmethod
    def generator(self) -> Recipe:
        """The recipe of generated examples."""

    @abstractmethod
    def published(self, folder: Path) -> Recipe:
        """The recipe of the examples in the user's folder."""

    def find(self, names: Sequence[str], accepts: Any, layout: str) -> Path | None:
        """Find the published files, or return None when the data are to be generated.

        names, layout  as in FilesData
        Raises MissingFiles when published files are required and are not there, ConfigError when there are none and
        the options cannot be generated.
        """
        o = self.options
        if o.generated:
            return None
        folder = find_files(o.path, self.root, self.name, names, accepts)
        if folder is None and (o.path or o.source == "published"):
            raise _not_there(o.path or self.root, names, layout)
        if folder is None:
            try:
                o.check_generated()
            except ConfigError as error:
                raise error.under("task") from None
        return folder

    @property
    def generated(self) -> bool:
        return self.find_published() is None

    def recipe(self) -> Recipe:
        folder = self.find_published()
        return self.generator() if folder is None else self.published(folder)

    def folder_name(self) -> str:
        folder, generator = self.find_published(), self.generator()
        if folder is None:
            values = generator.provenance() | {"counts": generator.counts()}
            return hashed_name(f"{self.prefix}regenerated-{self.version}-seed{self.options.data_seed}", values)
        files = file_stamps(self.input_files(folder))
        values = {"reader": self.reader, "folder": str(folder.resolve()), "files": files, "counts": generator.counts()}
        return hashed_name(f"{self.prefix}published-{self.reader}", values)


def _not_there(top: Path | str, names: Sequence[str], layout: str) -> MissingFiles:
    below = f"no {layout} there, nor in {', '.join(names)} or lra_release below it"
    return MissingFiles(f"{top}: {below}{advice_for_file(str(top))}")


class Example(NamedTuple):
    """One example of the published files.

    where     file, or file and index, for messages
    key       sha256 of what the model is shown
    label     its class
    contents  its bytes, or whatever the reader finds them by
    """

    where: str
    key: bytes
    label: int
    contents: Any


def hold_out(train: list[Example], test: list[Example], *, drop: bool) -> tuple[dict[Split, list[Example]], list[str]]:
    """Return the splits of a data set without validation split, and a line for each example that is left out.

    Splits are sorted by sha256, so that any first part of one is a fair sample of it; the first tenth of the training
    examples is val. With `drop`, what test has too is left out before; val is still a tenth of the published number.
    """
    splits: dict[Split, list[Example]] = {"test": _by_key(test), "val": [], "train": _by_key(train)}
    left_out: list[str] = []
    if drop:
        splits, left_out = drop_duplicates(splits)
    tenth = max(1, len(train) // 10)
    splits["val"], splits["train"] = splits["train"][:tenth], splits["train"][tenth:]
    if drop:
        splits, more = drop_duplicates(splits)
        left_out += more
    return splits, left_out


def _by_key(examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda e: (e.key, e.where))


def count_notes(counts: Mapping[str, int], published: Mapping[str, int], noun: str) -> list[str]:
    """Return a line for each split of the user's files whose number of examples is not the published one."""
    return [f"{k}: {counts[k]:,} {noun}, the published set has {n:,}" for k, n in published.items() if counts[k] != n]


class HoldOutRecipe:
    """Examples of published files that come as train and test. Implements zoo.data.store.Recipe.

    A subclass sets `noun`, `published` (examples per part) and `classes` (names), and makes chunks.

    place     the user's files, for messages
    examples  (train or test, example) of all files
    files     file -> sha256, for the record
    """

    version = "1"
    """Raised when the same files would give other examples."""
    noun: str
    published: Mapping[str, int]
    classes: Sequence[str]

    def __init__(
        self, options: Any, place: Path, examples: Iterable[tuple[str, Example]], files: Mapping[str, str]
    ) -> None:
        parts: dict[str, list[Example]] = {"train": [], "test": []}
        for part, example in examples:
            parts[part].append(example)
        for part, members in parts.items():
            labels = {example.label for example in members}
            missing = [name for label, name in enumerate(self.classes) if label not in labels]
            if missing:
                raise DataError(f"{place}: no {self.noun} of {', '.join(missing)} in {part}")
        self.files = files
        counts = {part: len(members) for part, members in parts.items()}
        self.kind = published_kind(counts, self.published)
        self.notes = count_notes(counts, self.published, self.noun)
        splits, self.left_out = hold_out(parts["train"], parts["test"], drop=options.duplicates == "drop")
        self.splits = {split: splits[split][: getattr(options, f"{split}_size")] for split in SPLITS}

    @abstractmethod
    def chunk(self, examples: list[Example]) -> Chunk:
        """The stored form of some examples."""

    def counts(self) -> Mapping[Split, int]:
        return {split: len(self.splits[split]) for split in HOLD_OUT_ORDER}

    def provenance(self) -> dict[str, Any]:
        notes = list(self.notes)
        if self.left_out:
            many = f"{len(self.left_out):,} {self.noun}"
            notes.append(f"{many} that an earlier split (test, val, train) has are left out")
        origin = {
            "kind": self.kind,
            "version": self.version,
            "files": self.files,
            "split": "val: first tenth by sha256",
        }
        return origin | {"left_out": self.left_out, "notes": notes}

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        examples = self.splits[split]
        for first in range(start, len(examples), CHUNK):
            yield self.chunk(examples[first : first + CHUNK])


def join_rows(rows: Sequence[bytes], labels: Sequence[int], notes: Sequence[int] | None = None) -> Chunk:
    """Return stored rows and their labels and notes (zeros if not given) as a chunk."""
    lengths = np.array([len(row) for row in rows])
    extra = np.zeros(len(rows)) if notes is None else np.array(notes)
    return Chunk(np.frombuffer(b"".join(rows), np.uint8), lengths, np.array(labels), extra)
