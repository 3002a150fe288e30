"""`zoo generate` on runs of tasks on text and of recall tasks."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.benchmarks import layouts
from zoo.cli import main


def run(tmp_path: Path, arch: str, task: str, **overrides: Any) -> Path:
    """The folder of a smoke run."""
    layouts.everything(tmp_path / "data")
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    record = zoo.bench(arch, task, protocol="smoke", overrides=overrides, **folders)[0].record
    assert record.status == "ok", record.error
    return tmp_path / "runs" / record.id


def generate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["zoo", "generate", *map(str, arguments)])
    capsys.readouterr()
    with contextlib.suppress(SystemExit):
        main()
    out = capsys.readouterr()
    return out.out or out.err


@pytest.mark.parametrize(
    ("arch", "task"), [("mamba", "wikitext"), ("transformer", "wikitext"), ("longt5", "lambada_openai")]
)
def test_a_text_is_continued(
    arch: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(tmp_path, arch, task)
    new = json.loads(
        generate(capsys, monkeypatch, "--run", folder, "--prompt", "The game", "--max-new-tokens", 12, "--json")
    )
    assert 1 <= len(new["tokens"]) <= 12
    assert new["prompt"] == "The game"
    plain = generate(capsys, monkeypatch, "--run", folder, "--prompt", "The game", "--max-new-tokens", 12)
    assert plain == new["text"] + "\n"
    drawn = ("--temperature", 1.0, "--top-p", 0.9, "--max-new-tokens", 12, "--prompt", "The game", "--run", folder)
    assert generate(capsys, monkeypatch, *drawn, "--seed", 1) == generate(capsys, monkeypatch, *drawn, "--seed", 1)


def test_token_ids_are_continued_and_mistakes_are_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(tmp_path, "transformer", "mqar", **{"arch.positions": "learned"})
    new = generate(capsys, monkeypatch, "--run", folder, "--prompt", "3 5, 7", "--max-new-tokens", 4)
    assert len(list(map(int, new.split()))) == 4
    for prompt, says in (("3 x", "--prompt: "), ("", "--prompt: an empty value"), ("0", "token ids from 1 to")):
        assert says in generate(capsys, monkeypatch, "--run", folder, "--prompt", prompt)
    line = generate(capsys, monkeypatch, "--run", folder, "--prompt", "3 5", "--max-new-tokens", 5000)
    assert "learned positions for" in line
    assert "Traceback" not in line


def test_what_predicts_no_next_token_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(tmp_path, "linformer", "mqar")
    assert "predicts no next token" in generate(capsys, monkeypatch, "--run", folder, "--prompt", "3 5")
