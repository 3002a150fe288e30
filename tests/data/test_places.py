"""Where data lie, and how pictures are drawn."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import platformdirs
import pytest

import zoo
from zoo.data import draw
from zoo.data.paths import LOCATIONS, cache_dir, save_location, saved_location


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
