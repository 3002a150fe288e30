"""The first reading of a user's tables: every row is checked, and what the data are is found out, in bounded memory.

Rows are divided by the names of the files; those that no name divides by a hash of their input and the seed, so that
the same input is always in one split. Test and val are a tenth each of such rows.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo import ConfigError, DataError
from zoo.data.files import sha256
from zoo.data.module import SPLITS, Progress, Split
from zoo.data.splits import HOLD_OUT_ORDER
from zoo.data.tables import is_table, read_rows, where
from zoo.data.tokens import load_tokenizer
from zoo_own import columns
from zoo_own.settings import DataSettings

FIRST_ROWS = 100
"""Rows by which is guessed what inputs and labels are."""
HELD_OUT = 0.1
MAX_VOCABULARY = 1 << 20
DROPPED = len(SPLITS)
"""The code of a row that is left out, after those of the splits."""
NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
WORDS = "|".join(sorted(NAMES, key=len, reverse=True))
SPLIT_NAME = re.compile(rf"({WORDS})(?![a-z]).*|.*(?<![a-z])({WORDS})", re.IGNORECASE)


def find_tables(place: Path) -> list[Path]:
    """The tables in a folder, or the one that is named, by name."""
    if place.is_file():
        return [place]
    return sorted(path for path in place.iterdir() if path.is_file() and is_table(path) and path.name[0] not in "._")


def split_named(path: Path) -> Split | None:
    """The split that a file's name says: "train-00000.parquet", "marker_test.csv"."""
    match = SPLIT_NAME.fullmatch(path.name.split(".")[0])
    return NAMES[(match[1] or match[2]).lower()] if match else None


class TableRow(NamedTuple):
    """A row: its file and line, and its cells."""

    path: Path
    number: int
    cells: dict[str, Any]

    @property
    def where(self) -> str:
        return where(self.path, self.number)


