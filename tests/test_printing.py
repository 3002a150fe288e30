"""Nothing that only prints can fail or end the work: whatever the terminal's encoding, and when nobody reads on."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.board.samples import classification_records, question_records
from tests.conftest import ROOT
from zoo.cli import main
from zoo.spec.store import write
from zoo_lambada.sample_files import write_lambada
from zoo_lra.sample_files import write_aan, write_imdb

PIPES = ("stdout", "stderr")


def zoo_in(encoding: str, monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command whose streams have an encoding and are strict about it."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding, "strict") for name in PIPES}
    with monkeypatch.context() as patched:
        for name, stream in streams.items():
            patched.setattr(sys, name, stream)
        patched.setattr(sys, "argv", ["zoo", *args])
        try:
            main()
            code = 0
        except SystemExit as ending:
            code = int(ending.code or 0)
    texts = []
    for stream in streams.values():
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(encoding))
    return code, texts[0], texts[1]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for write_files in (write_imdb, write_aan, write_lambada):
        write_files(tmp_path / "data")
    for record in [*classification_records(), *question_records()]:
        if record.task.name in ("listops", "mqar", "needle", "wikitext"):  # classes, a suite of questions, and text
            write(record, tmp_path / "leaderboard" / "results")
    return tmp_path


def test_commands_print_in_the_poorest_encoding(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All others have the characters of ASCII."""
    results = files / "leaderboard" / "results"
    smoke = ("--protocol", "smoke")
    commands = [
        *(("list",), ("list", "--json"), ("show", "mamba"), ("show", "mamba", "--task", "text")),
        *(("data", "prepare", "text,listops", *smoke), ("data", "list"), ("data", "verify", "text", *smoke)),
        *(("data", "stats", task, *smoke) for task in ("text", "mqar", "lambada_standard")),
        *(("data", "sample", task, *smoke, "-n", "3") for task in ("text", "retrieval", "pathfinder", "wikitext")),
        *(("data", "sample", task, *smoke, "--split", "test") for task in ("lambada_openai", "needle", "mqar")),
        ("data", "export", "text", *smoke, "--to", str(files / "déjà vu → out")),
        *(("leaderboard", "--results", str(results)), ("leaderboard", "build", "--results", str(results))),
        ("leaderboard", "validate", "--results", str(results)),
        ("new", "arch", "mine", "--in", str(files / "naïve → new")),
    ]
    commands += [("doctor",), ("data", "bench", "mqar", *smoke, "--seconds", "0.1"), ("check", "mqar")]
    commands += [("bench", "--arch", "transformer", "--task", "mqar", *smoke, "--runs", str(files / "→"))]
    for command in commands:
        code, _, errors = zoo_in("ascii", monkeypatch, *command)
        assert code == 0, (command, errors)
    mistakes = [
        *(("show", "mämba"), ("bench", "--arch", "→", "--task", "text"), ("data", "prepare", "text", "--from", "/é/→")),
        *(("data", "sample", "text", "--set", "task.path=/→"), ("leaderboard", "--results", "/é→"), ("check", "→")),
        *(("convert", "--arch", "bigbird", "--from", "/→"), ("new", "arch", "→")),
    ]
    for command in mistakes:
        code, _, errors = zoo_in("ascii", monkeypatch, *command)
        assert code == 2, (command, errors)
        assert "a bug in zoo" not in errors


