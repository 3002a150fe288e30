"""Base class of tasks whose examples are prepared once and stored in a folder (see store.py)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data import store
from zoo.data.files import oserror_as_data_error
from zoo.data.module import Dataset, Example, Split, TaskData
from zoo.data.paths import cache_dir
from zoo.data.progress import notice, progress
from zoo.data.store import Recipe, StoredSplit
from zoo.spec.errors import DataError, MissingFiles

AS_HERE = "with the same --protocol and --set"


def hashed_name(prefix: str, values: Mapping[str, Any]) -> str:
    """Return a folder name that is readable and differs whenever anything in `values` differs."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]
    return f"{prefix}-{digest}"


class StoredExamples:
    """One split, decoded by the task: (ids or values, label)."""

    def __init__(self, stored: StoredSplit, decode: Any) -> None:
        self.stored, self.decode = stored, decode

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, i: int) -> Example:
        return self.decode(self.stored.row(i)), int(self.stored.labels[i])


class CachedData(TaskData):
    """Data of a task that are prepared once.

    A subclass supplies `name`, `suite`, `recipe`, `folder_name` and `decoder`; where the task has a published layout,
    also `write_published`.
    """

    name: str
    suite: str
    not_exported = ""
    """Why the examples are not written in the published layout, where there is a reason."""

    def recipe(self) -> Recipe:
        """The source of the examples. Called only when the folder must be written."""
        raise NotImplementedError

    def folder_name(self) -> str:
        """A name that differs whenever the options or the user's files would give other examples. Cheap."""
        raise NotImplementedError

    def decoder(self) -> Any:
        """A picklable function from an example's bytes, (n,) uint8, to its ids or values, (L,)."""
        raise NotImplementedError

    def write_published(self, folder: Path, counts: Mapping[Split, int]) -> list[str]:
        """Write the first examples of each split in the published layout into an empty folder; return the names of
        its entries."""
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """Where the prepared data are, or will be. Raises MissingFiles when they cannot be."""
        return cache_dir(self.root) / self.suite / self.name / self.folder_name()

    @property
    def generated(self) -> bool:
        """Whether no files of the user are read. Raises MissingFiles as `folder` does."""
        return False

    def prepared(self) -> bool:
        """Whether the folder is complete."""
        try:
            return os.path.exists(self.folder)
        except MissingFiles:
            return False

    def prepare(self) -> None:
        folder = self.folder
        if os.path.exists(folder):
            self._raise_faults(store.find_faults_once(folder))
        else:
            if cache_dir(self.root) != self.root:
                notice(f"{self.name}: prepared under {cache_dir(self.root)}")
            with progress(f"preparing {self.name}") as update, oserror_as_data_error(folder, ours=True):
                store.build(folder, self.recipe(), update)
        for note in self.provenance().get("notes", ()):
            notice(f"{self.name}: {note}")

    def _raise_faults(self, faults: list[str]) -> None:
        if faults:
            how = f"zoo data prepare {self.name} --force, {AS_HERE}"
            raise DataError(f"{'; '.join(faults)}. To make it anew: {how}")

    def _require_prepared(self) -> None:
        if not self.prepared():
            raise DataError(f"{self.folder}: not prepared; run zoo data prepare {self.name}, {AS_HERE}")

    def discard(self) -> None:
        """Delete what is prepared or half prepared under these options."""
        store.delete(self.folder)

    def stored(self, split: Split) -> StoredSplit:
        """One split's bytes. Raises DataError when it is not prepared or a file has a wrong size."""
        self._require_prepared()
        self._raise_faults(store.find_faults(self.folder, thorough=False))
        return StoredSplit(self.folder, split)

    def dataset(self, split: Split) -> Dataset[Any]:
        return StoredExamples(self.stored(split), self.decoder())

    def labels(self, split: Split) -> np.ndarray:
        return np.asarray(self.stored(split).labels)

    def provenance(self) -> dict[str, Any]:
        manifest = store.read_manifest(self.folder)
        contents = {name: entry["sha256"] for name, entry in manifest["files"].items() if entry["bytes"]}
        provenance = {**manifest["provenance"], "counts": dict(manifest["counts"]), "contents": contents}
        if "left_out" in provenance:
            provenance["left_out"] = len(provenance["left_out"])  # a record needs the number; `left_out()` names them
        return provenance

    def left_out(self) -> list[str]:
        return list(store.read_manifest(self.folder)["provenance"].get("left_out", ()))

    def verify(self) -> list[str]:
        try:
            folder = self.folder
        except MissingFiles as error:
            return [str(error)]
        return store.find_faults(folder, thorough=True) if os.path.exists(folder) else [f"{folder}: not prepared"]