class Scan:
    """Reads the tables and keeps what is to be known of them. Raises DataError or ConfigError.

    columns, form, kind  see zoo_own/codec.py
    splits               (rows,) uint8 code of each row, the index in SPLITS, or DROPPED
    """

    def __init__(self, place: Path, settings: DataSettings, progress: Progress) -> None:
        self.place, self.settings = place, settings
        self.paths = find_tables(place)
        named = {path: split_named(path) for path in self.paths}
        if place.is_file() or not any(named.values()):
            named = dict.fromkeys(self.paths, None)
        for path, split in named.items():
            if split is None and any(named.values()):
                other = next(path.name for path, split in named.items() if split)
                raise DataError(f"{path}: its name says no split, as that of {other} does; move one of them away")
        self.named = named
        held_out: tuple[Split, ...] = ("test", "val")
        self.held_out = [split for split in held_out if split not in named.values()]
        if any(named.values()) and "train" not in named.values():
            raise DataError(f"{place}: no file for training; expected train.jsonl, train.csv or train.parquet")
        self._guess()
        self.vocabulary: set[str] = set()
        self.classes: dict[str, str] = {}  # name -> where it was first
        self.trained: set[str] = set()
        self.longest = self.channels = self.left_out = 0
        self.moments, self.target = np.zeros((3, 1)), np.zeros(3)  # number, sum and sum of squares
        self._keys, self._numbers = array("Q"), array("Q")
        self._read(progress)

    def _guess(self) -> None:
        """Columns, form and kind, by the first rows."""
        settings = self.settings
        first = next((path for path in self.paths if self.named[path] == "train"), self.paths[0])
        rows = [row for _, row in islice(read_rows(first), FIRST_ROWS)]
        self.inputs, self.label = columns.choose_columns(settings, rows[0], first.name)
        given = [[row.get(name) for row in rows if row.get(name) is not None] for name in (*self.inputs, self.label)]
        for name, cells in zip((*self.inputs, self.label), given, strict=True):
            if not cells:
                raise DataError(f"{first}: column {name!r} is empty in the first {len(rows)} rows")
        self.form = columns.guess_form(given[0]) if settings.read == "auto" else settings.read
        pairs = len(self.inputs) == 2
        self.kind = columns.guess_kind(given[-1], pairs) if settings.kind == "auto" else settings.kind
        if pairs != (self.kind == "pair_classification"):
            expected = "one column" if pairs else "two columns, data.input=a,b"
            raise ConfigError("data.kind", f"{self.kind} needs {expected} of inputs, not {', '.join(self.inputs)}")
        if self.form == "numbers" and pairs:
            raise ConfigError("data.read", "pairs of numbers are not read; pairs are of texts or tokens")
        if self.form == "text" and self.kind == "token_classification":
            raise ConfigError("data.read", "labels for each position need tokens or numbers, not a text")

    # -- rows -------------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[TableRow]:
        """All rows in the order of the files."""
        for path in self.paths:
            for number, cells in read_rows(path):
                yield TableRow(path, number, cells)

    def cells(self, row: TableRow) -> tuple[list[Any], Any]:
        """Inputs and label of a row. Raises DataError for a column that is not there."""
        for name in (*self.inputs, self.label):
            if row.cells.get(name) is None:
                raise DataError(f"{row.where}: no {name!r}")
        return [row.cells[name] for name in self.inputs], row.cells[self.label]

    def _read(self, progress: Progress) -> None:
        codes = bytearray()
        total = sum(path.stat().st_size for path in self.paths)
        done = {path: sum(p.stat().st_size for p in self.paths[: k + 1]) for k, path in enumerate(self.paths)}
        self._files: list[tuple[Path, int]] = []
        for row in self.rows():
            if not self._files or self._files[-1][0] != row.path:
                self._files.append((row.path, len(codes)))
                progress(done[row.path] - row.path.stat().st_size, total)
            try:
                codes.append(SPLITS.index(self._take(row)))
            except (ValueError, TypeError, OverflowError) as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(f"{row.where}: {error}") from error
        progress(total, total)
        self.splits = np.frombuffer(codes, np.uint8).copy()
        self._check_duplicates()
        for code, split in enumerate(SPLITS):
            if not (self.splits == code).any():
                raise DataError(f"{self.place}: the {split} split is empty, of {len(codes)} rows; bring more")
        self._check_labels()

    def _take(self, row: TableRow) -> Split:
        """Check a row, count what it has, and return its split."""
        cells, label = self.cells(row)
        keys, tokens = [], []
        length = 0
        for name, cell in zip(self.inputs, cells, strict=True):
            try:
                key, own, parsed = self._parse(cell)
            except ValueError as error:
                raise DataError(f"{row.where}: {name}: {error}") from error
            keys.append(key)
            tokens += own
            length = max(length, len(parsed))
        digest = blake2b(b"\0".join(keys), digest_size=8)
        split = self.named[row.path] or "train"
        if split == "train":
            split = self._hold_out(digest.digest())
        self.longest = max(self.longest, length)
        try:
            self._take_label(label, length, split, row)
        except ValueError as error:
            raise DataError(f"{row.where}: {self.label}: {error}") from error
        if split == "train":
            self.vocabulary.update(tokens)
            if len(self.vocabulary) > MAX_VOCABULARY:
                raise DataError(
                    f"{row.where}: more than {MAX_VOCABULARY:,} different tokens; is it a text? data.read=text"
                )
            if self.form == "numbers":
                wide = parsed.astype(np.float64)
                self.moments = self.moments + np.stack(
                    [np.full(wide.shape[1], len(wide)), wide.sum(0), (wide**2).sum(0)]
                )
        self._keys.append(int.from_bytes(digest.digest(), "little"))
        self._numbers.append(row.number)
        return split

    def _parse(self, cell: Any) -> tuple[bytes, list[str], Any]:
        """The bytes that identify an input, its tokens, and its positions."""
        if self.form == "text":
            text = columns.read_text(cell)
            return text.encode(), [], load_tokenizer(self.settings.tokenizer).encode(text).ids
        if self.form == "tokens":
            tokens = columns.read_tokens(cell)
            return "\x1f".join(tokens).encode(), tokens, tokens
        numbers = columns.read_numbers(cell)
        self.channels = self.channels or numbers.shape[1]
        if numbers.shape[1] != self.channels:
            raise ValueError(f"{numbers.shape[1]} channels, the rows before have {self.channels}")
        return numbers.tobytes(), [], numbers

    def _take_label(self, cell: Any, length: int, split: Split, row: TableRow) -> None:
        if self.kind == "regression":
            value = columns.read_target(cell)
            if split == "train":
                self.target += (1, value, value * value)
            return
        labels = columns.read_classes(cell) if self.kind == "token_classification" else [columns.read_class(cell)]
        if self.kind == "token_classification" and len(labels) != length:
            raise ValueError(f"{len(labels)} labels for {length} positions")
        for label in set(labels):
            self.classes.setdefault(label, row.where)
        if len(self.classes) > columns.MAX_CLASSES:
            raise ValueError(
                f"more than {columns.MAX_CLASSES:,} different labels; are they numbers? data.kind=regression"
            )
        if split == "train":
            self.trained.update(labels)

    def _hold_out(self, digest: bytes) -> Split:
        seeded = blake2b(digest, key=self.settings.seed.to_bytes(8, "little"), digest_size=8).digest()
        share = int.from_bytes(seeded, "little") / 2**64
        for k, split in enumerate(self.held_out):
            if share < HELD_OUT * (k + 1):
                return split
        return "train"

    # -- faults of the whole ----------------------------------------------------------------------------------------

    def _check_duplicates(self) -> None:
        """Refuse or drop rows whose input an earlier split (test, val, train) has."""
        keys = np.frombuffer(self._keys, np.uint64)
        earlier: np.ndarray = np.empty(0, np.int64)
        for split in HOLD_OUT_ORDER:
            own = np.flatnonzero(self.splits == SPLITS.index(split))
            again = own[np.isin(keys[own], keys[earlier])] if len(earlier) else own[:0]
            if len(again) and self.settings.duplicates == "refuse":
                other = earlier[np.flatnonzero(keys[earlier] == keys[again[0]])[0]]
                name = SPLITS[self.splits[other]]
                more = f", and so have {len(again) - 1} more" if len(again) > 1 else ""
                raise DataError(
                    f"{self._place_of(again[0])} ({split}) has the same input as {self._place_of(other)} ({name})"
                    f"{more}; --set data.duplicates=drop leaves such rows out of {split}"
                )
            self.splits[again] = DROPPED
            self.left_out += len(again)
            earlier = np.concatenate([earlier, np.setdiff1d(own, again)])

    def _place_of(self, index: int) -> str:
        path = next(path for path, first in reversed(self._files) if first <= index)
        return where(path, self._numbers[index])

    def _check_labels(self) -> None:
        for label, place in self.classes.items():
            if label not in self.trained:
                raise DataError(f"{place}: {self.label}: no training row has the label {label!r}")
        if self.kind != "regression" and len(self.classes) < 2:
            only = next(iter(self.classes))
            raise DataError(
                f"{self.place}: column {self.label!r} has one class, {only!r}, in all rows: nothing to learn"
            )
        if self.kind == "regression" and self.target[2] * self.target[0] - self.target[1] ** 2 <= 0:
            raise DataError(
                f"{self.place}: column {self.label!r} has one number in all training rows: nothing to learn"
            )

    # -- what was found ---------------------------------------------------------------------------------------------

    def codec(self) -> dict[str, Any]:
        """The codec of the data (zoo_own/codec.py)."""
        mean, scale = _mean_and_scale(self.moments) if self.form == "numbers" else ([], [])
        target = (
            [part[0] for part in _mean_and_scale(self.target[:, None])] if self.kind == "regression" else [0.0, 1.0]
        )
        return {
            "columns": {"input": list(self.inputs), "label": self.label},
            "form": self.form,
            "kind": self.kind,
            "classes": columns.sorted_names(list(self.classes)),
            "vocabulary": columns.sorted_names(list(self.vocabulary)),
            "tokenizer": self.settings.tokenizer if self.form == "text" else "",
            "mean": mean,
            "scale": scale,
            "target": target,
        }

    def files(self) -> dict[str, str]:
        """Checksums of the files."""
        return {path.name: sha256(path) for path in self.paths}


def _mean_and_scale(moments: np.ndarray) -> tuple[list[float], list[float]]:
    """Of (3, C) numbers, sums and sums of squares; a channel that never changes has the scale 1."""
    n, total, squares = moments
    mean = total / n
    deviation = np.sqrt(np.maximum(squares / n - mean**2, 0))
    return mean.tolist(), np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-30), deviation, 1.0).tolist()


def describe_splits(scan: Scan, counts: Sequence[int]) -> str:
    """How many rows each split has, and why."""
    numbers = ", ".join(f"{n:,} {split}" for split, n in zip(SPLITS, counts, strict=True))
    held_out = " and ".join(scan.held_out)
    how = f"{held_out} by a hash of each input, seed {scan.settings.seed}" if held_out else "by the names of the files"
    return f"{numbers} ({how})" + (f"; {scan.left_out} left out, in an earlier split too" if scan.left_out else "")
