"""A text corpus, from the user's files to a folder of tokens that is mapped into memory.

What is read, each found by its form:

    a WikiText folder   wiki.{train,valid,test}.tokens (or .raw), or {train,valid,test}.txt; a document is an article,
                        which begins where a line " = Title = " stands between two empty lines
    a folder of books   {train,validation,test}/*.txt as of PG-19, or *.txt; a document is a book
    a file              any text; a document is an article where the file has such headings, else a stretch of
                        paragraphs

Where there are no splits, documents are held out in the order of their sha256 with the seed: a twentieth, one at
least, is test, the next val (of a flat folder of books a tenth each). In a file without articles the stretches that are
drawn so are of about a two-hundredth of the file, and what is left between two of them is one document again. A text
that an earlier split (test, val, train) has too is left out.

The files are read twice, block by block, and never held whole: once to check them and to find the documents, once to
turn them into tokens. A row of the prepared folder is a block of a document: its n tokens in the smallest type that
holds them, then two bitmaps, the first with a bit where a word begins, the second where it ends (n % 8 is the row's
label). A word here is a blank and letters, perhaps with an apostrophe or hyphen within, whose edges are edges of
tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.data.cache import Chunk, Rows, Stored
from zoo.data.finding import listing
from zoo.data.module import SPLITS, Progress, Split
from zoo.data.tokens import Encoded, Tokenizer, dtype_of
from zoo.spec.errors import DataError

READER = "1"
"""Raised when the same files would give other tokens, documents or splits."""
ORDER: tuple[Split, ...] = ("test", "val", "train")
FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}
LONGEST_LINE = 1 << 20
BLOCK = 1 << 18
"""Bytes of text that are turned into tokens at once; a longer document has several blocks."""
STRETCHES = 200
SMALLEST_STRETCH = 512
MANY = 32
"""More files than this go into a record as one sum over all of them."""
BEGINS, UNKNOWN, LOST = 1, 2, 4
"""Bits of a row's note: a document begins here; a token stands for what the tokeniser does not know; a character that
is not white space is in no token."""
HEADING = re.compile(rb" = (?!= ).+ = \s*")


class Block(NamedTuple):
    """Bytes [start, stop) of a file; `begins` where a document does."""

    path: Path
    start: int
    stop: int
    begins: bool


@dataclass
class Document:
    """One text.

    where    file, or file:line
    key      sha256 of its bytes
    words    what white space separates; in articles also the end of every line, as WikiText is counted
    runs_on  it goes on from the document before it in the file
    """

    where: str
    key: bytes
    blocks: list[Block]
    words: int
    bytes: int
    runs_on: bool = False


class Layout(NamedTuple):
    """The files of a corpus.

    form   "wikitext", "books" or "file"
    files  per split; all under "train" where the files are in no splits
    """

    form: str
    folder: Path
    files: Mapping[Split, tuple[Path, ...]]

    @property
    def divided(self) -> bool:
        """Whether the files come in splits."""
        return all(self.files[split] for split in ORDER)


def wikitext(folder: Path) -> Layout | None:
    """The folder as one of WikiText, or None."""
    if not folder.is_dir():
        return None
    found: dict[Split, tuple[Path, ...]] = {}
    for split, names in FOLDERS.items():
        forms = [f.format(name) for f in ("wiki.{}.tokens", "wiki.{}.raw", "{}.txt") for name in names]
        there = [folder / form for form in forms if (folder / form).is_file()][:1]
        if not there:
            return None
        found[split] = tuple(there)
    return Layout("wikitext", folder, found)


def books(folder: Path) -> Layout | None:
    """The folder as one of books, or None. Where a split has none, all books together are divided."""
    if not folder.is_dir():
        return None
    found: dict[Split, tuple[Path, ...]] = {}
    for split, names in FOLDERS.items():
        found[split] = tuple(path for name in names for path in _texts(folder / name))
    loose = _texts(folder)
    if not any(found.values()) and not loose:
        return None
    if loose or not all(found.values()):
        every = sorted({*loose, *(path for part in found.values() for path in part)})
        found = {"train": tuple(every), "val": (), "test": ()}
    return Layout("books", folder, found)


def layout(place: Path) -> Layout | None:
    """What lies there, or None."""
    if place.is_file():
        return Layout("file", place.parent, {"train": (place,), "val": (), "test": ()})
    return wikitext(place) or books(place)


def _texts(folder: Path) -> list[Path]:
    # the passages of LAMBADA are no corpus
    return sorted(p for p in folder.glob("*.txt") if p.is_file() and not p.name.startswith(("lambada", ".")))


# -- documents -------------------------------------------------------------------------------------------------------


class Meter:
    """sha256 of a file as it is read, and a bar for the person who waits."""

    def __init__(self, done: int, total: int, progress: Progress) -> None:
        self.sum, self.done, self.total, self.progress = sha256(), done, total, progress
        self.shown = done

    def update(self, text: bytes) -> None:
        """Called with every line."""
        self.sum.update(text)
        self.done += len(text)
        if self.done - self.shown > BLOCK:
            self.progress(self.done, self.total)
            self.shown = self.done


class _Line(NamedTuple):
    number: int
    start: int
    text: bytes


@dataclass
class _Open:
    """A document under way."""

    where: str
    path: Path
    start: int
    blocks: list[Block] = field(default_factory=list)
    key: Any = field(default_factory=sha256)
    words: int = 0
    stop: int = 0

    def take(self, line: _Line, ends: bool) -> None:
        begin = self.blocks[-1].stop if self.blocks else self.start
        if self.stop > begin and line.start + len(line.text) - begin > BLOCK:
            self.blocks.append(Block(self.path, begin, self.stop, not self.blocks))
        self.key.update(line.text)
        self.words += len(line.text.split()) + ends
        self.stop = line.start + len(line.text)

    def close(self) -> Document:
        begin = self.blocks[-1].stop if self.blocks else self.start
        blocks = [*self.blocks, Block(self.path, begin, self.stop, not self.blocks)]
        return Document(self.where, self.key.digest(), blocks, self.words, self.stop - self.start)


def _lines(path: Path, meter: Meter) -> Iterator[_Line]:
    """The lines of a file, checked, with their ends; `meter` hears of each."""
    number = start = 0
    with path.open("rb") as file:
        while text := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(text) > LONGEST_LINE:
                raise DataError(
                    f"{path}:{number}: a line of more than {LONGEST_LINE:,} bytes; break it, such as with"
                    f" fold -s -w 1000 {path.name}"
                )
            try:
                text.decode("utf-8")
            except UnicodeDecodeError as error:
                hint = f"; if it is Latin-1: iconv -f latin1 -t utf8 {path.name}"
                raise DataError(f"{path}:{number}: byte {start + error.start} is not UTF-8{hint}") from error
            meter.update(text)
            yield _Line(number, start, text)
            start += len(text)


def articles(path: Path, meter: Meter) -> Iterator[Document]:
    """The articles of a file in WikiText's form. What stands before the first heading belongs to the first."""
    current: _Open | None = None
    before, held = b"", None
    blank = True  # nothing but white space in the current document so far

    def take(line: _Line, after: bytes) -> Document | None:
        nonlocal current, before, blank
        done = None
        heading = HEADING.fullmatch(line.text) and not before.strip() and not after.strip()
        if current is None or (heading and not blank):
            done = current.close() if current is not None else None
            current, blank = _Open(f"{path}:{line.number}", path, line.start), True
        current.take(line, True)
        blank = blank and not line.text.strip()
        before = line.text
        return done

    for line in _lines(path, meter):
        if held is not None and (done := take(held, line.text)) is not None:
            yield done
        held = line
    if held is not None and (done := take(held, b"")) is not None:
        yield done
    if current is not None and not blank:
        yield current.close()


