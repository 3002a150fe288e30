"""Download a task's public files: each is complete and verified, or absent.

A file grows as NAME.partial, with its origin in NAME.partial.json, so that the same command goes on after a kill, as
far as the server can send a part. Only what has the published sha256 (or, where none was published, the announced
length) takes its final name. requests does the transport: redirects, TLS, proxies, retries of busy servers. Resuming
and mirrors are hand-written, because pooch has neither.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import time
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from zoo.data.files import file_lock, oserror_as_data_error, sha256, write_atomically
from zoo.data.paths import save_location
from zoo.data.progress import notice, progress
from zoo.spec.errors import DataError, MissingFiles
from zoo.spec.files import downloads_dir, sync_folder
from zoo.spec.task import SourceFile, Task, published_size

if TYPE_CHECKING:
    from zoo.data.module import Progress

TIMEOUT = (5.0, 20.0)
"""Seconds to connect to one address of a host, and between two pieces of its response."""
ATTEMPTS = 3
"""Requests without progress before the next address is tried."""
PAUSE = 0.2
"""Seconds before a request is repeated; four times as many before each further one."""
READ_SIZE = 1 << 18
HEADERS = {"User-Agent": "seqzoo (https://github.com/seqzoo/seqzoo)", "Accept-Encoding": "identity"}
BUSY = Retry(0, status=2, status_forcelist=(429, 500, 502, 503, 504), backoff_factor=0.2, raise_on_status=False)


class NoNetwork(MissingFiles):
    """Two hosts did not respond: no further request is made."""


class _Refused(Exception):
    """This address does not give the file."""


class _Interrupted(Exception):
    """The response ended early; the rest may be had by another request."""


class Connections:
    """The HTTP session of a command. A host that did not respond once is not contacted again."""

    def __init__(self) -> None:
        self.session = requests.Session()
        self.session.headers.update(HEADERS)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(max_retries=BUSY))
        self.unreachable: dict[str, str] = {}
        self.reached = False

    def get(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Return the response to GET, its body unread. Raises _Refused where there is none, or NoNetwork."""
        host = urlsplit(url).netloc
        if host not in self.unreachable:
            try:
                response = self.session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
                self.reached = True
                return response
            except (requests.ConnectionError, requests.Timeout) as error:
                self.unreachable[host] = _reason(error)
            except requests.RequestException as error:
                raise _Refused(_reason(error)) from error
        self.check_network()
        raise _Refused(self.unreachable[host])

    def check_network(self) -> None:
        """Raise NoNetwork when two hosts and more failed to respond and none did."""
        if not self.reached and len(self.unreachable) > 1:
            raise NoNetwork("no network (" + "; ".join(f"{h}: {why}" for h, why in self.unreachable.items()) + ")")


