"""The base of tasks whose examples are prepared once and kept in a folder (see cache.py)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from zoo.data.cache import Recipe, Stored, build, checked, faults, forget, manifest, told_as_data_error
from zoo.data.module import Example, Split, TaskData
from zoo.data.paths import cache_dir
from zoo.data.progress import notice, progress
from zoo.spec.errors import DataError, MissingFiles


def slug(prefix: str, what: Mapping[str, Any]) -> str:
    """A folder name: readable, and different whenever anything in `what` differs."""
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:10]
    return f"{prefix}-{digest}"


class Examples(Dataset[Example]):
    """One split as the task decodes it."""

    def __init__(self, stored: Stored, owner: CachedData) -> None:
        self.stored, self.decode = stored, owner.decoder()

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, i: int) -> Example:
        return self.decode(self.stored.row(i)), int(self.stored.labels[i])


class CachedData(TaskData):
    """A task supplies `name`, `recipe`, `folder` and `decoder`; one with a published layout also `write_published`."""

    name: str
    suite: str
    not_exported = ""
    """Why the examples are not written in the published layout, where there is a reason."""

    def recipe(self) -> Recipe:
        """What the folder is made from. Asked for only when it must be made."""
        raise NotImplementedError

    def folder_name(self) -> str:
        """Different whenever the options or the user's files would give other examples. Cheap."""
        raise NotImplementedError

    def decoder(self) -> Any:
        """A picklable function from an example's bytes, (n,) uint8, to its ids or values, (L,)."""
        raise NotImplementedError

    def write_published(self, folder: Path, counts: Mapping[Split, int]) -> list[str]:
        """Write the first examples of each split in the published layout into an empty folder; the top-level names."""
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
        """Whether `prepare` has nothing to make."""
        try:
            return self.folder.exists()
        except MissingFiles:
            return False

    def prepare(self) -> None:
        folder = self.folder
        fresh = not folder.exists()
        if fresh:
            if cache_dir(self.root) != self.root:
                notice(f"{self.name}: prepared under {cache_dir(self.root)}")
            with progress(f"preparing {self.name}") as update, told_as_data_error(folder):
                build(folder, self.recipe(), update)
        else:
            self._refuse(checked(self.folder))
        for note in self.provenance().get("notes", ()):
            notice(f"{self.name}: {note}")

    def _refuse(self, wrong: list[str]) -> None:
        if wrong:
            anew = f"zoo data prepare {self.name} --force, with the same --protocol and --set"
            raise DataError(f"{'; '.join(wrong)}. To make it anew: {anew}")

    def discard(self) -> None:
        """Delete what is prepared or half prepared under these options."""
        for path in (self.folder, self.folder.with_name(self.folder.name + ".partial")):
            if path.exists():
                shutil.rmtree(path)
        forget(self.folder)

    def stored(self, split: Split) -> Stored:
        """One split's bytes. Raises DataError when it is not prepared or a file has a wrong size."""
        if not self.prepared():
            raise DataError(f"{self.folder}: not prepared; run zoo data prepare {self.name}")
        self._refuse(faults(self.folder, thorough=False))
        return Stored(self.folder, split)

    def dataset(self, split: Split) -> Dataset[Example]:
        return Examples(self.stored(split), self)

    def labels(self, split: Split) -> np.ndarray:
        return np.asarray(self.stored(split).labels)

    def provenance(self) -> dict[str, Any]:
        found = manifest(self.folder)
        contents = {name: entry["sha256"] for name, entry in found["files"].items() if entry["bytes"]}
        told = {**found["provenance"], "counts": dict(found["counts"]), "contents": contents}
        if "left_out" in told:
            told["left_out"] = len(told["left_out"])  # a record needs the number; `left_out()` names them
        return told

    def left_out(self) -> list[str]:
        return list(manifest(self.folder)["provenance"].get("left_out", ()))

    def verify(self) -> list[str]:
        try:
            folder = self.folder
        except MissingFiles as error:
            return [str(error)]
        return faults(folder, thorough=True) if folder.exists() else [f"{folder}: not prepared"]
