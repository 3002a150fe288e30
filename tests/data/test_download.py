"""Downloads, against a server on this machine: whole and right, or not there."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from typer.testing import CliRunner

import zoo
from tests.benchmarks import layouts
from zoo.cli.data import app
from zoo.data import download as module
from zoo.data.download import Connections, NoNetwork, download, fetch
from zoo.spec.registry import registry

BODY = bytes(i * 7 % 251 for i in range(300_000))
RIGHT = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY in the manner that the first part of a path names, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.files: dict[str, bytes] = {}
        self.pause = 0.0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing where a client hangs up, which some tests make it do."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def ranges(self, path: str) -> list[str | None]:
        return [asked for name, asked in self.asked if name == path]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path, asked = self.path.removeprefix("/"), self.headers.get("Range")
        self.server.asked.append((path, asked))
        how = path.partition("/")[0]
        if how == "silent":
            time.sleep(2)
            return
        body = self.server.files.get(path, BODY if how != "other" else BODY[::-1])
        if how == "404":
            self.send_error(404)
            return
        begin, status, kind = 0, 200, "application/octet-stream"
        if how == "html":
            body, kind = b"<html>Please log in</html>", "text/html; charset=utf-8"
        tag = '"second"' if how == "changed" and len(self.server.ranges(path)) > 1 else '"first"'
        current = self.headers.get("If-Range") in (None, tag)
        if asked and how != "no-range" and current:
            begin, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
            if begin >= len(body):
                self.send_error(416)
                return
        end = len(body)
        if how in ("short", "no-range", "changed") and len(self.server.ranges(path)) == 1:
            end = begin + 100_000
        if how == "always-short":
            end = min(begin + 70_000, len(body))
        if how == "stuck":
            end = begin
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("ETag", tag)
        if how == "chunked":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body) - begin))
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        for first in range(begin, end, 50_000):
            self.wfile.write(body[first : min(first + 50_000, end)])
            self.wfile.flush()
            time.sleep(self.server.pause)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setenv("ZOO_OFFLINE", "0")


def file(*urls: str, sha256: str = RIGHT, size: int = len(BODY), name: str = "sub/data.bin") -> zoo.SourceFile:
    return zoo.SourceFile(name=name, urls=urls, sha256=sha256, bytes=size)


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))


@pytest.mark.parametrize("how", ["plain", "chunked"])
def test_a_file_arrives_whole_under_its_name(how: str, server: Server, tmp_path: Path) -> None:
    path = fetch(file(server.url(f"{how}/x")), tmp_path)
    assert path == tmp_path / "sub" / "data.bin"
    assert path.read_bytes() == BODY
    assert left(tmp_path) == ["data.bin"]
    fetch(file(server.url(f"{how}/x")), tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("checksum", [RIGHT, ""])
def test_what_breaks_off_goes_on_where_it_broke(checksum: str, server: Server, tmp_path: Path) -> None:
    path = fetch(file(server.url("short/x"), sha256=checksum), tmp_path)
    assert path.read_bytes() == BODY
    assert server.ranges("short/x") == [None, "bytes=100000-"]


def test_an_answer_that_breaks_off_again_and_again_arrives(server: Server, tmp_path: Path) -> None:
    assert fetch(file(server.url("always-short/x")), tmp_path).read_bytes() == BODY
    assert len(server.asked) == 5


@pytest.mark.parametrize("how", ["no-range", "changed"])
def test_servers_that_cannot_go_on_begin_anew(how: str, server: Server, tmp_path: Path) -> None:
    """No ranges at all; or the file was changed there since."""
    assert fetch(file(server.url(f"{how}/x"), sha256=""), tmp_path).read_bytes() == BODY
    assert len(server.asked) == 2


def test_the_next_mirror_is_tried(server: Server, tmp_path: Path) -> None:
    urls = [server.url(path) for path in ("404/x", "html/x", "stuck/x", "other/x", "plain/x")]
    assert fetch(file(*urls), tmp_path).read_bytes() == BODY
    assert [len(server.ranges(f"{how}/x")) for how in ("404", "html", "stuck", "other", "plain")] == [1, 1, 3, 1, 1]
    assert left(tmp_path) == ["data.bin", "data.bin.wrong"]


def test_every_address_that_fails_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(zoo.MissingFiles) as caught:
        fetch(file(*(server.url(path) for path in ("404/x", "html/x", "stuck/x"))), tmp_path)
    said = str(caught.value)
    assert "\n" not in said
    assert f"{server.url('404/x')}: 404" in said
    assert "a web page, not the file" in said
    assert "broke off after 0 of 300,000 bytes" in said
    assert not (tmp_path / "sub" / "data.bin").exists()


def test_a_wrong_checksum_names_file_expected_and_found(server: Server, tmp_path: Path) -> None:
    found = hashlib.sha256(BODY[::-1]).hexdigest()
    with pytest.raises(zoo.MissingFiles, match=f"sub/data.bin: .*sha256 {found}, expected {RIGHT}; not used"):
        fetch(file(server.url("other/x")), tmp_path)
    assert left(tmp_path) == ["data.bin.wrong"]


def test_another_length_than_published_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(zoo.MissingFiles, match="300,000 bytes there, the published file has 300,001"):
        fetch(file(server.url("plain/x"), sha256="", size=len(BODY) + 1), tmp_path)
    with pytest.raises(zoo.MissingFiles, match="more than the 200,000 bytes"):
        fetch(file(server.url("chunked/x"), sha256="", size=200_000), tmp_path)
    assert "data.bin" not in left(tmp_path)


def test_the_beginning_of_another_file_is_found_out(server: Server, tmp_path: Path) -> None:
    """Half a file from elsewhere, kept because the checksum judges it: begun anew when that fails."""
    (tmp_path / "sub").mkdir()
    partial = tmp_path / "sub" / "data.bin.partial"
    partial.write_bytes(b"x" * 1000)
    assert fetch(file(server.url("plain/x")), tmp_path).read_bytes() == BODY
    assert server.ranges("plain/x") == ["bytes=1000-", None]


def test_without_a_checksum_nothing_is_mixed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.bin.partial").write_bytes(b"x" * 1000)
    assert fetch(file(server.url("plain/x"), sha256=""), tmp_path).read_bytes() == BODY
    assert server.ranges("plain/x") == [None]


def test_a_partial_file_that_is_too_long_is_begun_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.bin.partial").write_bytes(BODY + b"x")
    assert fetch(file(server.url("plain/x"), size=0), tmp_path).read_bytes() == BODY
    assert server.ranges("plain/x") == ["bytes=300001-", None]


SCRIPT = """
import sys
from pathlib import Path
import zoo
from zoo.data.download import fetch
fetch(zoo.SourceFile(name="data.bin", urls=(sys.argv[1],), sha256=sys.argv[2]), Path(sys.argv[3]))
print("done")
"""


def start(server: Server, folder: Path, checksum: str) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, server.url("plain/x"), checksum, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(what: Any, seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends
        threading.Event().wait(0.02)


def test_kill_9_and_the_same_command(server: Server, tmp_path: Path) -> None:
    server.pause = 0.5
    partial = tmp_path / "data.bin.partial"
    victim = start(server, tmp_path, "")
    wait_for(lambda: partial.exists() and partial.stat().st_size >= 50_000)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert left(tmp_path) == ["data.bin.partial", "data.bin.partial.json"]
    have = partial.stat().st_size
    server.pause = 0.0
    path = fetch(file(server.url("plain/x"), sha256="", size=0, name="data.bin"), tmp_path)
    assert path.read_bytes() == BODY
    assert server.ranges("plain/x") == [None, f"bytes={have}-"]


def test_two_processes_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    server.pause = 0.3
    both = [start(server, tmp_path, RIGHT) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [out for out, _ in said] == ["done\n", "done\n"]
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert len(server.asked) == 1


class Redirect(HTTPAdapter):
    """Answers every request with a redirect."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self.location = location

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.url, response.request = 302, str(request.url), request
        response.headers["Location"] = self.location
        response.raw = io.BytesIO()
        return response


