"""The prepared rows of a user's tables, and their examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from zoo import DataError
from zoo.data import store
from zoo.data.cached import CachedData
from zoo.data.module import SPLITS, Example, Split
from zoo.data.paths import cache_dir
from zoo.data.store import Chunk, Rows, StoredSplit
from zoo_own.codec import Codec
from zoo_own.scan import DROPPED, Scan
from zoo_own.settings import OwnOptions

READER = "1"
"""Raised when the same files would give other examples or splits."""
CHUNK = 512
ROWS = cast(Split, "rows")
"""The one part of a prepared folder: all rows in the order of the files; a row's note is the code of its split."""


class TableRecipe:
    """Writes the rows of scanned tables. Implements zoo.data.store.Recipe."""

    def __init__(self, scan: Scan, files: Mapping[str, str]) -> None:
        self.scan, self.files, self.fields = scan, files, scan.codec()
        self.codec = Codec(self.fields)

    def counts(self) -> Mapping[Split, int]:
        return {ROWS: int((self.scan.splits != DROPPED).sum())}

    def provenance(self) -> dict[str, Any]:
        return {"kind": "own", "version": READER, "files": dict(self.files), "codec": self.fields}

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        packed: list[bytes] = []
        codes: list[int] = []
        done = 0
        for row, code in zip(self.scan.rows(), self.scan.splits.tolist(), strict=True):
            if code == DROPPED:
                continue
            done += 1
            if done <= start:
                continue
            cells, label = self.scan.cells(row)
            inputs = [self.codec.read(cell) for cell in cells]
            packed.append(self.codec.pack(inputs, self.codec.read_label(label, len(inputs[0]))))
            codes.append(code)
            if len(packed) == CHUNK:
                yield _chunk(packed, codes)
                packed, codes = [], []
        if packed:
            yield _chunk(packed, codes)


def _chunk(packed: Sequence[bytes], codes: Sequence[int]) -> Chunk:
    lengths = np.array([len(row) for row in packed])
    notes = np.array(codes, np.uint8)
    return Chunk(np.frombuffer(b"".join(packed), np.uint8), lengths, np.zeros(len(packed), np.uint8), notes)


def own_folder(root: Path, fingerprint: str) -> Path:
    """Where the data of a fingerprint are prepared."""
    return cache_dir(root) / "own" / fingerprint


def require_folder(folder: Path) -> None:
    """Raise DataError where prepared data are gone or damaged."""
    if not folder.exists():
        raise DataError(f"{folder}: the prepared data are gone; the same zoo bench --data prepares them again")
    faults = store.find_faults_once(folder)
    if faults:
        raise DataError(f"{'; '.join(faults)}. Delete {folder}: the same zoo bench --data prepares it again")


class TableRows:
    """The examples of one split. Picklable."""

    def __init__(self, stored: StoredSplit, codec: Codec, split: Split) -> None:
        self.stored, self.codec, self.split = stored, codec, split
        self.indices = np.flatnonzero(np.asarray(stored.notes) == SPLITS.index(split))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Example:
        return self.codec.unpack(self.stored.row(int(self.indices[i])))


class TableData(CachedData):
    """Data of a task of a user's tables."""

    name, suite = "your data", "own"
    options: OwnOptions

    @property
    def folder(self) -> Path:
        return own_folder(self.root, self.options.fingerprint)

    def prepare(self) -> None:
        require_folder(self.folder)

    def make_codec(self) -> dict[str, Any]:
        return store.read_manifest(self.folder)["provenance"]["codec"]

    @property
    def channels(self) -> int:
        return len(self.codec["mean"])

    def dataset(self, split: Split) -> TableRows:
        return TableRows(self.stored(ROWS), Codec(self.codec, self.options.seq_len), split)

    def lengths(self, split: Split) -> np.ndarray:
        rows = self.dataset(split)
        lengths = Codec(self.codec).lengths(np.diff(rows.stored.ends, prepend=0)[rows.indices])
        return np.minimum(lengths, self.options.seq_len) if self.options.seq_len else lengths

    def labels(self, split: Split) -> np.ndarray:
        rows = self.dataset(split)
        width, dtype = (8, "<f8") if self.codec["kind"] == "regression" else (4, "<i4")
        starts = np.concatenate([[0], rows.stored.ends[:-1]]).astype(np.int64)[rows.indices]
        return rows.stored.data[starts[:, None] + np.arange(width)].view(dtype)[:, 0]

    def majority(self) -> float | None:
        kind = self.codec["kind"]
        if kind == "regression":  # always the mean of training
            return float(np.mean((self.labels("test") - self.codec["target"][0]) ** 2))
        if kind != "token_classification":
            return super().majority()
        classes = len(self.codec["classes"])
        train, test = (
            sum((np.bincount(labels, minlength=classes) for _, labels in self._examples(split)), np.zeros(classes))
            for split in ("train", "test")
        )
        return float(test[train.argmax()] / test.sum())

    def _examples(self, split: Any) -> Iterator[Any]:
        data = self.dataset(split)
        return (data[i] for i in range(len(data)))

    def provenance(self) -> dict[str, Any]:
        manifest = store.read_manifest(self.folder)
        codec = self.codec
        columns = {"input": codec["columns"]["input"], "label": codec["columns"]["label"]}
        inferred = {"kind": codec["kind"], "read": codec["form"], "columns": columns, "tokenizer": codec["tokenizer"]}
        inferred |= {"classes": codec["classes"][:100], "vocabulary": len(codec["vocabulary"])}
        notes = np.asarray(self.stored(ROWS).notes)
        counts = {split: int((notes == code).sum()) for code, split in enumerate(SPLITS)}
        contents = {name: entry["sha256"] for name, entry in manifest["files"].items() if entry["bytes"]}
        own = {key: manifest["provenance"][key] for key in ("kind", "version", "files")}
        return {**own, "counts": counts, "contents": contents, "inferred": inferred}

    # -- for `zoo predict` ---------------------------------------------------------------------------------------------

    @property
    def input_columns(self) -> tuple[str, ...]:
        return tuple(self.codec["columns"]["input"])

    @property
    def label_names(self) -> Sequence[str] | None:
        return self.codec["classes"]

    @property
    def target_scale(self) -> tuple[float, float]:
        mean, scale = self.codec["target"]
        return mean, scale

    def encode(self, values: Sequence[Any]) -> Any:
        codec = Codec(self.codec, self.options.seq_len)
        return codec.present([codec.read(value) for value in values])
