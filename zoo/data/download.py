"""Fetch a task's public files: each is whole and right, or not there.

A file grows as NAME.partial, beside which NAME.partial.json says where it comes from, so that the same command goes on
after a kill, as far as the server can send a part. Only what has the published sha256 (or, where none was published,
the announced length) takes its final name. Where two processes want one file, the second waits for the first.

The standard library's client does the talking: of the libraries that fetch data sets, pooch cannot resume and knows no
mirrors, and huggingface_hub knows one host.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import queue
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from zoo.data.cache import sha256, sync_folder, write_atomically
from zoo.data.module import Progress
from zoo.data.paths import downloads_dir, remember
from zoo.data.progress import notice, progress
from zoo.spec.errors import DataError, MissingFiles
from zoo.spec.task import SourceFile, Task

ANSWER_SECONDS = 10.0
"""Until a server must have begun to answer, looking up its name included."""
SILENCE_SECONDS = 30.0
"""Longest pause within an answer."""
TRIES = 3
"""Requests without progress before the next address is tried."""
PAUSE = 0.2
"""Seconds before the same address is asked again; four times as many before each further time."""
PIECE = 1 << 18
HEADERS = {"User-Agent": "seqzoo (https://github.com/seqzoo/seqzoo)", "Accept-Encoding": "identity"}


class NoNetwork(MissingFiles):
    """Two hosts and no answer: nothing more is asked of the network."""


class _Refused(Exception):
    """This address does not give the file."""


class _Broken(Exception):
    """The answer ended early; the rest may be had by asking again."""


@dataclass
class Network:
    """What is known of hosts, over all files of a command: one that does not answer is not asked again."""

    silent: dict[str, str] = field(default_factory=dict)
    answered: bool = False

    def open(self, url: str, headers: dict[str, str]) -> Any:
        """The response to GET. Raises _Refused, or NoNetwork."""
        host = urlsplit(url).netloc
        if host not in self.silent:
            try:
                found = _within(ANSWER_SECONDS, urllib.request.Request(url, headers=HEADERS | headers))
            except urllib.error.HTTPError as error:
                self.answered = True
                if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise _Broken("the part that was asked for is not there") from error
                raise _Refused(f"{error.code} {error.reason}") from error
            except (OSError, http.client.HTTPException, TimeoutError) as error:
                reason = getattr(error, "reason", error)
                self.silent[host] = str(getattr(reason, "strerror", None) or reason or type(error).__name__)
            else:
                self.answered = True
                return found
        self.check()
        raise _Refused(self.silent[host])

    def check(self) -> None:
        """Raise NoNetwork where it is known that there is none."""
        if not self.answered and len(self.silent) > 1:
            raise NoNetwork("no network (" + "; ".join(f"{h}: {why}" for h, why in self.silent.items()) + ")")


def _within(seconds: float, request: urllib.request.Request) -> Any:
    """`urlopen` with one limit for everything until the answer begins: its own holds for each of a host's addresses
    anew, and not for looking up its name."""
    box: queue.Queue[Any] = queue.Queue(1)

    def ask() -> None:
        try:
            box.put(urllib.request.urlopen(request, timeout=SILENCE_SECONDS))
        except Exception as error:
            box.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        found = box.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if isinstance(found, Exception):
        raise found
    return found


def bring(task: Task, root: Path, missing: MissingFiles, network: Network, *, offline: bool = False) -> None:
    """Download what a task lacks, or raise `missing` with the reason why that was not done: it has no public files,
    the user wants none (`offline`, or `ZOO_OFFLINE=1`), or they could not be had."""
    if not task.source.sets:
        raise missing
    if offline or unwanted():
        raise MissingFiles(f"offline, nothing is downloaded; {missing}") from missing
    try:
        download(task, root, network)
    except MissingFiles as why:
        raise MissingFiles(f"{why}; {missing}") from why


def unwanted() -> bool:
    """Whether the user said by `ZOO_OFFLINE` that nothing is to be downloaded."""
    return os.environ.get("ZOO_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


def download(task: Task, root: Path, network: Network) -> Path:
    """Bring one of the task's sets of files into the data directory (or, where that must not be written to, the cache)
    and return that folder.

    Raises MissingFiles where no set can be had, with the reason for each address in one line, and DataError where the
    disk is full.
    """
    folder = downloads_dir(root)
    wrong: list[str] = []
    for files in task.source.sets:
        network.check()
        lacking = _lacks(files)
        if lacking:
            wrong.append(lacking)
            continue
        size = sum(file.bytes for file in files)
        names = ", ".join(file.name for file in files)
        known = f"{size / 1e6:,.1f} MB" if all(file.bytes for file in files) else "size not published"
        notice(f"{task.name}: downloading {names} ({known}) into {folder}; license: {task.license}", always=True)
        try:
            for file in files:
                fetch(file, folder, network)
        except NoNetwork:
            raise
        except MissingFiles as error:
            wrong.append(str(error))
        else:
            if folder != root:
                remember(root, task.name, folder)
            return folder
    raise MissingFiles(f"not downloaded: {'; '.join(wrong)}")


def _lacks(files: tuple[SourceFile, ...]) -> str:
    if any(file.name.endswith(".parquet") for file in files) and importlib.util.find_spec("pyarrow") is None:
        return f"{files[0].name}: reading parquet needs pip install 'seqzoo[parquet]'"
    return ""


def fetch(file: SourceFile, folder: Path, network: Network | None = None) -> Path:
    """`folder / file.name`, downloaded unless it is there. Raises MissingFiles or DataError."""
    final = folder / file.name
    if final.exists():
        return final
    network = network or Network()
    network.check()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _alone(final), progress(f"downloading {final.name}", unit="bytes") as update:
            if not final.exists():
                _Transfer(file, final, network, update).run()
    except OSError as error:
        raise DataError(f"{error.filename or final}: {error.strerror or error}; the same command goes on") from error
    return final


@contextlib.contextmanager
def _alone(final: Path) -> Iterator[None]:
    lock = FileLock(final.with_name(f".{final.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        notice(f"another process downloads {final}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Transfer:
    """One file on its way."""

    def __init__(self, file: SourceFile, final: Path, network: Network, update: Progress) -> None:
        self.file, self.final, self.network, self.update = file, final, network, update
        self.partial = final.with_name(final.name + ".partial")
        self.origin = final.with_name(final.name + ".partial.json")
        self.told = self._told()
        self.asked = ""

    def _told(self) -> dict[str, Any]:
        """Where the partial file comes from; without this it is worth something only if a checksum will judge it."""
        try:
            found = json.loads(self.origin.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except (FileNotFoundError, ValueError):
            return {}

    @property
    def have(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def run(self) -> None:
        reasons = []
        for url in self.file.urls:
            try:
                self._from(url)
            except _Refused as error:
                reasons.append(f"{url}: {error}")
            else:
                break
        else:
            raise MissingFiles(f"{self.file.name}: {'; '.join(reasons)}")
        with self.partial.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(self.partial, self.final)
        self.origin.unlink(missing_ok=True)
        sync_folder(self.final.parent)

    def _from(self, url: str) -> None:
        """The whole file from one address. Raises _Refused."""
        resumed = self.have > 0
        self._all(url)
        if not self.file.sha256:
            return
        found = sha256(self.partial)
        if found != self.file.sha256 and resumed:  # its beginning was another's
            self._begin()
            self._all(url)
            found = sha256(self.partial)
        if found != self.file.sha256:
            aside = self.final.with_name(self.final.name + ".wrong")
            os.replace(self.partial, aside)
            self._begin()
            raise _Refused(f"sha256 {found}, expected {self.file.sha256}; not used, kept as {aside.name}")

    def _all(self, url: str) -> None:
        idle = 0
        while True:
            before = self.have
            try:
                self._request(url)
                return
            except _Broken as error:
                idle = 0 if self.have > before else idle + 1
                if idle == TRIES:
                    raise _Refused(str(error)) from error
                time.sleep(PAUSE * 4**idle)

    def _begin(self) -> None:
        """Forget what is there."""
        self.partial.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)
        self.told = {}

    def _request(self, url: str) -> None:
        """Ask for what is missing and append it."""
        same = self.told.get("url") == url
        if self.have and not same and not self.file.sha256:
            self._begin()
        have, whole = self.have, self.file.bytes or (self.told.get("total") if same else None)
        if have and have == whole:
            return
        headers = {}
        if have:
            headers["Range"] = f"bytes={have}-"
            if same and self.told.get("tag"):
                headers["If-Range"] = self.told["tag"]
        try:
            answer = self.network.open(url, headers)
        except _Broken:
            self._begin()
            raise
        self.asked = url
        with answer:
            have, total = self._accept(answer, have)
            tag = answer.headers.get("ETag") or ""
            self.told = {"url": url, "tag": "" if tag.startswith("W/") else tag, "total": total}
            write_atomically(self.origin, json.dumps(self.told))
            with self.partial.open("r+b" if self.partial.exists() else "wb") as out:
                out.truncate(have)
                out.seek(have)
                have = self._copy(answer, out, have, total)
        if total is not None and have < total:
            raise _Broken(f"broke off after {have:,} of {total:,} bytes")

    def _accept(self, answer: Any, have: int) -> tuple[int, int | None]:
        """(where the answer begins in the file, length of the whole file if announced)."""
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != have:
                self._begin()
                raise _Broken("another part than was asked for")
            total = None if found[2] == "*" else int(found[2])
        else:
            have, length = 0, answer.headers.get("Content-Length")
            total = int(length) if length else None
        if self.asked.startswith("https:") and not answer.geturl().startswith("https:") and not self.file.sha256:
            raise _Refused(f"led to {answer.geturl()}, which anybody on the way may change, and there is no checksum")
        kind = answer.headers.get_content_type()
        if kind == "text/html" and not self.file.name.endswith((".html", ".htm")):
            raise _Refused("a web page, not the file")
        if self.file.bytes and total not in (None, self.file.bytes):
            raise _Refused(f"{total:,} bytes there, the published file has {self.file.bytes:,}")
        free = shutil.disk_usage(self.final.parent).free
        if total is not None and free < total - have:
            raise DataError(f"{self.final}: {(total - have) / 1e6:,.0f} MB to come, {free / 1e6:,.0f} MB free")
        return have, total

    def _copy(self, answer: Any, out: IO[bytes], have: int, total: int | None) -> int:
        most = total if total is not None else self.file.bytes
        while True:
            try:
                piece = answer.read1(PIECE)
            except http.client.IncompleteRead as error:
                out.write(error.partial)
                raise _Broken(f"broke off after {have + len(error.partial):,} bytes") from error
            except (OSError, http.client.HTTPException) as error:
                raise _Broken(f"broke off after {have:,} bytes ({error or type(error).__name__})") from error
            if not piece:
                return have
            have += len(piece)
            if most and have > most:
                raise _Refused(f"more than the {most:,} bytes of the file")
            out.write(piece)
            out.flush()
            self.update(have, most)
