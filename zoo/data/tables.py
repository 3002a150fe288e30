"""Rows of tables that users bring: JSONL, CSV, TSV and Parquet, row by row, however large the file."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo.data.files import check_regular_file, oserror_as_data_error, read_raw_lines
from zoo.spec.errors import DataError, UserError

LINE_LIMIT = 1 << 26
"""Bytes of a line, which is a row or a part of one."""
PARQUET_ROWS = 256
"""Rows of a Parquet file that are turned into Python's values at once."""
DELIMITERS = ",;\t"
Row = dict[str, Any]


def is_table(path: Path) -> bool:
    """Whether the file's name is that of a table."""
    return path.suffix.lower() in READERS


def where(path: Path, number: int) -> str:
    """The place of a row, for messages: file:line, or file and row."""
    return f"{path} row {number}" if path.suffix.lower() == ".parquet" else f"{path}:{number}"


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (number, {column: value}) of a table's rows: the line in which a row begins, of Parquet its number from 1.

    Values of CSV are text. Raises DataError that names file and line.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        hint = "; one JSON object a line is .jsonl" if path.suffix.lower() == ".json" else ""
        raise DataError(f"{path}: not a table: expected {', '.join(READERS)}{hint}")
    empty = True
    for number, row in reader(path):
        empty = False
        yield number, row
    if empty:
        raise DataError(f"{path}: no rows")


def _read_jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    for line in read_raw_lines(path, LINE_LIMIT):
        if not line.contents.strip():
            continue
        try:
            row = json.loads(line.contents)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where(path, line.number)}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{where(path, line.number)}: expected an object, got {type(row).__name__}")
        yield line.number, row


def _read_csv(path: Path) -> Iterator[tuple[int, Row]]:
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for line in read_raw_lines(path, LINE_LIMIT):
            number = line.number
            yield line.contents.decode("utf-8")

    text = lines()
    header = next(text, "")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=header.count)
    csv.field_size_limit(LINE_LIMIT)
    begins = number
    try:
        columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter, strict=True), [])]
        if not columns or "" in columns or len(set(columns)) < len(columns):
            raise DataError(f"{path}:1: expected a header of different names of columns, got {header.strip()!r}")
        begins = number + 1
        for cells in csv.reader(text, delimiter=delimiter, strict=True):
            if cells:
                if len(cells) != len(columns):
                    raise DataError(f"{where(path, begins)}: {len(cells)} cells, the header has {len(columns)}")
                yield begins, dict(zip(columns, cells, strict=True))
            begins = number + 1
    except csv.Error as error:
        raise DataError(f"{where(path, begins)}: {error}") from error


def _read_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    parquet, error_class = import_parquet(f"{path}")
    number = 0
    try:
        with oserror_as_data_error(path), check_regular_file(path).open("rb") as file:
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except error_class as error:
        raise DataError(f"{path}: damaged after row {number} ({' '.join(str(error).split())})") from error


def import_parquet(what: str) -> tuple[Any, type[Exception]]:
    """pyarrow.parquet and the error that it raises; UserError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{what} needs the package pyarrow: pip install 'seqzoo[parquet]'") from None
    return pyarrow.parquet, pyarrow.ArrowException


READERS: dict[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
"""By the ending of a file's name."""
