"""Reading files that users bring, within limits; checksums, locks and atomic writes."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import errno
import gzip
import hashlib
import lzma
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from shlex import quote
from typing import IO, Any, NamedTuple

from filelock import FileLock, Timeout

from zoo.data.progress import notice
from zoo.spec.errors import DataError

READ_SIZE = 1 << 20
HEADER_LIMIT = 1 << 26
"""Largest part of an archive that is read at once: long names and other headers."""
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SEARCHED = 1 << 28
LINES = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
EXPANSION, MIN_EXPANSION_BYTES = 50, 1 << 30
"""An archive may unpack to so many times its size, or to so many bytes if that is more."""


# -- errors ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def oserror_as_data_error(path: Path, *, ours: bool = False) -> Iterator[None]:
    """Convert an OSError raised while `path` is read or written into a DataError that names the file; where it is
    `ours`, in the cache, with the remedy."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"no space left on the disk of {where}; free some (or set ZOO_DATA_DIR) and run the same command"
                " again, it continues where it stopped"
            ) from error
        remedy = "; name a folder that may be written to with ZOO_CACHE_DIR" if ours else ""
        raise DataError(f"{where}: {error.strerror or error}{remedy}") from error


# -- reading ---------------------------------------------------------------------------------------------------------


def check_regular_file(path: Path, limit: int | None = None) -> Path:
    """Return `path` if it is a regular file of at most `limit` bytes, else raise DataError."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {'no such file' if error.errno == errno.ENOENT else error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a file")
    if limit is not None and status.st_size > limit:
        raise DataError(f"{path}: {status.st_size:,} bytes, expected at most {limit:,}")
    return path


def read_file(path: Path, limit: int) -> bytes:
    """Return all bytes of a regular file of at most `limit` bytes. Raises DataError."""
    with oserror_as_data_error(path):
        return check_regular_file(path, limit).read_bytes()


def decode_utf8(contents: bytes, where: object, first_line: int = 1, offset: int = 0) -> str:
    """Decode UTF-8 as it is on Unix: without a byte order mark, every line end a line feed. Raises DataError that names
    file, line and byte, also for a NUL, which is in no text.

    where       the file
    first_line  number of the line with which `contents` begins, and `offset` its first byte in the file
    """
    try:
        text, fault, at = contents.decode("utf-8"), "NUL", contents.find(b"\0")
    except UnicodeDecodeError as error:
        text, fault, at = "", "not UTF-8", error.start
    if at >= 0:
        utf16 = b"\0" in contents or contents.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        kind, name = ("UTF-16", "utf16") if utf16 else ("Latin-1", "latin1")
        command = f"iconv -f {name} -t utf8 {quote(Path(str(where)).name)}"
        line = first_line + contents.count(b"\n", 0, at)
        raise DataError(f"{where}:{line}: byte {offset + at} is {fault}; if it is {kind}: {command}")
    if offset == 0:
        text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


class Line(NamedTuple):
    """One line of a text file: its number from 1, its first byte in the file, its bytes there, and as they are on Unix
    (see `decode_utf8`)."""

    number: int
    start: int
    raw: bytes
    contents: bytes


def read_raw_lines(path: Path, limit: int) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file, none longer than `limit` bytes. Raises DataError that names file and line."""
    number = start = 0
    with oserror_as_data_error(path), check_regular_file(path).open("rb") as file:
        while piece := file.readline(limit + 1):
            if len(piece) > limit:  # unless carriage returns end lines
                end = piece.rfind(b"\r", 0, -1) + 1
                if not end:
                    raise DataError(
                        f"{path}:{number + 1}: a line of more than {limit:,} bytes; break it, such as with"
                        f" fold -s -w 1000 {quote(path.name)}"
                    )
                file.seek(start + end)
                piece = piece[:end]
            for raw in LINES.findall(piece) if b"\r" in piece else (piece,):
                number += 1
                text = decode_utf8(raw, path, number, start)
                yield Line(number, start, raw, text.encode() if start == 0 or b"\r" in raw else raw)
                start += len(raw)


def read_lines(path: Path, limit: int) -> Iterator[tuple[int, str]]:
    """Yield (number, line without its end) of a UTF-8 file. Raises DataError as read_raw_lines does, and if it is
    empty."""
    number = 0
    for number, _, _, contents in read_raw_lines(path, limit):
        yield number, contents.decode("utf-8").removesuffix("\n")
    if not number:
        raise DataError(f"{path}: empty")


