"""Text: is a film review of IMDB positive? Bytes; 2 classes.

ids as Long Range Arena has them: 0 = padding, byte b -> b + 1, 257 = end of sequence, only with `task.eos`; with
`task.tokens=characters` those of characters.py. Reviews longer than the task lose their end. The published set has no
validation split: ours is a tenth of train.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from zoo import DataError
from zoo.data.files import check_sha256, combined_sha256, decode_utf8, may_hold, read_archive, read_file
from zoo.data.module import Split
from zoo.data.store import Chunk
from zoo_lra import parquet
from zoo_lra.characters import CharacterDecoder, count_characters
from zoo_lra.needs import IMDB_ARCHIVE, TEXT
from zoo_lra.options import TextOptions
from zoo_lra.published import Example, FilesData, HoldOutRecipe, join_rows

EOS = 257
CHECKSUMS = {IMDB_ARCHIVE.name: IMDB_ARCHIVE.sha256}
ARCHIVES = (IMDB_ARCHIVE.name, "aclImdb.tar.gz")
CLASSES = {"neg": (0, range(1, 5)), "pos": (1, range(7, 11))}
"""Folder -> label and the ratings that belong there."""
NAME = re.compile(r"(?:.*/)?(train|test)/(neg|pos)/([^/]+\.txt)$")
REVIEW = re.compile(r"\d+_(\d+)\.txt")
LIMIT = 1 << 20
"""No review is a megabyte long; the longest published one has 14 kB."""


@dataclass(frozen=True)
class ByteDecoder:
    """Bytes of a text -> ids (L,), L <= seq_len."""

    seq_len: int
    eos: bool

    def __call__(self, row: np.ndarray) -> np.ndarray:
        """row (n,) uint8 -> ids (L,) int16"""
        ids = row[: self.seq_len - self.eos].astype(np.int16) + 1
        return np.append(ids, np.int16(EOS)) if self.eos else ids


class Reviews(HoldOutRecipe):
    """The reviews of a folder aclImdb, of its archive, or of parquet files."""

    version = "2"
    noun = "reviews"
    published: Mapping[str, int] = {"train": 25_000, "test": 25_000}
    classes = tuple(CLASSES)

    def __init__(self, options: TextOptions, place: Path) -> None:
        if place.is_file():
            examples = [_check_review(place, *member) for member in read_archive(place, _is_review, LIMIT)]
            files = {place.name: check_sha256(place, CHECKSUMS)}
        elif _has_folders(place):
            examples = [_check_review(place, *member) for member in _read_folder(place)]
            files = {"aclImdb": combined_sha256((e.where, e.key) for _, e in examples)}
        else:
            examples = list(_read_parquet(place))
            files = {path.name: check_sha256(path, {}) for _, path in parquet.find_splits(place)}
        super().__init__(options, place, examples, files)

    def chunk(self, examples: list[Example]) -> Chunk:
        ratings = [_rating(e.where) for e in examples]
        return join_rows([e.contents for e in examples], [e.label for e in examples], ratings)


def _check_review(place: Path, name: str, contents: bytes) -> tuple[str, Example]:
    """Return (train or test, review). Raises DataError."""
    match = NAME.match(name)
    assert match is not None  # as _is_review
    part, folder, file = match.groups()
    where = f"{part}/{folder}/{file}"
    rating = REVIEW.fullmatch(file)
    label, ratings = CLASSES[folder]
    if rating is None or int(rating[1]) not in ratings:
        raise DataError(f"{place}: {where}: expected NUMBER_RATING.txt with a rating of {ratings[0]} to {ratings[-1]}")
    if not contents.strip():
        raise DataError(f"{place}: {where} is empty")
    contents = decode_utf8(contents, f"{place}: {where}").encode()
    return part, Example(where, sha256(contents).digest(), label, contents)


def _read_parquet(place: Path) -> Iterator[tuple[str, Example]]:
    for part, path in parquet.find_splits(place):
        for i, text, label in parquet.read_rows(path, ("text",), len(CLASSES), IMDB_ARCHIVE.name):
            where = f"{path.name} row {i}"
            if not isinstance(text, str) or not text.strip():
                raise DataError(f"{place}: {where} is empty")
            contents = text.encode("utf-8")
            if len(contents) > LIMIT:
                raise DataError(f"{place}: {where} has {len(contents):,} bytes, expected at most {LIMIT:,}")
            yield part, Example(where, sha256(contents).digest(), label, contents)


def _rating(where: str) -> int:
    """The rating in the name of a review, 0 where it is unknown (parquet)."""
    match = REVIEW.fullmatch(where.rpartition("/")[2])
    return int(match[1]) if match else 0


def _folders(place: Path) -> list[Path]:
    folders = [place / part / name for part in ("train", "test") for name in CLASSES]
    return [folder for folder in folders if folder.is_dir()]


def _has_folders(place: Path) -> bool:
    return bool(_folders(place))


def _is_review(name: str) -> bool:
    return NAME.match(name) is not None and not name.rpartition("/")[2].startswith(".")


def _read_folder(place: Path) -> Iterator[tuple[str, bytes]]:
    for folder in _folders(place):
        for path in sorted(folder.glob("*.txt")):
            name = f"{folder.parent.name}/{folder.name}/{path.name}"
            if _is_review(name):
                yield name, read_file(path, LIMIT)


class TextData(FilesData):
    """Data of the task `text`."""

    name, reader = "text", Reviews.version
    names = (
        "aclImdb",
        *(f"{folder}{name}" for folder in ("", "aclImdb/") for name in ARCHIVES),
        "imdb",
        "imdb/plain_text",
    )
    layout = "{train,test}/{pos,neg}, aclImdb_v1.tar.gz or {train,test}*.parquet"
    needs = TEXT
    input_columns = ("text",)
    options: TextOptions

    def encode(self, values: Sequence[Any]) -> np.ndarray:
        text = values[0]
        if not isinstance(text, str) or not text:
            raise ValueError("expected a text")
        return self.decoder()(np.frombuffer(text.encode("utf-8"), np.uint8))

    def accepts(self, place: Path) -> bool:
        if place.is_file():
            return may_hold(place, "imdb", _is_review)
        return _has_folders(place) or parquet.is_dataset(place, "imdb")

    def input_files(self, place: Path) -> Iterable[Path]:
        return _folders(place) or ([path for _, path in parquet.find_splits(place)] if place.is_dir() else [place])

    def recipe(self) -> Reviews:
        return Reviews(self.options, self.place())

    def decoder(self) -> ByteDecoder | CharacterDecoder:
        decoder = CharacterDecoder if self.options.tokens == "characters" else ByteDecoder
        return decoder(self.options.seq_len, self.options.eos)

    def lengths(self, split: Split) -> np.ndarray:
        stored = self.stored(split)
        if self.options.tokens == "characters":
            return count_characters(stored.data, stored.ends) + self.options.eos
        return np.diff(stored.ends, prepend=0) + self.options.eos

    def write_published(self, folder: Path, counts: Mapping[Split, int]) -> list[str]:
        """Write {train,test}/{neg,pos}/ID_RATING.txt; val belongs to train there. An unknown rating (parquet) becomes
        the one next to the line between the classes."""
        names = {label: (name, ratings) for name, (label, ratings) in CLASSES.items()}
        last: dict[tuple[str, str], int] = {}
        for split, count in counts.items():
            stored, part = self.stored(split), "test" if split == "test" else "train"
            for i in range(count):
                name, ratings = names[int(stored.labels[i])]
                place = folder / part / name
                place.mkdir(parents=True, exist_ok=True)
                nearest = ratings[-1] if name == "neg" else ratings[0]
                number = last[part, name] = last.get((part, name), -1) + 1
                path = place / f"{number}_{int(stored.notes[i]) or nearest}.txt"
                path.write_bytes(stored.row(i).tobytes())
        return ["test", "train"]

    def view(self, split: Split, i: int) -> str:
        room = self.options.seq_len - self.options.eos
        if self.options.tokens == "characters":
            text = bytes(self.stored(split).row(i)).decode("utf-8")
            return mark_cut(text[:room], text[room:])
        return view_bytes(self.stored(split).row(i), room)


def mark_cut(kept: str, lost: str) -> str:
    """A text with a mark where the model's copy ends."""
    return f"{kept} ‖cut here‖ {lost}" if lost else kept


def view_bytes(row: np.ndarray, room: int) -> str:
    """The bytes of a text as a person reads them, with a mark after `room` bytes."""
    return mark_cut(*(bytes(part).decode("utf-8", "replace") for part in (row[:room], row[room:])))
