"""Text corpora: from the user's files to documents in splits.

The layout is recognised by the files' names:

    a WikiText folder   wiki.{train,valid,test}.tokens (or .raw), or {train,valid,test}.txt; a document is an article,
                        which begins where a line " = Title = " stands between two empty lines
    a folder of books   {train,validation,test}/*.txt as of PG-19, or *.txt; a document is a book
    a file              any text; a document is an article where the file has such headings, else a passage of
                        several paragraphs

Where there are no splits, documents are held out in the order of their sha256 with the seed: a twentieth, one at
least, is test, the next val (of a flat folder of books a tenth each). In a file without articles the passages that are
drawn so are of about a two-hundredth of the file, and what is left between two of them is one document again. A text
that an earlier split (test, val, train) has too is left out.

The files are read line by line and never held whole: here to check them and to find the documents, then in
tokenized.py to turn them into tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from zoo.data.files import Line, combined_sha256, read_raw_lines
from zoo.data.module import SPLITS, Progress, Split
from zoo.data.splits import HOLD_OUT_ORDER, drop_duplicates
from zoo.spec.errors import DataError

FOLDERS: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}
LINE_LIMIT = 1 << 20
BLOCK = 1 << 18
"""Bytes of text that are turned into tokens at once; a longer document has several blocks."""
PASSAGES, MIN_PASSAGE = 200, 512
"""A file without articles is cut into about so many passages, of so many bytes at least."""
MAX_LISTED_FILES = 32
"""More files than this go into a record as one checksum over all of them."""
HEADING = re.compile(rb" = (?!= ).+ = \s*")


class Block(NamedTuple):
    """Bytes [start, stop) of a file, whole lines; `begins` where a document does."""

    path: Path
    start: int
    stop: int
    begins: bool


@dataclass
class Document:
    """One text.

    where       file, or file:line
    key         sha256 of its bytes, which are those of the text as it is on Unix (zoo.data.files.decode_utf8)
    words       separated by white space; in articles also the end of every line, as WikiText is counted
    continues   it directly follows the document before it in the file
    """

    where: str
    key: bytes
    blocks: list[Block]
    words: int
    bytes: int
    continues: bool = False


class CorpusFiles(NamedTuple):
    """The files of a corpus.

    form   "wikitext", "books" or "file"
    files  per split; all under "train" where the files are in no splits
    """

    form: str
    folder: Path
    files: Mapping[Split, tuple[Path, ...]]

    @property
    def has_splits(self) -> bool:
        """Whether the files come in splits."""
        return all(self.files[split] for split in HOLD_OUT_ORDER)


def find_wikitext(folder: Path) -> CorpusFiles | None:
    """Return the files of a WikiText folder, or None if it is not one."""
    files: dict[Split, tuple[Path, ...]] = {}
    for split, names in FOLDERS.items():
        patterns = ("wiki.{}.tokens", "wiki.{}.raw", "{}.txt")
        paths = (folder / pattern.format(name) for pattern in patterns for name in names)
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return None
        files[split] = (path,)
    return CorpusFiles("wikitext", folder, files)


def find_books(folder: Path, exclude: Sequence[str] = ()) -> CorpusFiles | None:
    """Return the files of a folder of books, or None if it is not one. Without books in each of the splits' folders,
    all books are returned under "train". `exclude` has glob patterns of file names that are not books."""

    def list_texts(folder: Path) -> list[Path]:
        hidden = (".*", *exclude)
        paths = (path for path in folder.glob("*.txt") if path.is_file())
        return sorted(path for path in paths if not any(path.match(pattern) for pattern in hidden))

    files = {s: tuple(path for name in names for path in list_texts(folder / name)) for s, names in FOLDERS.items()}
    loose = list_texts(folder)
    if not any(files.values()) and not loose:
        return None
    if loose or not all(files.values()):
        files = {"train": tuple(sorted({*loose, *chain(*files.values())})), "val": (), "test": ()}
    return CorpusFiles("books", folder, files)


def find_corpus(place: Path, exclude: Sequence[str] = ()) -> CorpusFiles | None:
    """Return the files of the corpus in a file or folder, or None. `exclude` as in `find_books`."""
    if place.is_file():
        return CorpusFiles("file", place.parent, {"train": (place,), "val": (), "test": ()})
    return find_wikitext(place) or find_books(place, exclude)


class FileReader:
    """Yields the checked lines of one file, sums their sha256 and updates the progress bar.

    done, total  bytes of all files: those before this one, and all
    """

    def __init__(self, path: Path, done: int, total: int, progress: Progress) -> None:
        self.path, self.sha256, self.done, self.total, self.progress = path, sha256(), done, total, progress

    def __iter__(self) -> Iterator[Line]:
        shown = self.done
        for line in read_raw_lines(self.path, LINE_LIMIT):
            self.sha256.update(line.raw)
            self.done += len(line.raw)
            if self.done - shown > BLOCK:
                self.progress(self.done, self.total)
                shown = self.done
            yield line


@dataclass
class _DocumentBuilder:
    """Collects the lines of one document into blocks of at most BLOCK bytes (or one line)."""

    path: Path
    where: str
    start: int
    blocks: list[Block] = field(default_factory=list)
    key: Any = field(default_factory=sha256)
    words: int = 0
    stop: int = 0
    bytes: int = 0
    block_bytes: int = 0
    blank: bool = True

    @classmethod
    def at(cls, path: Path, line: Line) -> _DocumentBuilder:
        return cls(path, f"{path}:{line.number}", line.start)

    def add(self, line: Line, *, count_line_end: bool = False) -> None:
        size, words = len(line.contents), len(line.contents.split())
        if self.block_bytes and self.block_bytes + size > BLOCK:
            self._end_block()
        self.key.update(line.contents)
        self.bytes, self.block_bytes = self.bytes + size, self.block_bytes + size
        self.words, self.blank = self.words + words + count_line_end, self.blank and not words
        self.stop = line.start + len(line.raw)

    def _end_block(self) -> None:
        start = self.blocks[-1].stop if self.blocks else self.start
        self.blocks.append(Block(self.path, start, self.stop, not self.blocks))
        self.block_bytes = 0

    def finish(self, *, continues: bool = False) -> Document:
        self._end_block()
        return Document(self.where, self.key.digest(), self.blocks, self.words, self.bytes, continues)


def read_articles(reader: FileReader) -> Iterator[Document]:
    """Yield the articles of a file in WikiText's form. What precedes the first heading belongs to the first."""
    builder, previous = None, b""
    for line, following in pairwise(chain(reader, [None])):
        assert line is not None
        alone = not previous.strip() and not (following and following.contents.strip())
        if builder is None or (not builder.blank and alone and HEADING.fullmatch(line.contents)):
            if builder is not None:
                yield builder.finish()
            builder = _DocumentBuilder.at(reader.path, line)
        builder.add(line, count_line_end=True)
        previous = line.contents
    if builder is not None and not builder.blank:
        yield builder.finish()


