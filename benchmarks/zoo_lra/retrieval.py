"""Retrieval: does one of two papers of the ACL Anthology Network cite the other? Bytes; 2 classes, two towers.

The published texts are Python bytes literals (b'...', with \\n and \\xe2 as printable escapes), and nobody decodes
them: the model reads the escapes. ids: 0 = padding, byte b -> b + 1, 257 = end of sequence, only with `task.eos`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from zoo import DataError
from zoo.data.files import check_sha256, read_lines
from zoo.data.module import SPLITS, Split
from zoo.data.splits import HOLD_OUT_ORDER, drop_duplicates, published_kind
from zoo.data.store import Chunk, Rows
from zoo_lra import pairs
from zoo_lra.needs import RETRIEVAL
from zoo_lra.options import RetrievalOptions
from zoo_lra.published import Example, count_notes

READER = "1"
"""Raised when the same files would give other examples."""
FILES: dict[Split, str] = {
    "train": "new_aan_pairs.train.tsv",
    "val": "new_aan_pairs.eval.tsv",
    "test": "new_aan_pairs.test.tsv",
}
PUBLISHED = {"train": 147_086, "val": 18_090, "test": 17_437}
LABELS = {"0.0": 0, "1.0": 1, "0": 0, "1": 1}
KEPT = 10_000
"""Bytes kept of a document, as Long Range Arena does before it cuts to the task's length."""
LINE_LIMIT = 1 << 24
CHUNK = 256


class Row(NamedTuple):
    """One line of a file."""

    number: int
    label: int
    first: bytes
    second: bytes


class PublishedPairs:
    """Pairs of the published new_aan_pairs.{train,eval,test}.tsv. Implements zoo.data.store.Recipe."""

    def __init__(self, options: RetrievalOptions, folder: Path) -> None:
        self.paths = {split: folder / name for split, name in FILES.items()}
        self.no_literals = 0
        splits: dict[Split, list[Example]] = {}
        for split, path in self.paths.items():
            splits[split] = []
            for row in read_rows(path):
                self.no_literals += not row.first.startswith((b"b'", b'b"'))
                both = sha256(b"\t".join(sorted((row.first, row.second))))
                splits[split].append(Example(f"{path.name}:{row.number}", both.digest(), row.label, row.number))
            for label in (0, 1):
                if not any(e.label == label for e in splits[split]):
                    raise DataError(f"{path}: no pair with label {label}")
        counts: dict[str, int] = {split: len(part) for split, part in splits.items()}
        self.kind = published_kind(counts, PUBLISHED)
        self.notes = count_notes(counts, PUBLISHED, "pairs")
        self.left_out: list[str] = []
        if options.duplicates == "drop":
            splits, self.left_out = drop_duplicates(splits)
        kept = {split: splits[split][: getattr(options, f"{split}_size")] for split in SPLITS}
        self.line_numbers = {split: {e.contents for e in part} for split, part in kept.items()}

    def counts(self) -> Mapping[Split, int]:
        return {split: len(self.line_numbers[split]) for split in HOLD_OUT_ORDER}

    def provenance(self) -> dict[str, Any]:
        notes = list(self.notes)
        if self.no_literals:
            notes.append(f"{self.no_literals:,} pairs are not the published bytes literals (b'...')")
        if self.left_out:
            notes.append(f"{len(self.left_out):,} pairs that an earlier split (test, val, train) has are left out")
        files = {path.name: check_sha256(path, {}) for path in self.paths.values()}
        origin = {"kind": self.kind, "version": READER, "files": files}
        return origin | {"left_out": self.left_out, "notes": notes}

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        numbers = self.line_numbers[split]
        kept = (row for row in read_rows(self.paths[split]) if row.number in numbers)
        examples = islice(kept, start, len(numbers))  # the rest of the file is not read
        while chunk := list(islice(examples, CHUNK)):
            yield pairs.pack([(row.first, row.second) for row in chunk], [row.label for row in chunk])


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file: label, id1, id2, text1, text2 between tabs; no header and no quoting. Documents are cut
    to KEPT bytes."""
    for number, line in read_lines(path, LINE_LIMIT):
        where, fields = f"{path}:{number}", line.split("\t")
        if len(fields) != 5:
            hint = "; this looks like the list of ids without the texts" if len(fields) == 3 else ""
            raise DataError(f"{where}: {len(fields)} columns, expected label, id1, id2, text1, text2{hint}")
        if fields[0] not in LABELS:
            raise DataError(f"{where}: label {fields[0][:20]!r}, expected 0.0 or 1.0")
        for name, text in (("text1", fields[3]), ("text2", fields[4])):
            if not text.strip() or text in ("b''", 'b""'):
                raise DataError(f"{where}: {name} is empty")
        first, second = (text.encode()[:KEPT] for text in fields[3:])
        yield Row(number, LABELS[fields[0]], first, second)


class RetrievalData(pairs.PairData):
    """Data of the task `retrieval`."""

    name, reader = "retrieval", READER
    names = ("tsv_data", "aan", "retrieval")
    layout = "new_aan_pairs.{train,eval,test}.tsv"
    needs = RETRIEVAL
    not_exported = "the texts of AAN may not be passed on; your files are in the published layout already"
    options: RetrievalOptions

    def accepts(self, place: Path) -> bool:
        return any((place / name).is_file() for name in FILES.values())

    def input_files(self, place: Path) -> Iterable[Path]:
        return [path for path in sorted(place.glob("new_aan_pairs.*.tsv")) if path.name in FILES.values()]

    def recipe(self) -> PublishedPairs:
        return PublishedPairs(self.options, self.place())