def stretches(path: Path, meter: Meter, least: int) -> Iterator[Document]:
    """A file as stretches of at least so many bytes that end where a paragraph does, or, when there is none for as
    long again, a line."""
    current: _Open | None = None
    for line in _lines(path, meter):
        if current is None:
            current = _Open(f"{path}:{line.number}", path, line.start)
        current.take(line, False)
        size = current.stop - current.start
        if size >= 2 * least or (size >= least and not line.text.strip()):
            yield replace(current.close(), runs_on=current.start > 0)
            current = None
    if current is not None:
        yield replace(current.close(), runs_on=current.start > 0)


def book(path: Path, meter: Meter) -> Document:
    """A file as one document."""
    current = _Open(str(path), path, 0)
    for line in _lines(path, meter):
        current.take(line, False)
    return current.close()


@dataclass
class Scanned:
    """The documents of a corpus in the order of the files, and what the record tells of them."""

    documents: dict[Split, list[Document]]
    files: dict[str, str]
    left_out: list[str]
    notes: list[str]


def scan(found: Layout, seed: int, progress: Progress) -> Scanned:
    """Read and check all files. Raises DataError that names file and line."""
    total = sum(path.stat().st_size for part in found.files.values() for path in part)
    done = 0
    sums: list[tuple[str, bytes]] = []
    given: dict[Split, list[Document]] = {split: [] for split in ORDER}
    for split in ORDER:
        for path in found.files[split]:
            meter = Meter(done, total, progress)
            part = list(_read(found, path, meter))
            if not any(document.words for document in part):
                raise DataError(f"{path}: empty")
            given[split] += part
            sums.append((path.relative_to(found.folder).as_posix(), meter.sum.digest()))
            done = meter.done
    files = {name: key.hex() for name, key in sums}
    if len(files) > MANY:
        files = {f"{len(sums)} files": listing(sums)}
    left_out: list[str] = []
    notes: list[str] = []
    if found.divided:
        given, left_out = _once(given)
    else:
        given = _hold_out(given["train"], found, seed)
        notes.append("the files are in no splits: documents are held out by sha256 and task.data_seed")
    amounts = []
    for split in SPLITS:
        part = given[split]
        if not part:
            raise DataError(f"{found.folder}: nothing for {split}")
        words, size = sum(d.words for d in part), sum(d.bytes for d in part)
        amounts.append(f"{split} {len(part):,} documents of {words:,} words, {size:,} bytes")
    notes.append("; ".join(amounts))
    if left_out:
        notes.append(f"{len(left_out):,} texts that an earlier split (test, val, train) has are left out")
    return Scanned(given, files, left_out, notes)