def read_passages(reader: FileReader, size: int) -> Iterator[Document]:
    """Yield a file in passages of at least `size` bytes, cut after a paragraph, or after a line at twice that size."""
    builder = None
    for line in reader:
        builder = builder or _DocumentBuilder.at(reader.path, line)
        builder.add(line)
        if builder.bytes >= 2 * size or (builder.bytes >= size and not line.contents.strip()):
            yield builder.finish(continues=builder.start > 0)
            builder = None
    if builder is not None:
        yield builder.finish(continues=builder.start > 0)


def read_book(reader: FileReader) -> Document:
    """Return a file as one document."""
    builder = _DocumentBuilder(reader.path, str(reader.path), 0)
    for line in reader:
        builder.add(line)
    return builder.finish()


def _read_documents(form: str, reader: FileReader) -> Iterator[Document]:
    if form == "books":
        yield read_book(reader)
        return
    articles = list(read_articles(FileReader(reader.path, 0, 0, lambda done, total: None)))
    if form == "wikitext" or len(articles) >= 3:
        yield from read_articles(reader)
    else:
        size = sum(article.bytes for article in articles)  # of the file, wherever its lines were ended
        yield from read_passages(reader, min(max(size // PASSAGES, MIN_PASSAGE), BLOCK))


@dataclass
class CorpusScan:
    """The documents of a corpus in the order of the files, checksums of the files, and notes for the record."""

    documents: dict[Split, list[Document]]
    files: dict[str, str]
    left_out: list[str]
    notes: list[str]


def scan_corpus(corpus: CorpusFiles, seed: int, progress: Progress) -> CorpusScan:
    """Read and check all files and divide their documents into splits. Raises DataError that names file and line."""
    total = sum(path.stat().st_size for part in corpus.files.values() for path in part)
    done = 0
    digests: list[tuple[str, bytes]] = []
    documents: dict[Split, list[Document]] = {split: [] for split in HOLD_OUT_ORDER}
    for split in HOLD_OUT_ORDER:
        for path in corpus.files[split]:
            reader = FileReader(path, done, total, progress)
            part = list(_read_documents(corpus.form, reader))
            if not any(document.words for document in part):
                raise DataError(f"{path}: empty")
            documents[split] += part
            digests.append((path.relative_to(corpus.folder).as_posix(), reader.sha256.digest()))
            done = reader.done
    files = {name: digest.hex() for name, digest in digests}
    if len(files) > MAX_LISTED_FILES:
        files = {f"{len(digests)} files": combined_sha256(digests)}
    left_out: list[str] = []
    notes: list[str] = []
    if corpus.has_splits:
        documents, left_out = drop_duplicates(documents)
    else:
        documents = _hold_out(documents["train"], corpus, seed)
        notes.append("the files are in no splits: documents are held out by sha256 and task.data_seed")
    sizes = []
    for split in SPLITS:
        part = documents[split]
        if not part:
            raise DataError(f"{corpus.folder}: nothing for {split}")
        words, size = sum(d.words for d in part), sum(d.bytes for d in part)
        sizes.append(f"{split} {len(part):,} documents of {words:,} words, {size:,} bytes")
    notes.append("; ".join(sizes))
    if left_out:
        notes.append(f"{len(left_out):,} texts that an earlier split (test, val, train) has are left out")
    return CorpusScan(documents, files, left_out, notes)


def _hold_out(documents: list[Document], corpus: CorpusFiles, seed: int) -> dict[Split, list[Document]]:
    """Divide documents into splits, the same text always into one; join neighbours in a file that are of one split."""
    keys = sorted({d.key for d in documents}, key=lambda key: sha256(b"%d " % seed + key).digest())
    if len(keys) < 3:
        kind = "books" if corpus.form == "books" else "stretches of text"
        raise DataError(f"{corpus.folder}: {len(keys)} {kind}, expected three at least, one for each split")
    part = max(1, len(keys) // (10 if corpus.form == "books" else 20))
    split_of: dict[bytes, Split] = {
        key: "test" if i < part else "val" if i < 2 * part else "train" for i, key in enumerate(keys)
    }
    splits: dict[Split, list[Document]] = {split: [] for split in HOLD_OUT_ORDER}
    for document in documents:
        own = splits[split_of[document.key]]
        first = document.blocks[0]
        if document.continues and own and own[-1].blocks[-1][0:3:2] == (first.path, first.start):
            joined = own[-1]
            joined.blocks += [first._replace(begins=False), *document.blocks[1:]]
            joined.words, joined.bytes = joined.words + document.words, joined.bytes + document.bytes
        else:
            own.append(document)
    return splits
