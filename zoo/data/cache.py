"""One prepared data set = one folder that is whole or absent.

Examples are byte strings of any length, so that tokens and packed pictures share one format. A folder holds, per split,

    SPLIT.data    the examples one after the other        SPLIT.ends    int64, where each ends in SPLIT.data
    SPLIT.labels  uint8                                   SPLIT.notes   uint8, what an export needs beside the label

and `manifest.json` with the provenance and every file's size and sha256. It is written as FOLDER.partial by appending
in order, with a journal of what is safely on disk: after a kill the same call cuts the files back to the journal and
goes on, and the bytes are those of an unbroken run. The last act is to rename FOLDER.partial to FOLDER.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from filelock import FileLock, Timeout

from zoo.data.module import SPLITS, Progress, Split
from zoo.data.progress import notice
from zoo.spec.errors import DataError

FORMAT = 1
KINDS: dict[str, np.dtype[Any]] = {
    "data": np.dtype("u1"),
    "ends": np.dtype("<i8"),
    "labels": np.dtype("u1"),
    "notes": np.dtype("u1"),
}
MANIFEST, JOURNAL = "manifest.json", "journal.json"
VERIFIED = ".verified.json"
"""Beside a folder, what its files were when all of their contents were last compared with their sha256."""
CHECKPOINT_SECONDS = 2.0


class Chunk(NamedTuple):
    """Consecutive examples: bytes one after the other, then per example length (int64), label and note (uint8)."""

    data: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    notes: np.ndarray


Rows = Callable[[Split], Iterator[np.ndarray]]
"""The examples of a split that are written already."""


class Recipe(Protocol):
    """What a folder is made from."""

    def counts(self) -> Mapping[Split, int]:
        """Examples per split; the splits are written in this order."""

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        """Chunks from example `start` of a split to its end. Must not depend on where an earlier call stopped."""

    def provenance(self) -> dict[str, Any]:
        """What `TaskData.provenance` tells; asked for once, when everything is written."""


def build(folder: Path, recipe: Recipe, progress: Progress) -> None:
    """Make `folder` unless it is there. Safe against a second process; resumes what was killed. Raises DataError."""
    if folder.exists():
        return
    with told_as_data_error(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(folder.name + ".lock")):
            if not folder.exists():
                _Build(folder, recipe, progress).run()


@contextlib.contextmanager
def told_as_data_error(folder: Path) -> Iterator[None]:
    """What the system refuses while `folder` is made is a DataError that names the file."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"no space left on the disk of {where}; free some (or set ZOO_DATA_DIR) and run the same command"
                " again, it continues where it stopped"
            ) from error
        raise DataError(f"{where}: {error.strerror or error}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notice(f"another process prepares {path.with_suffix('')}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Build:
    """The state of one folder under construction."""

    def __init__(self, folder: Path, recipe: Recipe, progress: Progress) -> None:
        self.final, self.recipe, self.progress = folder, recipe, progress
        self.folder = folder.with_name(folder.name + ".partial")
        self.counts = dict(recipe.counts())
        self.done: dict[str, int] = dict.fromkeys(self.counts, 0)
        self.files: dict[str, int] = {}
        self.saved = time.monotonic()

    def run(self) -> None:
        self._resume()
        total = sum(self.counts.values())
        try:
            for split in self.counts:
                if self.done[split] < self.counts[split]:
                    for chunk in self.recipe.produce(split, self.done[split], self._rows):
                        self._append(split, chunk)
                        self.progress(sum(self.done.values()), total)
                if self.done[split] != self.counts[split]:
                    raise DataError(f"{self.folder}: {self.done[split]} {split} examples of {self.counts[split]}")
            self._checkpoint()
        finally:
            for descriptor in self.files.values():
                os.close(descriptor)
        self._finish()

    def _names(self) -> list[str]:
        return [f"{split}.{kind}" for split in self.counts for kind in KINDS]

    def _resume(self) -> None:
        """Cut the files back to what the journal vouches for, or begin."""
        sizes = dict.fromkeys(self._names(), 0)
        try:
            journal = json.loads((self.folder / JOURNAL).read_text())
            known = journal["counts"] == self.counts and journal["sizes"].keys() == sizes.keys()
            if known and all((self.folder / f).stat().st_size >= n for f, n in journal["sizes"].items()):
                sizes, self.done = journal["sizes"], journal["done"]
        except (FileNotFoundError, ValueError, KeyError):
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)
        for name, size in sizes.items():
            path = self.folder / name
            self.files[name] = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self.files[name], size)
            os.lseek(self.files[name], size, os.SEEK_SET)

    def _append(self, split: Split, chunk: Chunk) -> None:
        begin = os.lseek(self.files[f"{split}.data"], 0, os.SEEK_CUR)
        columns = {"data": chunk.data, "ends": begin + np.cumsum(chunk.lengths), "labels": chunk.labels}
        for kind, column in (columns | {"notes": chunk.notes}).items():
            self._write(f"{split}.{kind}", np.ascontiguousarray(column, dtype=KINDS[kind]).tobytes())
        self.done[split] += len(chunk.lengths)
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self._checkpoint()

    def _write(self, name: str, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.files[name], view) :]
            except OSError as error:
                error.filename = str(self.folder / name)
                raise

    def _checkpoint(self) -> None:
        sizes = {}
        for name, descriptor in self.files.items():
            os.fsync(descriptor)
            sizes[name] = os.lseek(descriptor, 0, os.SEEK_CUR)
        write_atomically(self.folder / JOURNAL, json.dumps({"counts": self.counts, "done": self.done, "sizes": sizes}))
        self.saved = time.monotonic()

    def _rows(self, split: Split) -> Iterator[np.ndarray]:
        n = self.done[split]
        data = _mapped(self.folder / f"{split}.data", KINDS["data"])
        ends = _mapped(self.folder / f"{split}.ends", KINDS["ends"])[:n]
        begin = 0
        for end in ends.tolist():
            yield data[begin:end]
            begin = end

    def _finish(self) -> None:
        paths = {name: self.folder / name for name in self._names()}
        files = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in paths.items()}
        manifest = {"format": FORMAT, "provenance": self.recipe.provenance(), "counts": self.counts, "files": files}
        write_atomically(self.folder / MANIFEST, json.dumps(manifest, indent=1))
        (self.folder / JOURNAL).unlink()
        os.rename(self.folder, self.final)
        sync_folder(self.final.parent)
        write_atomically(self.final.with_name(self.final.name + VERIFIED), json.dumps(_stamp(self.final)))


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the platform can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Write a small file under a temporary name, flush it to disk, rename it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    size = path.stat().st_size
    return np.memmap(path, dtype=dtype, mode="r") if size else np.empty(0, dtype)


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder. Raises DataError when there is none or it is damaged."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise DataError(f"{path}: written in format {found['format']}, this version reads {FORMAT}")
        if not (isinstance(found["files"], dict) and isinstance(found["counts"], dict)):
            raise ValueError("no files or counts")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; the data are not prepared") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())})") from error
    return found