def test_an_address_that_leads_to_an_unprotected_one_needs_a_checksum(server: Server, tmp_path: Path) -> None:
    connections = Connections()
    connections.session.mount("https://a.example/", Redirect(server.url("plain/x")))
    with pytest.raises(zoo.MissingFiles, match=r"led to http://127\.0\.0\.1:\d+/plain/x, which anybody"):
        fetch(file("https://a.example/x", sha256=""), tmp_path, connections)
    assert fetch(file("https://a.example/x"), tmp_path, connections).read_bytes() == BODY


def test_a_full_disk_is_told_before_it_is_full(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 100_000}))
    with pytest.raises(zoo.DataError, match=r"data\.bin: 0 MB to come, 0 MB free"):
        fetch(file(server.url("plain/x")), tmp_path)


class Unreachable(HTTPAdapter):
    """Fails as requests does without a network, and keeps the hosts that were contacted."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: list[str] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self.hosts.append(str(request.url).split("/")[2])
        raise requests.ConnectionError(request=request) from OSError(101, "Network is unreachable")


def test_without_a_network_two_hosts_are_asked_and_no_more(tmp_path: Path) -> None:
    connections, adapter = Connections(), Unreachable()
    connections.session.mount("https://", adapter)
    for _ in range(3):
        with pytest.raises(NoNetwork, match=r"no network \(a\.example: Network is unreachable; b\.example: Network"):
            fetch(file("https://a.example/1", "https://a.example/2", "https://b.example/3"), tmp_path, connections)
    assert adapter.hosts == ["a.example", "b.example"]


def test_a_server_that_never_answers_does_not_hold_us_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", (0.2, 0.2))
    with pytest.raises(zoo.MissingFiles, match=r"silent/1: timed out"):
        fetch(file(server.url("silent/1"), server.url("silent/2")), tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../x", "urls": ("https://a/x",)},
        {"name": "/x", "urls": ("https://a/x",)},
        {"name": "x", "urls": ()},
        {"name": "x", "urls": ("ftp://a/x",)},
        {"name": "x", "urls": ("https://a/x",), "sha256": "abc"},
    ],
)
def test_what_is_no_public_file_cannot_be_declared(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"x: |x'"):
        zoo.SourceFile(**wrong)


# -- tasks -------------------------------------------------------------------------------------------------------------


def serve(task: str, *sets: tuple[zoo.SourceFile, ...]) -> None:
    """Let a task's files come from our server."""
    record = registry().task(task).record
    object.__setattr__(record, "source", zoo.Source(files=sets[0], instead=sets[1:]))


