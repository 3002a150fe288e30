"""Parquet files as Hugging Face data sets have them: {train,test}*.parquet in one folder. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo import DataError, UserError

BATCH = 512


def find_splits(place: Path) -> list[tuple[str, Path]]:
    """Return (train or test, file), sorted by name. Raises DataError when one of them has no file."""
    paths = [(part, path) for part in ("train", "test") for path in sorted(place.glob(f"{part}*.parquet"))]
    for part in ("train", "test"):
        if part not in dict(paths):
            raise DataError(f"{place}: no {part}*.parquet")
    return paths


def read_rows(path: Path, columns: Sequence[str], classes: int, instead: str) -> Iterator[tuple[int, Any, int]]:
    """Yield (row, contents, label) of one file.

    columns  the names that the column of the contents may have
    classes  number of labels
    instead  the files to bring where pyarrow is not installed
    Raises DataError that names the file and the row, UserError without pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{path}: reading parquet needs pyarrow: pip install 'seqzoo[parquet]'; or bring {instead}"
        ) from None
    i = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            column = next((name for name in columns if name in names), None)
            if column is None or "label" not in names:
                raise DataError(f"{path}: columns {', '.join(sorted(names))}; expected {columns[0]} and label")
            for batch in file.iter_batches(batch_size=BATCH, columns=[column, "label"]):
                for row in batch.to_pylist():
                    label = row["label"]
                    if not isinstance(label, int) or not 0 <= label < classes:
                        raise DataError(f"{path}: row {i}: label {label}, expected 0 to {classes - 1}")
                    yield i, row[column], label
                    i += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged after row {i} ({' '.join(str(error).split())})") from error
    if not i:
        raise DataError(f"{path}: no rows")


def is_dataset(place: Path, name: str) -> bool:
    """Whether a folder holds parquet files and is named after the data set, which the files' own names do not tell."""
    return any(place.glob("train*.parquet")) and name in str(place).lower()
