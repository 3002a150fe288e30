"""Reading files that somebody else made: bounded, whole, and named when something is wrong."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from zoo.spec.errors import DataError

PIECE = 1 << 20
HEADER = 1 << 26
"""No part of an archive that is read at once (long names and other headers) is larger."""
EXPANSION, LEAST = 50, 1 << 30
"""An archive may unpack to so many times its size, or to so many bytes, if that is more."""


def regular(path: Path, limit: int | None = None) -> Path:
    """The path, if it is a file of at most `limit` bytes: no folder, no pipe, no device. Raises DataError."""
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {'no such file' if error.errno == 2 else error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: not a file")
    if limit is not None and found.st_size > limit:
        raise DataError(f"{path}: {found.st_size:,} bytes, expected at most {limit:,}")
    return path


def contents_of(path: Path, limit: int) -> bytes:
    """All bytes of a file. Raises DataError that names it."""
    try:
        return regular(path, limit).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def lines_of(path: Path, longest: int) -> Iterator[tuple[int, str]]:
    """(number, line without its end) of a text file in UTF-8, line ends LF or CRLF. Raises DataError that names file
    and line."""
    number = 0
    try:
        with regular(path).open("rb") as file:
            while line := file.readline(longest + 1):
                number += 1
                if len(line) > longest:
                    raise DataError(f"{path}:{number}: a line of more than {longest:,} bytes")
                try:
                    yield number, line.rstrip(b"\r\n").decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{path}:{number}: byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if not number:
        raise DataError(f"{path}: empty")


def members(path: Path, wanted: Callable[[str], bool], limit: int) -> Iterator[tuple[str, bytes]]:
    """(name, contents) of an archive's wanted files, never written to disk.

    Every member must be one that Python's `data` extraction filter lets pass: nothing outside the folder, no devices.
    What is wanted must be files, each there once, and no longer than `limit`.
    Raises DataError that names the archive and the member.
    """
    last, seen = "the beginning", set()
    try:
        with _unpacked(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                tarfile.data_filter(member, str(path.parent))
                name = member.name.removeprefix("./")
                if wanted(name) and not member.isdir():
                    if not member.isfile():
                        raise DataError(f"{path}: {name} is a link, not a file")
                    if name in seen:
                        raise DataError(f"{path}: {name} is in the archive twice")
                    if member.size > limit:
                        raise DataError(f"{path}: {name} has {member.size:,} bytes, expected at most {limit:,}")
                    seen.add(name)
                    file = archive.extractfile(member)
                    assert file is not None  # isfile() holds
                    contents = file.read()
                    if len(contents) != member.size:
                        raise DataError(f"{path}: cut short within {name}")
                    yield name, contents
                last = member.name
            # tarfile takes the end of the file for the end of the archive, which is a block of zeros; and a packed
            # file knows its checksum only when all of it was read
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise DataError(f"{path}: cut short after {last}")
            while stream.read(PIECE):
                pass
    except tarfile.FilterError as error:
        raise DataError(f"{path}: not a safe archive: {error}") from error
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: cut short or damaged after {last} ({error})") from error


def _unpacked(path: Path) -> _Bounded:
    """The archive as a plain tar file, whatever it is packed with."""
    with regular(path).open("rb") as file:
        magic = file.read(6)
    openers: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    opener = next((o for start, o in openers.items() if magic.startswith(start)), open)
    return _Bounded(opener(path, "rb"), path)


class _Bounded(io.RawIOBase):
    """A packed file that refuses to become much larger than it is, all of it or a part that is read at once."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.file, self.path = file, path
        self.most = max(LEAST, EXPANSION * path.stat().st_size)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER:
            raise DataError(f"{self.path}: a header of {size:,} bytes, expected at most {HEADER:,}")
        return self._checked(self.file.read(size))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        # a packed file is read to get further: never more of it than is allowed
        if whence == os.SEEK_SET and offset > self.most:
            self._refuse()
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self.file.close()
        super().close()

    def _checked(self, piece: bytes) -> bytes:
        if self.file.tell() > self.most:
            self._refuse()
        return piece

    def _refuse(self) -> None:
        raise DataError(f"{self.path}: unpacks to more than {self.most:,} bytes; not read")