def read_archive(path: Path, select: Callable[[str], bool], limit: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name, contents) of the selected files of a tar archive, packed or not, without writing to disk.

    No member may be outside the folder, lead out of it or be a device. Selected members must be regular files, each
    present once, no longer than `limit` bytes.
    Raises DataError that names the archive and the member.
    """
    last, seen = "the beginning", set()
    try:
        stream: Any = _open_unpacked(path)
        with contextlib.closing(stream), tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                name = _check_member(path, member)
                if select(name) and not member.isdir():
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
            # file checks its own checksum only when all of it was read
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise DataError(f"{path}: cut short after {last}")
            while stream.read(READ_SIZE):
                pass
    except DAMAGED as error:
        raise DataError(f"{path}: cut short or damaged after {last} ({error})") from error


DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)
"""What damaged archives raise."""


def is_archive(path: Path) -> bool:
    """Whether a file is a tar archive, packed or not."""
    try:
        return tarfile.is_tarfile(path)
    except DAMAGED:
        return False


def may_hold(path: Path, word: str, select: Callable[[str], bool]) -> bool:
    """Whether a file is an archive named with a word, or with a selected member (in its first SEARCHED bytes), or is
    too damaged to tell."""
    if path.name.endswith(ARCHIVES) and (word in path.name.lower() or not is_archive(path)):
        return True
    if not is_archive(path):
        return False
    try:
        with tarfile.open(path) as archive:
            members = takewhile(lambda member: member.offset < SEARCHED, archive)
            return any(select(member.name.removeprefix("./")) for member in members)
    except DAMAGED:
        return True


def _check_member(path: Path, member: tarfile.TarInfo) -> str:
    """Return the name of a member, or raise DataError where it, or what it links to, is outside the folder.

    (Python's own check, `tarfile.data_filter`, is missing before 3.11.4.)
    """
    name = member.name.removeprefix("./")
    relative = name.lstrip("/")
    # a symbolic link counts from its folder, a hard link from the archive's
    target = os.path.join(os.path.dirname(relative) if member.issym() else "", member.linkname)
    for place, what in ((relative, "is"), (target, "leads")):
        if os.path.isabs(place) or os.path.normpath(place).split(os.sep)[0] == os.pardir:
            raise DataError(f"{path}: not a safe archive: {name} {what} outside of it")
    if member.isdev():
        raise DataError(f"{path}: not a safe archive: {name} is a device")
    return name


def _open_unpacked(path: Path) -> _BoundedReader:
    """Open a plain, gzip, bzip2 or xz tar archive as a plain one."""
    with check_regular_file(path).open("rb") as file:
        magic = file.read(6)
    openers: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    opener = next((o for start, o in openers.items() if magic.startswith(start)), open)
    return _BoundedReader(opener(path, "rb"), path)


class _BoundedReader:
    """A packed file that refuses to expand without bound (tarfile has no such limit)."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.file, self.path = file, path
        self.limit = max(MIN_EXPANSION_BYTES, EXPANSION * path.stat().st_size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER_LIMIT:
            raise DataError(f"{self.path}: a header of {size:,} bytes, expected at most {HEADER_LIMIT:,}")
        contents = self.file.read(size)
        self._check_position(self.file.tell())
        return contents

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:  # seeking forward unpacks everything in between
            self._check_position(offset)
        return self.file.seek(offset, whence)

    def _check_position(self, position: int) -> None:
        if position > self.limit:
            raise DataError(f"{self.path}: unpacks to more than {self.limit:,} bytes; not read")


# -- checksums -------------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, published: Mapping[str, str]) -> str:
    """Return the SHA-256 of a file. Raises DataError when it has the name of a published file but not its contents.

    published  file name -> hex digits
    """
    actual, expected = sha256(path), published.get(path.name)
    if expected is not None and actual != expected:
        raise DataError(
            f"{path}: sha256 {actual}, the published file has {expected}; fetch it again (or, if the archive is your"
            " own, give it another name and name the file itself: --from FILE)"
        )
    return actual


def combined_sha256(entries: Iterable[tuple[str, bytes]]) -> str:
    """Return one SHA-256 over the (name, SHA-256 of the contents) of many files, sorted by name."""
    total = hashlib.sha256()
    for name, digest in sorted(entries):
        total.update(f"{digest.hex()}  {name}\n".encode())
    return total.hexdigest()


def file_stamps(paths: Iterable[Path]) -> list[list[Any]]:
    """Return [name, size, modification time] of each file, or [name, error]: what changes when a file does."""
    stamps: list[list[Any]] = []
    for path in paths:
        try:
            status = path.stat()
            stamps.append([path.name, status.st_size, status.st_mtime_ns])
        except OSError as error:
            stamps.append([path.name, str(error.strerror)])
    return stamps


# -- writing ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def file_lock(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock between processes; when another holds it, print `waiting` and wait."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notice(waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_atomically(path: Path, text: str) -> None:
    """Write a small file under a temporary name, flush it to disk, rename it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
