"""The command line: fast, quiet under --json, one line and exit code 2 for a mistake."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

ZOO = [sys.executable, "-m", "zoo"]


def zoo(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ZOO, *args], cwd=ROOT, env=os.environ | env, capture_output=True, text=True)


def test_listing_imports_neither_torch_nor_lightning() -> None:
    code = (
        "import sys; from zoo.cli import app; import zoo; from typer.testing import CliRunner; "
        "done = CliRunner().invoke(app, ['list', '--json']); assert done.exit_code == 0, done.output; "
        "print([m for m in ('torch', 'lightning', 'numpy', 'numba', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_importing_zoo_imports_no_torch() -> None:
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", "import zoo"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "torch" not in done.stderr


def test_list_json_is_one_object_and_nothing_else() -> None:
    done = zoo("list", "--json")
    shown = json.loads(done.stdout)
    assert set(shown) == {"architectures", "tasks"}
    names = {row["name"] for row in shown["architectures"]}
    assert {"transformer", "transformer_xl", "linformer", "perceiver", "s4", "mamba"} <= names
    assert {"listops", "pathfinder", "pathx"} <= {row["name"] for row in shown["tasks"]}
    assert done.stderr == ""


def test_list_fits_a_terminal_and_wide_has_the_rest() -> None:
    short, wide = zoo("list").stdout, zoo("list", "--wide").stdout
    assert max(map(len, short.splitlines())) <= 80
    for name in ("mamba", "wikitext"):
        assert name in short
        assert name in wide
    assert "O(L² d)" not in short
    assert "O(L² d)" in wide


def test_names_need_no_options(tmp_path: Path) -> None:
    args = ("bench", "mamba", "listops", "--protocol", "smoke", "--estimate", "--json")
    assert json.loads(zoo(*args, ZOO_DATA_DIR=str(tmp_path)).stdout)["runs"][0]["architecture"] == "mamba"


def test_no_colours_where_none_are_wanted(tmp_path: Path) -> None:
    """NO_COLOR, in a terminal of its own."""
    args = [*ZOO, "data", "sample", "pathfinder", "--protocol", "smoke"]
    shown = []
    for env in ({}, {"NO_COLOR": "1"}):
        leader, follower = pty.openpty()
        env = {**os.environ, "ZOO_DATA_DIR": str(tmp_path), "TERM": "xterm-256color", **env}
        with subprocess.Popen(args, cwd=ROOT, env=env, stdout=follower, stderr=subprocess.DEVNULL):
            os.close(follower)
            text = b""
            with contextlib.suppress(OSError):  # the other end is closed
                while part := os.read(leader, 1 << 16):
                    text += part
        os.close(leader)
        shown.append(text)
    assert b"\x1b[" in shown[0]
    assert b"\x1b[" not in shown[1]
    assert b"pathfinder train 0" in shown[1]


@pytest.mark.parametrize(("args", "code"), [("list --json", 0), ("list", 0), ("show mmba", 2)])
def test_a_reader_that_stops_reading_is_no_failure(args: str, code: int) -> None:
    command = f"{sys.executable} -m zoo {args} | head -c 10; exit ${{PIPESTATUS[0]}}"
    piped = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert piped.returncode == code, piped.stderr
    assert len(piped.stderr.splitlines()) == (1 if code else 0)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("bench", "--arch", "mamaba", "--task", "listops"), "did you mean 'mamba'"),
        (("bench", "--arch", "mamba", "--task", "listop"), "did you mean 'listops'"),
        (("bench", "--arch", "mamba", "--task", "listops", "--protocol", "papper"), "did you mean 'paper'"),
        (("bench", "--arch", "mamba", "--task", "listops", "--set", "optim.lrr=1"), "did you mean 'optim.lr'"),
        (
            ("bench", "--arch", "mamba", "--task", "listops", "--set", "optim.lr=x"),
            "optim.lr: expected number > 0, got 'x'",
        ),
        (("bench", "--arch", "mamba", "--task", "listops", "--set", "model.mode=bidirectional"), "model.mode"),
        (
            ("bench", "--arch", "transformer", "--task", "listops", "--set", "model.d_model=30"),
            "4 does not divide d_model 30 (from default; model.d_model from --set)",
        ),
        (("bench", "--arch", "mamba", "--task", "listops", "--seed", "3", "--seeds", "2"), "one of the two"),
        (("bench", "mamba", "listops", "mqar"), "takes two names"),
        (("bench", "mamba", "listops", "--arch", "s4"), "mamba: --arch s4 names it already"),
        (("bench", "mamba", "--task", ""), "--task: an empty value"),
        (("bench", "--arch=", "--task", "listops"), "--arch: an empty value"),
        (("leaderboard", "--task", " "), "--task: an empty value"),
        (("data", "prepare", ""), "an argument: an empty value"),
        (("show", "mamba", "--task", ""), "--task: an empty value"),
        (("show", "mamba", "--protocol", "quick"), "--protocol needs --task"),
        (("show", "mamba", "--task", "listops", "--protocol", "quik"), "did you mean 'quick'"),
        (("show", "mmba"), "did you mean 'mamba'"),
        (("check",), "names of architectures or tasks, or --all"),
        (("check", "perciever"), "did you mean 'perceiver'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path: Path, args: tuple[str, ...], says: str) -> None:
    done = zoo(*args, ZOO_DATA_DIR=str(tmp_path / "data"))
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert not (tmp_path / "data").exists()


def test_debug_shows_the_traceback() -> None:
    done = zoo("--debug", "show", "mmba")
    assert "Traceback" in done.stderr


def test_usage_errors_exit_with_2() -> None:
    assert zoo("bench").returncode == 2
    assert zoo("bnech").returncode == 2


def test_show_has_each_value_with_its_origin() -> None:
    done = zoo("show", "mamba", "--task", "listops", "--json")
    shown = json.loads(done.stdout)
    rows = {row["key"]: row for row in shown["configuration"]}
    assert rows["train.max_samples"]["origin"].startswith("protocol quick of listops")
    assert all(row["help"] for row in rows.values())
    assert shown["paper"]["arxiv"] == "2312.00752"
    assert shown["capabilities"]["modes"] == ["causal"]
    text = zoo("show", "mamba", "--task", "listops").stdout
    assert "arch.d_state" in text


def test_doctor_names_broken_plugins(tmp_path: Path) -> None:
    (tmp_path / "broken_plugin.py").write_text("import nothing_of_the_kind\n")
    done = zoo("doctor", "--json", ZOO_PLUGINS="broken_plugin", PYTHONPATH=str(tmp_path))
    shown = json.loads(done.stdout)
    row = next(p for p in shown["plugins"] if p["name"] == "broken_plugin")
    assert row["state"] == "error"
    assert "nothing_of_the_kind" in row["detail"]
    assert len([line for line in done.stderr.splitlines() if "broken_plugin" in line]) == 1
    assert {p["state"] for p in shown["plugins"] if p["builtin"]} == {"ok"}
    assert shown["ops"]
