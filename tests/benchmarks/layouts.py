"""Small made-up data sets in the published layouts, packed in the ways in which users may have them."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo_lambada.sample_files import write_passages as passages
from zoo_lambada.sample_files import write_wikitext as articles
from zoo_lra.sample_files import aan_line, cifar_pictures
from zoo_lra.sample_files import write_aan as aan
from zoo_lra.sample_files import write_books as books
from zoo_lra.sample_files import write_cifar as cifar
from zoo_lra.sample_files import write_imdb as imdb

__all__ = [
    "aan",
    "aan_line",
    "archive",
    "articles",
    "books",
    "cifar",
    "cifar_pictures",
    "everything",
    "imdb",
    "imdb_parquet",
    "passages",
]


def archive(folder: Path, name: str) -> Path:
    """The folder as a .tar.gz beside it."""
    path = folder.parent / name
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, folder.name)
    return path


def imdb_parquet(place: Path, source: Path, change: Callable[[list[dict]], object] = lambda rows: None) -> Path:
    """The reviews of a folder aclImdb as {train,test}-00000-of-00001.parquet, each split's rows changed before."""
    pyarrow = pytest.importorskip("pyarrow", reason="NOT RUN: IMDB as parquet; pip install 'seqzoo[parquet]'")
    from pyarrow import parquet

    place.mkdir(parents=True)
    for split in ("train", "test"):
        paths = [
            (path, label) for label, name in enumerate(("neg", "pos")) for path in (source / split / name).iterdir()
        ]
        rows = [{"text": path.read_text(encoding="utf-8"), "label": label} for path, label in paths]
        change(rows)
        parquet.write_table(pyarrow.Table.from_pylist(rows), place / f"{split}-00000-of-00001.parquet")
    return place


def everything(folder: Path) -> Path:
    """All of them beside one another, as a data directory may hold them."""
    imdb(folder)
    cifar(folder)
    aan(folder)
    books(folder)
    articles(folder)
    passages(folder)
    return folder