def faults(folder: Path, *, thorough: bool) -> list[str]:
    """What is wrong with a prepared folder, a line per file; sizes only, or contents too when `thorough`."""
    try:
        files = manifest(folder)["files"]
    except DataError as error:
        return [str(error)]
    found = []
    for name, expected in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != expected["bytes"]:
                found.append(f"{path}: {size} bytes, expected {expected['bytes']}")
            elif thorough and sha256(path) != expected["sha256"]:
                found.append(f"{path}: contents differ from their sha256 in {MANIFEST}")
        except OSError as error:
            found.append(f"{path}: {error.strerror or error}")
    return found


def checked(folder: Path) -> list[str]:
    """Faults, thoroughly looked for unless nothing was written to the files since that was last done: reading all of a
    large data set takes longer than a person waits for the first batch. (`zoo data verify` always reads all.)"""
    note = folder.with_name(folder.name + VERIFIED)
    wrong = faults(folder, thorough=False)
    stamp = _stamp(folder)
    with contextlib.suppress(OSError, ValueError):
        if json.loads(note.read_text(encoding="utf-8")) == stamp:
            return wrong
    wrong = wrong or faults(folder, thorough=True)
    if not wrong:
        with contextlib.suppress(OSError):  # a disk that must not be written to, or another process at the same
            write_atomically(note, json.dumps(stamp))
    return wrong


def forget(folder: Path) -> None:
    """Look thoroughly the next time."""
    folder.with_name(folder.name + VERIFIED).unlink(missing_ok=True)


def _stamp(folder: Path) -> dict[str, list[int]]:
    """What changes when one of the files does."""
    found = {path.name: path.stat() for path in sorted(folder.iterdir())}
    return {name: [s.st_size, s.st_mtime_ns, s.st_ino] for name, s in found.items()}


class Stored:
    """The examples of one split, mapped on first use; may be sent to other processes.

    Raises DataError when a file is missing or has another size than the manifest says.
    """

    def __init__(self, folder: Path, split: Split) -> None:
        wrong = faults(folder, thorough=False)
        if wrong:
            raise DataError("; ".join(wrong))
        self.folder, self.split = folder, split
        self._open()

    def _open(self) -> None:
        self.data, self.ends, self.labels, self.notes = (
            _mapped(self.folder / f"{self.split}.{kind}", dtype) for kind, dtype in KINDS.items()
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.ends)

    def row(self, i: int) -> np.ndarray:
        """The bytes of example i, (n,) uint8, read-only."""
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        return self.data[(int(self.ends[i - 1]) if i else 0) : int(self.ends[i])]


__all__ = [
    "SPLITS",
    "Chunk",
    "Recipe",
    "Rows",
    "Stored",
    "build",
    "checked",
    "faults",
    "forget",
    "manifest",
    "sha256",
    "told_as_data_error",
    "write_atomically",
]