@pytest.mark.parametrize("encoding", ["cp437", "gbk", "cp1252", "utf-8"])
def test_every_encoding_prints_what_it_has(encoding: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = str(files / "leaderboard" / "results")
    for command in (("show", "mamba", "--task", "text"), ("leaderboard", "--results", results)):
        code, shown, errors = zoo_in(encoding, monkeypatch, *command)
        assert code == 0, (command, errors)
    minus = "−".encode(encoding, "replace").decode(encoding)
    assert f"(score {minus} baseline)" in shown


def test_what_an_encoding_lacks_is_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, errors = zoo_in("cp437", monkeypatch, "show", "→")
    assert "unknown architecture '?'" in errors


ONE_AFTER_ANOTHER = """
import json, sys
from zoo.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["zoo", *arguments]
    try:
        main()
    except SystemExit as ending:
        if ending.code:
            sys.exit(f"{arguments} ended with {ending.code}")
"""


@pytest.mark.interpreter
def test_files_are_utf8_whatever_the_locale(files: Path) -> None:
    """Board, records, exports, packages and tracebacks, written under a locale that has none of their characters."""
    results = files / "leaderboard" / "results"
    env = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONWARNDEFAULTENCODING": "1"}
    commands = [
        ("leaderboard", "build", "--results", str(results)),
        ("data", "export", "text", "--protocol", "smoke", "--to", str(files / "out")),
        ("data", "sample", "text", "--protocol", "smoke", "--out", str(files / "sample.txt")),
        ("new", "task", "mine", "--in", str(files)),
        ("bench", "--arch", "transformer", "--task", "listops", "--protocol", "smoke"),
    ]
    # one after another in one interpreter, which imports torch once
    command = [sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(commands)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    own = [line for line in done.stderr.splitlines() if "EncodingWarning" in line and str(ROOT / "zoo") in line]
    assert own == []
    assert "×" in (results.parent / "README.md").read_text("utf-8")
    assert "très bien" in "".join(path.read_text("utf-8") for path in (files / "out").rglob("*.txt"))


@pytest.mark.board
def test_a_sweep_goes_on_where_its_encoding_lacks_a_character(tmp_path: Path) -> None:
    sweep = ("bench", "--arch", "transformer,retnet", "--task", "mqar", "--protocol", "smoke")
    env = os.environ | {"PYTHONIOENCODING": "cp437"}
    done = subprocess.run([sys.executable, "-m", "zoo", *sweep], env=env, capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "results").rglob("*-s0.json"))) == 2


SWEEP = [sys.executable, "-m", "zoo", "bench", "--arch", "linformer", "--task", "mqar", "--seeds", "2"]
SWEEP += ["--protocol", "smoke"]


def finished(tmp_path: Path) -> list[str]:
    """The status of each run of SWEEP."""
    return [json.loads(path.read_text())["status"] for path in (tmp_path / "results").rglob("*-s?.json")]


@pytest.mark.parametrize(("errors", "reads"), [("apart", 1), ("with the output", 0)])
def test_a_sweep_goes_on_when_its_reader_ends(tmp_path: Path, errors: str, reads: int) -> None:
    stderr = subprocess.DEVNULL if errors == "apart" else subprocess.STDOUT
    with subprocess.Popen(SWEEP, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr) as process:
        assert process.stdout is not None
        process.stdout.read(reads)
        process.stdout.close()
    assert finished(tmp_path) == ["ok", "ok"]


@pytest.mark.parametrize("stream", PIPES)
def test_a_sweep_goes_on_when_the_disk_of_its_output_is_full(tmp_path: Path, stream: str) -> None:
    with open("/dev/full", "wb") as full:
        streams: dict[str, Any] = dict.fromkeys(PIPES, subprocess.DEVNULL) | {stream: full}
        subprocess.run(SWEEP, cwd=ROOT, check=False, **streams)
    assert finished(tmp_path) == ["ok", "ok"]


@pytest.mark.interpreter
def test_a_sweep_goes_on_when_its_streams_are_closed(tmp_path: Path) -> None:
    """What it opens next, its workers' pipes say, gets the numbers of stdout and stderr."""
    command = f"{shlex.join([*SWEEP, '--seeds', '1'])} >&- 2>&-"
    subprocess.run(["bash", "-c", command], cwd=ROOT, check=False)
    assert finished(tmp_path) == ["ok"]


@pytest.mark.parametrize("stream", PIPES)
def test_a_sweep_goes_on_without_one_of_its_streams(
    tmp_path: Path, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, stream, None)  # as Python starts where it is closed
        patched.setattr(sys, "argv", ["zoo", *SWEEP[3:]])
        with pytest.raises(SystemExit) as ending:
            main()
    assert ending.value.code in (0, None)
    assert finished(tmp_path) == ["ok", "ok"]


def test_closed_stderr_leaves_stdout_to_the_result() -> None:
    command = f"{sys.executable} -m zoo data prepare listops,text --protocol smoke --json 2>&-"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert json.loads(done.stdout)[0]["task"] == "listops"
