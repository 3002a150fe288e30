"""Retrieval from books: do two passages come from the same book? Bytes; 2 classes, two towers.

The form and the lengths of Retrieval, made from any folder of books as of PG-19; not AAN, and no score of it is AAN's.
No book is in two splits. Where the folder has train/, validation/ and test/ with at least two books each, those are the
splits; else all books together are divided: in the order of the sha256 of their text the first tenth, two at least, is
test, the next val, the rest train. Every run of white space is one blank, so that line widths give nothing away.
A pair: its label is a fair coin, its books are drawn uniformly from the split, its passages from the book, cut into
pieces of the passage's length; two passages of one book are never the same piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo import DataError
from zoo.data.cached import hashed_name
from zoo.data.files import combined_sha256, decode_utf8, file_stamps, read_file
from zoo.data.module import Split
from zoo.data.parallel import map_ranges
from zoo.data.rng import below, key, start
from zoo.data.splits import HOLD_OUT_ORDER, drop_duplicates
from zoo.data.store import Chunk, Rows
from zoo_lra import pairs
from zoo_lra.needs import BOOKS
from zoo_lra.options import BooksOptions
from zoo_lra.published import Example

VERSION = "1"
"""Raised when the same books and seed would give other pairs."""
FOLDERS: dict[Split, str] = {"train": "train", "val": "validation", "test": "test"}
MIN_BOOKS = 2
"""Books of a split: two passages of different books need two."""
MIN_PASSAGES = 2
BOOK_LIMIT = 1 << 26
CHUNK = 64


class Book(NamedTuple):
    """A book and how many passages it has."""

    path: Path
    passages: int


def read_book(path: Path) -> bytes:
    """Return a book with every run of white space as one blank. Raises DataError that names the file."""
    return _read_book(path, path.stat().st_size, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read_book(path: Path, size: int, changed: int) -> bytes:
    text = b" ".join(decode_utf8(read_file(path, BOOK_LIMIT), path).encode().split())
    if not text:
        raise DataError(f"{path}: empty")
    return text


class BookPairs:
    """Pairs of passages from one folder. Implements zoo.data.store.Recipe."""

    def __init__(self, options: BooksOptions, folder: Path) -> None:
        self.options = options
        self.length = options.seq_len - options.eos
        short: list[str] = []
        splits: dict[Split, list[Example]] = {split: [] for split in FOLDERS}
        for split, path in _list_books(folder):
            text = read_book(path)
            where = path.relative_to(folder).as_posix()
            if len(text) < MIN_PASSAGES * self.length:
                short.append(f"{where}: {len(text):,} bytes, shorter than two passages")
            else:
                splits[split].append(Example(where, sha256(text).digest(), 0, Book(path, len(text) // self.length)))
        self.files = combined_sha256((e.where, e.key) for part in splits.values() for e in part)
        unique, duplicates = drop_duplicates(splits, within=True)
        self.left_out = short + duplicates
        self.divided = any(len(part) < MIN_BOOKS for part in unique.values())
        if self.divided:
            unique = _divide([e for part in unique.values() for e in part], folder)
        self.books = {split: [e.contents for e in sorted(part)] for split, part in unique.items()}

    def counts(self) -> Mapping[Split, int]:
        return {split: getattr(self.options, f"{split}_size") for split in HOLD_OUT_ORDER}

    def provenance(self) -> dict[str, Any]:
        books = {split: len(part) for split, part in self.books.items()}
        notes = [f"{books['train']:,} books for training, {books['val']:,} for validation, {books['test']:,} for test"]
        if self.divided:
            notes.append("the folder's own splits have fewer than two books, so all books were divided anew")
        if self.left_out:
            notes.append(f"{len(self.left_out):,} books are too short or there twice and left out")
        origin = {"kind": "regenerated", "version": VERSION, "seed": self.options.data_seed}
        origin |= {"files": {"books": self.files}, "books": books, "passage": self.length}
        return origin | {"left_out": self.left_out, "notes": notes}

    def draw(self, split: Split, first: int, count: int) -> Chunk:
        """Return the pairs [first, first + count) of a split."""
        family = key("lra/retrieval_books", VERSION, self.options.data_seed, split)
        drawn = [self._pair(family, split, i) for i in range(first, first + count)]
        return pairs.pack([(a, b) for a, b, _ in drawn], [label for _, _, label in drawn])

    def _pair(self, family: np.uint64, split: Split, i: int) -> tuple[bytes, bytes, int]:
        books = self.books[split]
        stream = np.zeros(1, np.uint64)
        start(stream, family, i)
        label = int(below(stream, 2))
        one = int(below(stream, len(books)))
        p = int(below(stream, books[one].passages))
        if label:
            other, q = one, int(below(stream, books[one].passages - 1))
            q += q >= p
        else:
            other = int(below(stream, len(books) - 1))
            other += other >= one
            q = int(below(stream, books[other].passages))
        return self._passage(books[one], p), self._passage(books[other], q), label

    def _passage(self, book: Book, p: int) -> bytes:
        return read_book(book.path)[p * self.length : (p + 1) * self.length]

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        yield from map_ranges(partial(self.draw, split), start, self.counts()[split], CHUNK)


def _list_books(folder: Path) -> list[tuple[Split, Path]]:
    """Return (split, book), sorted by name; those that lie in no split's folder count as train's."""
    books: list[tuple[Split, Path]] = [("train", path) for path in sorted(folder.glob("*.txt"))]
    for split, name in FOLDERS.items():
        books += [(split, path) for path in sorted((folder / name).glob("*.txt"))]
    return books


def _divide(books: list[Example], folder: Path) -> dict[Split, list[Example]]:
    ordered = sorted(books, key=lambda e: e.key)
    part = max(MIN_BOOKS, len(ordered) // 10)
    if len(ordered) < 3 * MIN_BOOKS:
        needed = f"expected at least {3 * MIN_BOOKS}: every split needs two"
        raise DataError(f"{folder}: {len(ordered)} books that are long enough, {needed}")
    return {"test": ordered[:part], "val": ordered[part : 2 * part], "train": ordered[2 * part :]}


class BooksData(pairs.PairData):
    """Data of the task `retrieval_books`."""

    name, suite = "retrieval_books", "books"
    names = ("pg19", "pg-19", "pg19-like", "deepmind-gutenberg", "books")
    layout = "{train,validation,test}/*.txt"
    needs = BOOKS
    options: BooksOptions

    def accepts(self, place: Path) -> bool:
        return place.is_dir() and bool(_list_books(place))

    def input_files(self, place: Path) -> Iterable[Path]:
        return [path for _, path in _list_books(place)]

    def folder_name(self) -> str:
        place, o = self.place(), self.options
        files = [[split, *file_stamps([path])[0]] for split, path in _list_books(place)]
        values = {"version": VERSION, "place": str(place.resolve()), "files": files, "seed": o.data_seed}
        values |= {"counts": [o.train_size, o.val_size, o.test_size], "length": o.seq_len - o.eos}
        return hashed_name(f"regenerated-{VERSION}-seed{o.data_seed}", values)

    def recipe(self) -> BookPairs:
        return BookPairs(self.options, self.place())

    def write_published(self, folder: Path, counts: Mapping[Split, int]) -> list[str]:
        """Write the columns of AAN's files, label, two ids, two texts as bytes literals, under a name of their own."""
        names = []
        for split, count in counts.items():
            stored = self.stored(split)
            path = folder / f"book_pairs.{'eval' if split == 'val' else split}.tsv"
            with path.open("wb") as file:
                for i in range(count):
                    one, two = (repr(text.tobytes()) for text in pairs.unpack(stored.row(i)))
                    label = float(stored.labels[i])
                    file.write(f"{label}\t{split}-{i}-1\t{split}-{i}-2\t{one}\t{two}\n".encode("ascii"))
            names.append(path.name)
        return names
