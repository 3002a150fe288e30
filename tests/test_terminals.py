"""What a terminal shows while something runs: lines where it cannot move its cursor, and bars that fit its width."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest
from tqdm import tqdm

from tests.conftest import ROOT
from zoo.data import progress

SMOKE = ("bench", "--arch", "transformer", "--task", "listops", "--protocol", "smoke")


def in_terminal(*args: str, term: str, columns: int = 80) -> str:
    """What a command writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")} | {"TERM": term}
    command = [sys.executable, "-m", "zoo", *args]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait() == 0, shown
    return shown.decode()


def test_a_dumb_terminal_shows_a_line_per_validation_as_a_pipe_does() -> None:
    piped = subprocess.run([sys.executable, "-m", "zoo", *SMOKE, "--force"], cwd=ROOT, capture_output=True, text=True)
    expected = [re.sub(r"\d+ s,", "", line) for line in piped.stderr.splitlines() if "val loss" in line]
    assert len(expected) > 1
    for term in ("dumb", "unknown"):
        shown = in_terminal(*SMOKE, "--force", term=term)
        assert [re.sub(r"\d+ s,", "", line) for line in shown.splitlines() if "val loss" in line] == expected
        assert "\x1b" not in shown


def test_other_terminals_show_a_bar() -> None:
    assert "left" in in_terminal(*SMOKE, "--force", term="xterm", columns=60)


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    ("title", "unit"), [("preparing retrieval_books", "examples"), ("downloading aclImdb_v1.tar.gz", "bytes")]
)
def test_the_bars_of_data_show_count_and_time_left(
    columns: int, title: str, unit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    shown: list[tqdm] = []

    def bar(**options: Any) -> tqdm:
        shown.append(tqdm(**{**options, "file": out, "disable": False, "delay": 0, "mininterval": 0}, ncols=columns))
        return shown[0]

    monkeypatch.setattr(progress, "tqdm", bar)
    with progress.progress(title, unit) as update:
        for done in range(0, 84_125_825, 8_412_582):
            update(done, 84_125_825)
        line = str(shown[0])
    assert len(line) <= columns
    assert ("84.1M" if unit == "bytes" else "/84125825") in line
    assert re.search(r"left \d\d:\d\d", line)


def test_a_dumb_terminal_has_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    silent: list[Any] = []
    original = tqdm
    monkeypatch.setattr(progress, "tqdm", lambda **options: silent.append(options["disable"]) or original(**options))
    for term in ("dumb", "xterm"):
        monkeypatch.setenv("TERM", term)
        with progress.progress("x"):
            pass
    assert silent == [True, None]
