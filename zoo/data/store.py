"""The on-disk format of a prepared data set: one folder that is complete or absent.

Examples are byte strings of any length, so that tokens and packed pictures share one format. A folder holds, per split,

    SPLIT.data    the examples one after the other        SPLIT.ends    int64, where each ends in SPLIT.data
    SPLIT.labels  uint8                                   SPLIT.notes   uint8, what an export needs beside the label

and `manifest.json` with the provenance and every file's size and sha256. It is written as FOLDER.partial by appending
in order, with a journal of what is safely on disk: after a kill the same call cuts the files back to the journal and
goes on, and the bytes are those of an unbroken run. The last act is to rename FOLDER.partial to FOLDER.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from zoo.data.files import file_lock, oserror_as_data_error, sha256, write_atomically
from zoo.data.module import Progress, Split
from zoo.spec.errors import DataError
from zoo.spec.files import sync_folder

FORMAT = 1
COLUMNS: dict[str, np.dtype[Any]] = {
    "data": np.dtype("u1"),
    "ends": np.dtype("<i8"),
    "labels": np.dtype("u1"),
    "notes": np.dtype("u1"),
}
MANIFEST, JOURNAL = "manifest.json", "journal.json"
VERIFIED = ".verified.json"
"""Suffix of a file beside the folder: sizes and times of the files when their sha256 was last compared."""
CHECKPOINT_SECONDS = 2.0


class Chunk(NamedTuple):
    """Consecutive examples: bytes one after the other, then per example length (int64), label and note (uint8)."""

    data: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    notes: np.ndarray


Rows = Callable[[Split], Iterator[np.ndarray]]
"""Iterates over the examples of a split that are already written."""


class Recipe(Protocol):
    """Source of the examples of one prepared folder."""

    def counts(self) -> Mapping[Split, int]:
        """Examples per split; the splits are written in this order."""

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        """Yield chunks from example `start` of a split to its end, the same examples whatever `start` is."""

    def provenance(self) -> dict[str, Any]:
        """See `TaskData.provenance`; called once, when everything is written."""


def build(folder: Path, recipe: Recipe, progress: Progress) -> None:
    """Write `folder` unless it exists. Safe against a second process; resumes what was killed. Raises DataError."""
    if os.path.exists(folder):
        return
    with oserror_as_data_error(folder, ours=True):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(folder.name + ".lock")
        with file_lock(lock, f"another process prepares {folder}; waiting for it"):
            if not folder.exists():
                _Writer(folder, recipe, progress).run()


class _Writer:
    """Writes one folder, from the beginning or from its journal."""

    def __init__(self, folder: Path, recipe: Recipe, progress: Progress) -> None:
        self.final, self.recipe, self.progress = folder, recipe, progress
        self.folder = folder.with_name(folder.name + ".partial")
        self.counts = dict(recipe.counts())
        self.done: dict[str, int] = dict.fromkeys(self.counts, 0)
        self.sizes = {f"{split}.{column}": 0 for split in self.counts for column in COLUMNS}
        self.descriptors: dict[str, int] = {}
        self.saved = time.monotonic()

    def run(self) -> None:
        self._restore()
        total = sum(self.counts.values())
        try:
            self._open_files()
            for split in self.counts:
                if self.done[split] < self.counts[split]:
                    for chunk in self.recipe.produce(split, self.done[split], self._rows):
                        self._append(split, chunk)
                        self.progress(sum(self.done.values()), total)
                if self.done[split] != self.counts[split]:
                    raise DataError(f"{self.folder}: {self.done[split]} {split} examples of {self.counts[split]}")
            self._checkpoint()
        finally:
            for descriptor in self.descriptors.values():
                os.close(descriptor)
        self._finish()

    def _restore(self) -> None:
        """Read from the journal how much of each file is valid; without a journal delete the partial folder."""
        try:
            journal = json.loads((self.folder / JOURNAL).read_text("utf-8"))
            valid = journal["counts"] == self.counts and journal["sizes"].keys() == self.sizes.keys()
            if valid and all((self.folder / f).stat().st_size >= n for f, n in journal["sizes"].items()):
                self.sizes, self.done = journal["sizes"], journal["done"]
        except (FileNotFoundError, ValueError, KeyError):
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)

    def _open_files(self) -> None:
        for name, size in self.sizes.items():
            self.descriptors[name] = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self.descriptors[name], size)
            os.lseek(self.descriptors[name], size, os.SEEK_SET)

    def _append(self, split: Split, chunk: Chunk) -> None:
        ends = self.sizes[f"{split}.data"] + np.cumsum(chunk.lengths)
        columns = {"data": chunk.data, "ends": ends, "labels": chunk.labels, "notes": chunk.notes}
        for column, values in columns.items():
            self._write(f"{split}.{column}", np.ascontiguousarray(values, dtype=COLUMNS[column]).tobytes())
        self.done[split] += len(chunk.lengths)
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self._checkpoint()

    def _write(self, name: str, contents: bytes) -> None:
        view = memoryview(contents)
        while view:
            try:
                view = view[os.write(self.descriptors[name], view) :]
            except OSError as error:
                error.filename = str(self.folder / name)
                raise
        self.sizes[name] += len(contents)

    def _checkpoint(self) -> None:
        for descriptor in self.descriptors.values():
            os.fsync(descriptor)
        journal = {"counts": self.counts, "done": self.done, "sizes": self.sizes}
        write_atomically(self.folder / JOURNAL, json.dumps(journal))
        self.saved = time.monotonic()

    def _rows(self, split: Split) -> Iterator[np.ndarray]:
        contents, ends = (_open_memmap(self.folder, split, column) for column in ("data", "ends"))
        begin = 0
        for end in ends[: self.done[split]].tolist():
            yield contents[begin:end]
            begin = end

    def _finish(self) -> None:
        paths = {name: self.folder / name for name in self.sizes}
        files = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in paths.items()}
        manifest = {"format": FORMAT, "provenance": self.recipe.provenance(), "counts": self.counts, "files": files}
        write_atomically(self.folder / MANIFEST, json.dumps(manifest, indent=1))
        (self.folder / JOURNAL).unlink()
        os.rename(self.folder, self.final)
        sync_folder(self.final.parent)
        write_atomically(_verified_file(self.final), json.dumps(_state_of_files(self.final)))


def _open_memmap(folder: Path, split: Split, column: str) -> np.ndarray:
    path, dtype = folder / f"{split}.{column}", COLUMNS[column]
    # numpy refuses to map an empty file
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a prepared folder. Raises DataError when it is missing or damaged."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise DataError(f"{path}: written in format {manifest['format']}, this version reads {FORMAT}")
        if not (isinstance(manifest["files"], dict) and isinstance(manifest["counts"], dict)):
            raise ValueError("no files or counts")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; the data are not prepared") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())})") from error
    return manifest


def find_faults(folder: Path, *, thorough: bool) -> list[str]:
    """List what is wrong with a prepared folder, a line per file: sizes, and with `thorough` also the sha256."""
    try:
        files = read_manifest(folder)["files"]
    except DataError as error:
        return [str(error)]
    faults = []
    for name, expected in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != expected["bytes"]:
                faults.append(f"{path}: {size} bytes, expected {expected['bytes']}")
            elif thorough and sha256(path) != expected["sha256"]:
                faults.append(f"{path}: contents differ from their sha256 in {MANIFEST}")
        except OSError as error:
            faults.append(f"{path}: {error.strerror or error}")
    return faults


def find_faults_once(folder: Path) -> list[str]:
    """Like a thorough find_faults, but the sha256 of files that were not written to since the last time is trusted:
    reading all of a large data set takes longer than a person waits for the first batch."""
    faults, state = find_faults(folder, thorough=False), _state_of_files(folder)
    with contextlib.suppress(OSError, ValueError):
        if json.loads(_verified_file(folder).read_text(encoding="utf-8")) == state:
            return faults
    faults = faults or find_faults(folder, thorough=True)
    if not faults:
        with contextlib.suppress(OSError):  # a read-only disk, or another process at the same
            write_atomically(_verified_file(folder), json.dumps(state))
    return faults


def delete(folder: Path) -> None:
    """Delete a prepared or partly prepared folder."""
    for path in (folder, folder.with_name(folder.name + ".partial")):
        if path.exists():
            shutil.rmtree(path)
    _verified_file(folder).unlink(missing_ok=True)


def _verified_file(folder: Path) -> Path:
    return folder.with_name(folder.name + VERIFIED)


def _state_of_files(folder: Path) -> dict[str, list[int]]:
    """Return size, time and inode of each file, which change when it does."""
    status = {path.name: path.stat() for path in sorted(folder.iterdir())}
    return {name: [s.st_size, s.st_mtime_ns, s.st_ino] for name, s in status.items()}


class StoredSplit:
    """The examples of one split, mapped into memory; may be sent to other processes.

    Raises DataError when a file is missing or its size is not that in the manifest.
    """

    def __init__(self, folder: Path, split: Split) -> None:
        faults = find_faults(folder, thorough=False)
        if faults:
            raise DataError("; ".join(faults))
        self.folder, self.split = folder, split
        self.data, self.ends, self.labels, self.notes = (_open_memmap(folder, split, column) for column in COLUMNS)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.split)

    def __len__(self) -> int:
        return len(self.ends)

    def row(self, i: int) -> np.ndarray:
        """Return the bytes of example i, (n,) uint8, read-only."""
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        return self.data[(int(self.ends[i - 1]) if i else 0) : int(self.ends[i])]
