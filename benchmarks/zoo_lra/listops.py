"""ListOps: evaluate a nested expression over digits; 10 classes.

Tokens as Long Range Arena has them: parentheses are dropped, "]" is a token, so that there are 15 symbols; ids are
0 = padding, 1 … 15 the symbols (a fixed order, see listops_generator.TOKENS), 16 = end of sequence, only with
`task.eos`. Regenerated data never hold an expression twice, within a split or across splits.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from zoo import ConfigError, DataError
from zoo.data.files import read_lines, sha256
from zoo.data.module import SPLITS, Split
from zoo.data.parallel import map_ranges
from zoo.data.rng import key
from zoo.data.splits import HOLD_OUT_ORDER, published_kind
from zoo.data.store import Chunk, Rows
from zoo_lra.listops_generator import EOS, IDS, TOKENS, VERSION, evaluate, to_published, trees
from zoo_lra.options import ListOpsOptions
from zoo_lra.published import GeneratedOrFilesData, join_rows

ROWS = {"train": 96_000, "val": 2_000, "test": 2_000}
CHUNK = 512
LINE_LIMIT = 1 << 22
"""Bytes; the longest published row has about 40,000."""
BRACKETS = {"(": 17, ")": 18}
"""Ids of the parentheses, with `task.brackets`."""


@dataclass
class GeneratedExpressions:
    """Expressions from the generator. Implements zoo.data.store.Recipe.

    A duplicate is replaced in the later split (test, val, train), so that test examples do not depend on the other
    splits' sizes.
    """

    options: ListOpsOptions

    def settings(self) -> dict[str, int]:
        o = self.options
        return {"min_len": o.min_len, "max_len": o.max_len, "max_depth": o.max_depth, "max_args": o.max_args}

    def counts(self) -> Mapping[Split, int]:
        return {split: getattr(self.options, f"{split}_size") for split in HOLD_OUT_ORDER}

    def provenance(self) -> dict[str, Any]:
        return {"kind": "regenerated", "version": VERSION, "seed": self.options.data_seed, "settings": self.settings()}

    def draw(self, split: Split, first: int, count: int, skip: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the candidates [first, first + count) of a split, of each stream the one after `skip` others."""
        family = key("lra/listops", VERSION, self.options.data_seed, split)
        try:
            return trees(family, first, count, skip=skip, **self.settings())
        except ValueError as error:
            raise ConfigError("task.max_len", str(error)) from error

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        seen = {_digest(row) for earlier in HOLD_OUT_ORDER for row in rows(earlier)}
        first = start
        for ids, lengths, labels in map_ranges(partial(self.draw, split), start, self.counts()[split], CHUNK):
            examples = np.split(ids, np.cumsum(lengths)[:-1])
            for i, example in enumerate(examples):
                skip = 0
                while _digest(example) in seen:
                    skip += 1
                    if skip > 100_000:
                        limits = self.settings()
                        raise ConfigError("task.train_size", f"too few expressions within {limits} to fill {split}")
                    example, lengths[i : i + 1], labels[i : i + 1] = self.draw(split, first + i, 1, skip)
                seen.add(_digest(example))
                examples[i] = example
            first += len(lengths)
            yield Chunk(np.concatenate(examples), lengths, labels, np.zeros(len(lengths), np.uint8))


def _digest(row: np.ndarray) -> bytes:
    return blake2b(row.tobytes(), digest_size=16).digest()


class PublishedExpressions:
    """Expressions of the published basic_{train,val,test}.tsv. Implements zoo.data.store.Recipe."""

    version = "1"
    """Raised when the same files would give other examples."""

    def __init__(self, options: ListOpsOptions, folder: Path) -> None:
        self.files = {split: folder / f"basic_{split}.tsv" for split in SPLITS}
        self.rows: dict[Split, int] = {}
        owner: dict[bytes, tuple[str, Split]] = {}
        for split, path in self.files.items():
            self.rows[split] = 0
            for where, source, _ in _read_rows(path):
                self.rows[split] += 1
                first = owner.setdefault(blake2b(source.encode(), digest_size=16).digest(), (where, split))
                if first[1] != split:  # the published files hold no expression twice
                    raise DataError(f"{where}: the same expression as {first[0]}")
        for split, path in self.files.items():
            if not self.rows[split]:
                raise DataError(f"{path}: no rows")
        self.sizes = {split: min(getattr(options, f"{split}_size"), self.rows[split]) for split in SPLITS}

    def counts(self) -> Mapping[Split, int]:
        return self.sizes

    def provenance(self) -> dict[str, Any]:
        notes = [
            f"{self.files[split].name} has {n:,} rows, the published one {ROWS[split]:,}"
            for split, n in self.rows.items()
            if n != ROWS[split]
        ]
        files = {path.name: sha256(path) for path in self.files.values()}
        return {"kind": published_kind(self.rows, ROWS), "version": self.version, "files": files, "notes": notes}

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        examples = islice(_read_rows(self.files[split]), start, self.sizes[split])
        while chunk := [_check_row(*row) for row in islice(examples, CHUNK)]:
            yield join_rows([ids.tobytes() for ids, _ in chunk], [value for _, value in chunk])