def _reason(error: BaseException) -> str:
    """The innermost cause of an exception, as the system words it."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def downloads_disabled() -> bool:
    """Whether `ZOO_OFFLINE` says that nothing is to be downloaded."""
    return os.environ.get("ZOO_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


def download_missing(
    task: Task, root: Path, missing: MissingFiles, connections: Connections, *, offline: bool = False
) -> None:
    """Download the files that a task lacks, or raise `missing` with the reason why not: the task has no public files,
    the user is offline (`offline` or `ZOO_OFFLINE=1`), or they could not be had."""
    if not task.source.sets:
        raise missing
    if offline or downloads_disabled():
        raise MissingFiles(f"offline, nothing is downloaded; {missing}") from missing
    try:
        download(task, root, connections)
    except MissingFiles as error:
        raise MissingFiles(f"{error}; {missing}") from error


def download(task: Task, root: Path, connections: Connections) -> Path:
    """Download one of the task's sets of files into the data directory (or, where that is read-only, the cache) and
    return that folder.

    Raises MissingFiles where no set can be had, with the reason for each address in one line, and DataError where the
    disk is full.
    """
    folder = downloads_dir(root)
    reasons: list[str] = []
    for files in task.source.sets:
        connections.check_network()
        if any(file.name.endswith(".parquet") for file in files) and importlib.util.find_spec("pyarrow") is None:
            reasons.append(f"{files[0].name}: reading parquet needs pip install 'seqzoo[parquet]'")
            continue
        what = f"{', '.join(file.name for file in files)} ({published_size(files)})"
        notice(f"{task.name}: downloading {what} into {folder}; license: {task.license}", always=True)
        try:
            for file in files:
                fetch(file, folder, connections)
        except NoNetwork:
            raise
        except MissingFiles as error:
            reasons.append(str(error))
            continue
        if folder != root:
            save_location(root, task.name, folder)
        return folder
    raise MissingFiles(f"not downloaded: {'; '.join(reasons)}")


def fetch(file: SourceFile, folder: Path, connections: Connections | None = None) -> Path:
    """Return `folder / file.name`, downloaded unless it is there. Raises MissingFiles or DataError."""
    path = folder / file.name
    if os.path.exists(path):
        return path
    connections = connections or Connections()
    connections.check_network()
    with oserror_as_data_error(path, ours=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
        with (
            file_lock(lock, f"another process downloads {path}; waiting for it"),
            progress(f"downloading {path.name}", unit="bytes") as update,
        ):
            if not path.exists():
                _Transfer(file, path, connections, update).run()
    return path


class _Transfer:
    """The download of one file, from the first address that gives it.

    origin  of the partial file: its url, strong etag, and the whole file's length (total) if announced; empty: unknown
    """

    def __init__(self, file: SourceFile, path: Path, connections: Connections, update: Progress) -> None:
        self.file, self.path, self.connections, self.update = file, path, connections, update
        self.partial = path.with_name(path.name + ".partial")
        self.origin_file = path.with_name(path.name + ".partial.json")
        self.origin: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.origin = dict(json.loads(self.origin_file.read_text(encoding="utf-8")))

    @property
    def size(self) -> int:
        """Bytes that are there already."""
        return self.partial.stat().st_size if self.partial.exists() else 0

    def run(self) -> None:
        reasons = []
        for url in self.file.urls:
            try:
                self._download_from(url)
                break
            except _Refused as error:
                reasons.append(f"{url}: {error}")
        else:
            raise MissingFiles(f"{self.file.name}: {'; '.join(reasons)}")
        with self.partial.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(self.partial, self.path)
        self.origin_file.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _download_from(self, url: str) -> None:
        """Complete and verify the file from one address. Raises _Refused."""
        resumed = self.size > 0
        self._complete(url)
        actual = sha256(self.partial) if self.file.sha256 else ""
        if actual != self.file.sha256:
            if not resumed:
                aside = self.path.with_name(self.path.name + ".wrong")
                os.replace(self.partial, aside)
                self._discard()
                raise _Refused(f"sha256 {actual}, expected {self.file.sha256}; not used, kept as {aside.name}")
            self._discard()  # its beginning may be another file's
            self._download_from(url)

    def _complete(self, url: str) -> None:
        """Repeat requests until the file has its length. (urllib3 repeats no request whose body broke off.)"""
        without_progress = 0
        while True:
            before = self.size
            try:
                return self._request(url)
            except _Interrupted as error:
                without_progress = 0 if self.size > before else without_progress + 1
                if without_progress == ATTEMPTS:
                    raise _Refused(str(error)) from error
                time.sleep(PAUSE * 4**without_progress)

    def _discard(self) -> None:
        self.partial.unlink(missing_ok=True)
        self.origin_file.unlink(missing_ok=True)
        self.origin = {}

    def _request(self, url: str) -> None:
        """Request the missing part and append it. Raises _Refused or _Interrupted."""
        same = self.origin.get("url") == url
        if self.size and not same and not self.file.sha256:  # nothing would notice a mixture
            self._discard()
        size, total = self.size, self.file.bytes or (self.origin.get("total") if same else None)
        if size and size == total:
            return
        headers = {"Range": f"bytes={size}-"} if size else {}
        if size and same and self.origin.get("etag"):
            headers["If-Range"] = self.origin["etag"]
        with self.connections.get(url, headers) as response:
            start, total = self._check_headers(response, size)
            etag = response.headers.get("ETag", "")
            self.origin = {"url": url, "etag": "" if etag.startswith("W/") else etag, "total": total}
            write_atomically(self.origin_file, json.dumps(self.origin))
            with self.partial.open("r+b" if self.partial.exists() else "wb") as out:
                out.truncate(start)
                out.seek(start)
                self._copy(response, out, start, total)

    def _check_headers(self, response: requests.Response, size: int) -> tuple[int, int | None]:
        """Return (position in the file at which the body begins, length of the whole file if announced)."""
        status = response.status_code
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._discard()
            raise _Interrupted("the requested part is not there")
        if status >= HTTPStatus.BAD_REQUEST:
            raise _Refused(f"{status} {response.reason}")
        if status == HTTPStatus.PARTIAL_CONTENT:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != size:
                self._discard()
                raise _Interrupted("the server sent another part than the requested one")
            start, total = size, None if match[2] == "*" else int(match[2])
        else:
            length = response.headers.get("Content-Length")
            start, total = 0, int(length) if length else None
        hops = [hop.url for hop in (*response.history, response)]
        unprotected = next((hop for hop in hops if not hop.startswith("https:")), None)
        if hops[0].startswith("https:") and unprotected and not self.file.sha256:
            raise _Refused(f"led to {unprotected}, which anybody on the way may change, and there is no checksum")
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if kind == "text/html" and not self.file.name.endswith((".html", ".htm")):
            raise _Refused("a web page, not the file")
        if self.file.bytes and total not in (None, self.file.bytes):
            raise _Refused(f"{total:,} bytes there, the published file has {self.file.bytes:,}")
        free = shutil.disk_usage(self.path.parent).free
        if total is not None and free < total - start:
            raise DataError(f"{self.path}: {(total - start) / 1e6:,.0f} MB to come, {free / 1e6:,.0f} MB free")
        return start, total

    def _copy(self, response: requests.Response, out: IO[bytes], size: int, total: int | None) -> None:
        """Append the body as it was sent, not unpacked. (urllib3 compares its length with the announced one.)"""
        limit = total if total is not None else self.file.bytes
        while True:
            try:
                piece = response.raw.read1(READ_SIZE, decode_content=False)
            except (HTTPError, OSError) as error:
                of_total = f" of {total:,}" if total is not None else ""
                raise _Interrupted(f"broke off after {size:,}{of_total} bytes") from error
            if not piece:
                return
            size += len(piece)
            if limit and size > limit:
                raise _Refused(f"more than the {limit:,} bytes of the file")
            out.write(piece)
            out.flush()
            self.update(size, limit)
