"""Where data lie, and how pictures are drawn."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from typer.testing import CliRunner

import zoo
from zoo import registry
from zoo.cli import app
from zoo.data import draw
from zoo.data.download import Connections, fetch
from zoo.data.paths import LOCATIONS, cache_dir, data_dir, save_location, saved_location
from zoo.data.prepare import prepare_task
from zoo.ops.compiled import compiled


def test_prepared_data_go_where_they_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "not" / "there"
    assert cache_dir(root) == root
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    assert cache_dir(root) == Path(platformdirs.user_cache_dir("seqzoo"))
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))
    assert cache_dir(root) == tmp_path / "cache"


def test_places_are_remembered_task_by_task(tmp_path: Path) -> None:
    assert saved_location(tmp_path, "text") is None
    save_location(tmp_path, "text", Path("/a"))
    save_location(tmp_path, "image", Path("/b"))
    save_location(tmp_path, "text", Path("/c"))
    assert [saved_location(tmp_path, t) for t in ("text", "image", "pathx")] == [Path("/c"), Path("/b"), None]
    (tmp_path / LOCATIONS).write_text("[")
    with pytest.raises(zoo.DataError, match=r"places\.json: damaged"):
        saved_location(tmp_path, "text")


NOBODY = 65_534


def as_nobody(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A command of a user who may write neither into the installation nor at home."""
    if sys.platform == "win32" or os.geteuid() != 0:
        pytest.skip("needs root, to become a user who may not write")
    inherited = {k: v for k, v in os.environ.items() if k not in ("HOME", "ZOO_DATA_DIR", "XDG_CACHE_HOME")}
    command, user = [sys.executable, "-m", "zoo", *args], {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    try:
        return subprocess.run(
            command, cwd="/", env=inherited | env, capture_output=True, text=True, check=False, **user
        )
    except PermissionError:
        pytest.skip("another user may not run this interpreter")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may write to, also under a umask and below private parents."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o777)
        yield Path(name)


def test_a_read_only_installation_generates_and_lists(open_folder: Path) -> None:
    for args in (["sample", "mqar"], ["list"], ["prepare", "pathfinder", "--protocol", "smoke"]):
        done = as_nobody("data", *args, HOME="/root", ZOO_CACHE_DIR=str(open_folder / "cache"))
        assert done.returncode == 0, done.stderr
    assert list((open_folder / "cache" / "numba").rglob("*.nbi"))
    done = as_nobody("data", "sample", "mqar", HOME="/root")
    assert done.returncode == 0, done.stderr


def test_an_unwritable_data_directory_is_named_with_its_remedy(open_folder: Path) -> None:
    for home in ("/root", "/nowhere"):
        done = as_nobody("data", "prepare", "listops", "--protocol", "smoke", HOME=home)
        assert done.returncode == 2
        assert done.stderr.startswith(f"zoo: {home}")
        assert "name a folder that may be written to with ZOO_CACHE_DIR" in done.stderr
    done = as_nobody("data", "prepare", "text", "--from", str(open_folder), HOME="/root")
    assert done.returncode == 2
    assert "bring aclImdb_v1.tar.gz" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="a folder in which nothing can be made")
def test_what_cannot_be_stored_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared data, downloads and remembered places; what needs no disk works."""
    monkeypatch.setenv("ZOO_DATA_DIR", "/proc/nowhere")
    remedy = "name a folder that may be written to with ZOO_CACHE_DIR"
    listops, text = (registry().task(name).record for name in ("listops", "text"))
    for attempt in (
        lambda: prepare_task(listops, "smoke", {}, Connections()),
        lambda: save_location(data_dir(), "text", tmp_path),
        lambda: fetch(text.source.files[0], data_dir()),
    ):
        with pytest.raises(zoo.DataError, match=f"/proc/nowhere.*: .*; {remedy}"):
            attempt()
    for args in (["list"], ["sample", "mqar"], ["stats", "mqar", "--protocol", "smoke"]):
        assert CliRunner().invoke(app, ["data", *args]).exit_code == 0


def test_a_user_without_home_is_told_to_name_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_DATA_DIR")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: "~/.cache/seqzoo")
    with pytest.raises(zoo.UserError, match="no home directory to store data in: name a folder with ZOO_DATA_DIR"):
        data_dir()
    monkeypatch.setenv("ZOO_DATA_DIR", "/data")
    assert data_dir() == Path("/data")


@pytest.mark.skipif(sys.platform != "linux", reason="a folder in which nothing can be made")
def test_functions_compile_where_no_place_keeps_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope: dict[str, Any] = {}
    exec(compile("def twice(x):\n    return 2 * x", "/proc/cpuinfo", "exec"), scope)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "/proc/nowhere")
    assert compiled(scope["twice"])(21) == 42
    assert list((tmp_path / "data" / "numba").rglob("*.nbi"))
    for name in ("ZOO_DATA_DIR", "ZOO_CACHE_DIR"):
        monkeypatch.setenv(name, "/proc/nowhere")
    assert compiled(scope["twice"])(21) == 42


def test_pictures_in_a_terminal() -> None:
    picture = np.array([[0, 255], [128, 0], [7, 8]], np.uint8)
    lines = draw.half_blocks(picture, 80).splitlines()
    assert lines[0] == ("\x1b[38;2;0;0;0;48;2;128;128;128m▀\x1b[38;2;255;255;255;48;2;0;0;0m▀\x1b[0m")
    assert lines[1].startswith("\x1b[38;2;7;7;7;48;2;0;0;0m▀")
    assert draw.shades(picture, 80).split("\n") == ["  @@", "++", ""]


def test_wide_pictures_are_shrunk_and_thin_lines_survive() -> None:
    picture = np.zeros((100, 100), np.uint8)
    picture[:, 51] = 200
    small = draw.shrink(picture, 30)
    assert small.shape == (25, 25)
    assert (small[:, 12] == 200).all()
    assert int((small > 0).sum()) == 25
    assert draw.shrink(picture, 100) is picture