def _check_row(where: str, source: str, target: str) -> tuple[np.ndarray, int]:
    """Return the ids and the value of a published row. Raises DataError."""
    ids = _ids(where, source)
    value = evaluate(ids)
    if value < 0:
        raise DataError(f"{where}: not a whole expression")
    if target != str(value):
        raise DataError(f"{where}: labelled {target!r}, but the expression is {value}")
    return ids, value


def _read_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (where, Source, Target) of every row; line ends CRLF or LF, columns in any order."""
    head: list[str] = []
    for number, line in read_lines(path, LINE_LIMIT):
        where, fields = f"{path}:{number}", line.split("\t")
        if number == 1:
            head = [name.strip() for name in fields]
            if not {"Source", "Target"} <= set(head):
                raise DataError(f"{where}: expected a header with the columns Source and Target, got {line[:80]!r}")
        elif line:
            if len(fields) != len(head):
                raise DataError(f"{where}: {len(fields)} columns, expected {len(head)}")
            yield where, fields[head.index("Source")], fields[head.index("Target")].strip()


def _ids(where: str, source: str) -> np.ndarray:
    """Token ids of a row without its parentheses, (n,) uint8."""
    tokens = [token for token in source.split() if token not in "()"]
    try:
        return np.array([IDS[token] for token in tokens], np.uint8)
    except KeyError as error:
        raise DataError(f"{where}: unknown token {error.args[0]!r}") from None


@dataclass(frozen=True)
class Decoder:
    """Cut to the task's length; add the end token."""

    seq_len: int
    eos: bool
    brackets: bool

    def __call__(self, row: np.ndarray) -> np.ndarray:
        """row (n,) -> ids (L,) uint8, L <= seq_len"""
        if self.brackets:
            row = np.array([BRACKETS.get(t) or IDS[t] for t in to_published(row).split()], np.uint8)
        return np.append(row[: self.seq_len - 1], np.uint8(EOS)) if self.eos else row[: self.seq_len]


class ListOpsData(GeneratedOrFilesData):
    """Data of the task `listops`."""

    name, version, reader = "listops", VERSION, PublishedExpressions.version
    options: ListOpsOptions

    def find_published(self) -> Path | None:
        return self.find(
            ("listops-1000", "listops"),
            lambda folder: any((folder / f"basic_{split}.tsv").is_file() for split in SPLITS),
            "basic_{train,val,test}.tsv",
        )

    def input_files(self, folder: Path) -> Iterable[Path]:
        return sorted(folder.glob("basic_*.tsv"))

    def generator(self) -> GeneratedExpressions:
        return GeneratedExpressions(self.options)

    def published(self, folder: Path) -> PublishedExpressions:
        return PublishedExpressions(self.options, folder)

    def decoder(self) -> Decoder:
        return Decoder(self.options.seq_len, self.options.eos, self.options.brackets)

    def lengths(self, split: Split) -> np.ndarray:
        n = np.diff(self.stored(split).ends, prepend=0)
        return (3 * n - 2 if self.options.brackets else n) + self.options.eos

    def view(self, split: Split, i: int) -> str:
        return " ".join((*TOKENS, *BRACKETS)[token] for token in self.dataset(split)[i][0])

    def provenance(self) -> dict[str, Any]:
        provenance = super().provenance()
        cut = sum(int((self.lengths(split) > self.options.seq_len).sum()) for split in SPLITS)
        if cut:
            note = f"{cut:,} expressions are longer than task.seq_len={self.options.seq_len} and lose their end"
            provenance["notes"] = [*provenance.get("notes", ()), note]
        return provenance

    def write_published(self, folder: Path, counts: Mapping[Split, int]) -> list[str]:
        names = []
        for split, count in counts.items():
            stored = self.stored(split)
            path = folder / f"basic_{split}.tsv"
            with path.open("w", encoding="ascii", newline="") as file:
                writer = csv.writer(file, delimiter="\t")  # CRLF line ends, as published
                writer.writerow(["Source", "Target"])
                for i in range(count):
                    writer.writerow([to_published(stored.row(i)), int(stored.labels[i])])
            names.append(path.name)
        return names
