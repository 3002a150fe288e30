"""The published key-value files of Liu et al. 2023: kv-retrieval-{75,140,300}_keys.jsonl.gz, a line per question:
{"ordered_kv_records": [[key, value], …], "key": …, "value": …}, all of them UUIDs."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from zoo import DataError, MissingFiles
from zoo.data.files import check_regular_file
from zoo.data.paths import advice_for_file

NAME = "kv-retrieval-{pairs}_keys.jsonl.gz"
ROWS = 500
"""Lines of each published file."""
PLACES = ("", "kv_retrieval_data", "lost-in-the-middle/kv_retrieval_data")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Record(NamedTuple):
    """One line: the pairs without the queried one, and that one."""

    others: tuple[tuple[str, str], ...]
    queried: tuple[str, str]


def find_files(top: Path, needed: list[int], optional: list[int]) -> dict[int, Path]:
    """Return number of pairs -> file, packed or not, at or below `top`, or beside it if it is one of the files. Raises
    MissingFiles when one of the `needed` is not there."""
    files: dict[int, Path] = {}
    names = {n: NAME.format(pairs=n) for n in [*needed, *optional]}
    if top.name.removesuffix(".gz") in {name.removesuffix(".gz") for name in names.values()}:
        top = top.parent
    for place in PLACES:
        packed = {n: top / place / name for n, name in names.items()}
        files = {n: path for n, gz in packed.items() for path in (gz.with_suffix(""), gz) if path.is_file()}
        if files:
            break
    missing = [NAME.format(pairs=n) for n in needed if n not in files]
    if missing:
        advice = advice_for_file(str(top))
        raise MissingFiles(f"{top}: no {', '.join(missing)} there, nor in {' or '.join(PLACES[1:])} below it{advice}")
    return files


def read_records(path: Path, pairs: int) -> list[Record]:
    """Return every line of a file. Raises DataError that names file and line."""
    status = check_regular_file(path).stat()
    return _read(path, pairs, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: Path, pairs: int, size: int, changed: int) -> list[Record]:
    records: list[Record] = []
    number = 0
    seen: dict[str, int] = {}
    try:
        unpack = gzip.open if path.suffix == ".gz" else open
        with unpack(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = _parse_record(f"{path}:{number}", line, pairs)
                    first = seen.setdefault(record.queried[0], number)
                    if first != number:
                        raise DataError(f"{path}:{number}: queries the same key as line {first}")
                    records.append(record)
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cut short or damaged after line {number} ({error})") from error
    if not records:
        raise DataError(f"{path}: no questions")
    return records


def _parse_record(where: str, line: str, pairs: int) -> Record:
    try:
        tree: Any = json.loads(line)
        listed = [(str(key), str(value)) for key, value in tree["ordered_kv_records"]]
        queried = (str(tree["key"]), str(tree["value"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: not a question ({type(error).__name__}: {error})") from error
    if len(listed) != pairs:
        raise DataError(f"{where}: {len(listed)} pairs, expected {pairs}")
    odd = [word for pair in listed for word in pair if not UUID.fullmatch(word)]
    if odd:
        raise DataError(f"{where}: {odd[0]!r} is not a UUID")
    if len({key for key, _ in listed}) < pairs:
        raise DataError(f"{where}: a key occurs twice")
    if queried not in listed:
        raise DataError(f"{where}: the queried pair, {queried[0]}, is not among the pairs")
    return Record(tuple(pair for pair in listed if pair != queried), queried)