@pytest.fixture
def sources() -> Iterator[None]:
    """Tasks as they were, afterwards."""
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.mark.usefixtures("sources")
def test_prepare_downloads_converts_and_finds_it_again(server: Server, tmp_path: Path) -> None:
    place = layouts.cifar(tmp_path / "theirs")
    archive = layouts.archive(place, "cifar-10-binary.tar.gz").read_bytes()
    server.files["plain/mine-binary.tar.gz"] = archive
    name = "cifar-10-batches-bin/cifar-10-binary.tar.gz"
    digest = hashlib.sha256(archive).hexdigest()
    parquet = (file(server.url("404/x"), name="cifar10/plain_text/train-00000-of-00001.parquet", sha256="", size=0),)
    serve("image", parquet, (file(server.url("plain/mine-binary.tar.gz"), name=name, sha256=digest, size=0),))
    result = CliRunner().invoke(app, ["prepare", "image", "--protocol", "smoke", "--json"])
    # our archive is not the published one: it is downloaded, and then its reader refuses it by its name
    assert isinstance(result.exception, zoo.DataError)
    assert "the published file has c4a38c5" in str(result.exception)
    (tmp_path / "data" / name).rename(tmp_path / "data" / "cifar-10-batches-bin" / "aside")

    server.files["plain/x"] = b""
    for path in sorted(place.glob("*.bin")):
        server.files[f"plain/{path.name}"] = path.read_bytes()
    files = [
        file(server.url(f"plain/{p.name}"), name=f"cifar-10-batches-bin/{p.name}", sha256="", size=0)
        for p in sorted(place.glob("*.bin"))
    ]
    serve("image", tuple(files))
    result = CliRunner().invoke(app, ["prepare", "image", "--protocol", "smoke", "--json"], catch_exceptions=False)
    row = json.loads(result.stdout)[0]
    assert row["prepared"]
    assert "license: none stated; cite Krizhevsky 2009" in result.stderr
    assert "size not published" in result.stderr
    asked = len(server.asked)
    CliRunner().invoke(app, ["prepare", "image", "--protocol", "smoke", "--json"], catch_exceptions=False)
    assert len(server.asked) == asked


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("how", ["--offline", "variable", "--from", "path"])
def test_nothing_is_downloaded_that_was_not_asked_for(
    how: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("text", (file(server.url("plain/x"), name="aclImdb_v1.tar.gz"),))
    (tmp_path / "mine").mkdir()
    more = {
        "--offline": ["--offline"],
        "variable": [],
        "--from": ["--from", str(tmp_path / "mine")],
        "path": ["--set", f"task.path={tmp_path / 'mine'}"],
    }[how]
    if how == "variable":
        monkeypatch.setenv("ZOO_OFFLINE", "1")
    result = CliRunner().invoke(app, ["prepare", "text", "--protocol", "smoke", *more])
    assert isinstance(result.exception, zoo.MissingFiles)
    assert "\n" not in str(result.exception)
    assert "bring aclImdb_v1.tar.gz" in str(result.exception)
    assert server.asked == []


@pytest.mark.usefixtures("sources")
def test_what_cannot_be_had_is_one_line_a_task(server: Server) -> None:
    serve("text", (file(server.url("404/a"), name="aclImdb_v1.tar.gz"),))
    serve("image", (file(server.url("other/a"), name="cifar-10-binary.tar.gz"),))
    result = CliRunner().invoke(app, ["prepare", "text,image,retrieval", "--protocol", "smoke"])
    assert isinstance(result.exception, zoo.MissingFiles)
    assert result.exception.exit_code == 2
    text, image, retrieval = str(result.exception).splitlines()
    assert text.startswith("text: not downloaded: aclImdb_v1.tar.gz: http://127.0.0.1")
    assert "sha256" in image
    assert retrieval.startswith("retrieval cannot be generated: bring new_aan_pairs")


@pytest.mark.usefixtures("sources")
def test_where_the_data_directory_is_read_only_downloads_go_to_the_cache(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.data import paths

    monkeypatch.setattr(paths.os, "access", lambda place, mode: not Path(place).is_relative_to(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))
    serve("text", (file(server.url("plain/x"), name="some.bin"),))
    task = registry().task("text").record
    assert download(task, tmp_path / "data", Connections()) == tmp_path / "cache"
    assert (tmp_path / "cache" / "some.bin").read_bytes() == BODY
    assert paths.saved_location(tmp_path / "data", "text") == tmp_path / "cache"
    assert list((tmp_path / "data").iterdir()) == []


def test_public_files_of_the_zoo_are_those_of_the_papers() -> None:
    """Nothing points at Long Range Arena's bucket, which is closed; and what has a checksum has a size."""
    for entry in registry().tasks.values():
        for files in entry.record.source.sets:
            for one in files:
                assert not any("storage.googleapis.com/long-range-arena" in url for url in one.urls)
                assert bool(one.bytes) or not one.sha256
    text = registry().task("text").record.source.files[0]
    assert (text.name, text.bytes) == ("aclImdb_v1.tar.gz", 84_125_825)
    assert text.sha256.startswith("c40f74a18d3b61f9")