def _read(found: Layout, path: Path, meter: Meter) -> Iterator[Document]:
    if found.form == "books":
        yield book(path, meter)
    elif found.form == "wikitext":
        yield from articles(path, meter)
    else:
        part = list(articles(path, Meter(0, 0, lambda done, total: None)))
        least = min(max(path.stat().st_size // STRETCHES, SMALLEST_STRETCH), BLOCK)
        once_more = stretches(path, meter, least) if len(part) < 3 else articles(path, meter)
        yield from once_more


def _once(given: Mapping[Split, list[Document]]) -> tuple[dict[Split, list[Document]], list[str]]:
    owner: dict[bytes, tuple[Split, str]] = {}
    kept: dict[Split, list[Document]] = {}
    left_out = []
    for split in ORDER:
        kept[split] = []
        for document in given[split]:
            first = owner.setdefault(document.key, (split, document.where))
            if first[0] == split:
                kept[split].append(document)
            else:
                left_out.append(f"{document.where} ({split}): the same as {first[1]} ({first[0]})")
    return kept, left_out


def _hold_out(documents: list[Document], found: Layout, seed: int) -> dict[Split, list[Document]]:
    """Splits of what has none. The same text twice lands in one split."""
    keys = sorted({d.key for d in documents}, key=lambda key: sha256(b"%d " % seed + key).digest())
    part = max(1, len(keys) // (10 if found.form == "books" else 20))
    if len(keys) < 3:
        what = "books" if found.form == "books" else "stretches of text"
        raise DataError(f"{found.folder}: {len(keys)} {what}, expected three at least, one for each split")
    splits: dict[bytes, Split] = dict.fromkeys(keys, "train")
    for i, key in enumerate(keys[: 2 * part]):
        splits[key] = "test" if i < part else "val"
    given: dict[Split, list[Document]] = {split: [] for split in ORDER}
    for document in documents:
        own = given[splits[document.key]]
        first = document.blocks[0]
        if document.runs_on and own and _end(own[-1]) == (first.path, first.start):
            whole = own[-1]
            whole.blocks += [first._replace(begins=False), *document.blocks[1:]]
            whole.words, whole.bytes = whole.words + document.words, whole.bytes + document.bytes
        else:
            own.append(document)
    return given


def _end(document: Document) -> tuple[Path, int]:
    return document.blocks[-1].path, document.blocks[-1].stop


# -- tokens ----------------------------------------------------------------------------------------------------------


def pack(encoded: Encoded, text: str, dtype: np.dtype[Any]) -> bytes:
    """A row: tokens, bitmap of where words begin, bitmap of where they end."""
    n = len(encoded.ids)
    begins, ends = np.zeros(n, bool), np.zeros(n, bool)
    first, last = words(encoded, text)
    begins[first], ends[last] = True, True
    bits = (np.packbits(b, bitorder="little").tobytes() for b in (begins, ends))
    return b"".join([encoded.ids.astype(dtype).tobytes(), *bits])


def words(encoded: Encoded, text: str) -> tuple[np.ndarray, np.ndarray]:
    """First and last token of every word, the blank before it included, whose edges are edges of tokens."""
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    kinds = _kinds()[np.append(codes, 0)]  # one more, so that every character has a next one
    letter, blank = kinds == LETTER, codes == ord(" ")
    within = letter.copy()
    within[1:-1] |= (kinds[1:-1] == JOINT) & letter[:-2] & letter[2:]
    # blanks that follow what is no white space, and stand before a letter
    at = np.flatnonzero(blank[1:] & letter[2:] & (kinds[:-2] != SPACE)) + 1
    outside = np.flatnonzero(~within)
    after = outside[np.searchsorted(outside, at + 1)] if len(at) else at  # (words,) first character behind the word
    good = kinds[after] != DIGIT
    at, after = at[good], after[good]
    # the token that holds the blank may or may not be said to begin with it
    first = np.searchsorted(encoded.begins, at, "left")
    past = np.searchsorted(encoded.begins, after, "left")
    safe = np.minimum(first, max(len(encoded.begins) - 1, 0))
    clean = (past > first) & (encoded.begins[safe] <= at + 1) & (encoded.ends[past - 1] <= after)
    clean &= (first == 0) | (encoded.ends[np.maximum(first, 1) - 1] <= at)
    return first[clean], past[clean] - 1


OTHER, LETTER, JOINT, DIGIT, SPACE = range(5)


@cache
def _kinds() -> np.ndarray:
    """What every character is, (0x110000,) uint8. Needs a tenth of a second, once."""
    kinds = np.zeros(0x110000, np.uint8)
    for code in range(0x110000):
        character = chr(code)
        if character.isalpha():
            kinds[code] = LETTER
        elif character.isalnum() or character == "_":
            kinds[code] = DIGIT
        elif character.isspace():
            kinds[code] = SPACE
    kinds[[ord(c) for c in "'’-"]] = JOINT
    return kinds


class Conversion:
    """A corpus as a prepared folder. Implements zoo.data.cache.Recipe."""

    def __init__(self, scanned: Scanned, tokenizer: Tokenizer, told: Mapping[str, Any]) -> None:
        self.scanned, self.tokenizer, self.told = scanned, tokenizer, told
        self.dtype = dtype_of(tokenizer.size)
        self.blocks = {split: [b for d in scanned.documents[split] for b in d.blocks] for split in ORDER}

    def counts(self) -> Mapping[Split, int]:
        return {split: len(blocks) for split, blocks in self.blocks.items()}

    def provenance(self) -> dict[str, Any]:
        """`documents` has, per document, its words and bytes."""
        documents = {split: [[d.words, d.bytes] for d in part] for split, part in self.scanned.documents.items()}
        told = {"kind": "published", "version": READER, "files": self.scanned.files, **self.told}
        return told | {
            "tokenizer": {"name": self.tokenizer.name, "sha256": self.tokenizer.digest, "size": self.tokenizer.size},
            "documents": documents,
            "left_out": self.scanned.left_out,
            "notes": self.scanned.notes,
        }

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        for block in self.blocks[split][start:]:
            with block.path.open("rb") as file:
                file.seek(block.start)
                text = file.read(block.stop - block.start).decode("utf-8")
            encoded = self.tokenizer.align(text)
            row = np.frombuffer(pack(encoded, text, self.dtype), np.uint8)
            note = BEGINS * block.begins | self._gaps(encoded, text)
            yield Chunk(row, np.array([len(row)]), np.array([len(encoded.ids) % 8]), np.array([note]))

    def _gaps(self, encoded: Encoded, text: str) -> int:
        covered = np.zeros(len(text) + 1, np.int64)
        np.add.at(covered, encoded.begins, 1)
        np.add.at(covered, np.maximum(encoded.ends, encoded.begins), -1)
        bare = np.flatnonzero(np.cumsum(covered)[:-1] == 0)
        lost = any(not text[i].isspace() for i in bare.tolist())
        unknown = self.tokenizer.unknown is not None and bool((encoded.ids == self.tokenizer.unknown).any())
        return LOST * lost | UNKNOWN * unknown


class Running:
    """The tokens of one split, document after document: positions 0 … len - 1. May be sent to other processes."""

    def __init__(self, stored: Stored, size: int) -> None:
        self.stored, self.dtype = stored, dtype_of(size)
        ends, rest = np.asarray(stored.ends, np.int64), np.asarray(stored.labels, np.int64)
        self.base = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        width = self.dtype.itemsize
        eights = (ends - self.base - rest * width - 2 * (rest > 0)) // (8 * width + 2)
        self.sizes = 8 * eights + rest  # (blocks,) tokens of each
        self.stops = np.cumsum(self.sizes)
        begins = np.asarray(stored.notes) & BEGINS > 0
        self.starts = (self.stops - self.sizes)[begins]  # (documents,) where each begins
        self.ends = np.append(self.starts[1:], len(self))

    def __len__(self) -> int:
        return int(self.stops[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """ids [start, stop) as the tasks have them, int64."""
        parts = []
        block = int(np.searchsorted(self.stops, start, "right"))
        while start < stop:
            first = start - int(self.stops[block] - self.sizes[block])
            n = min(stop - start, int(self.sizes[block]) - first)
            at = int(self.base[block]) + first * self.dtype.itemsize
            parts.append(self.stored.data[at : at + n * self.dtype.itemsize].view(self.dtype))
            start, block = start + n, block + 1
        return np.concatenate(parts).astype(np.int64) + 1 if parts else np.empty(0, np.int64)

    def word(self, position: int) -> int:
        """How many tokens the word that begins at a position has; 0 where none begins."""
        block = int(np.searchsorted(self.stops, position, "right"))
        n = int(self.sizes[block])
        first = position - int(self.stops[block]) + n
        begins = int(self.base[block]) + n * self.dtype.itemsize
        if not self.stored.data[begins + first // 8] >> (first % 8) & 1:
            return 0
        ends = begins + -(-n // 8)
        for byte in range(first // 8, -(-n // 8)):
            found = int(self.stored.data[ends + byte])
            if byte == first // 8:
                found &= 0xFF << (first % 8) & 0xFF
            if found:
                return 8 * byte + (found & -found).bit_length() - first
        raise DataError(f"{self.stored.folder}: a word of {self.stored.split} without end; prepare it anew")

    def gaps(self) -> dict[str, int]:
        """Blocks in which the tokeniser has no token for something."""
        notes = np.asarray(self.stored.notes)
        return {"unknown": int((notes & UNKNOWN > 0).sum()), "lost": int((notes & LOST > 0).sum())}
