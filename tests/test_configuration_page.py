"""docs/configuration.md is what the dataclasses' annotations and docstrings say."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT


def test_the_page_is_current() -> None:
    use = "print(reference(), end=''); assert 'torch' not in sys.modules"
    code = f"import sys; from zoo.run.reference import reference; {use}"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert made == page, "run python -m zoo.run.reference > docs/configuration.md"


def test_every_key_has_help_and_a_default() -> None:
    rows = [line for line in (ROOT / "docs" / "configuration.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 300
    for row in rows:
        key, values, default, text = (cell.strip() for cell in row.replace("\\|", "/")[1:-1].split("|"))
        assert all((values, default, text)), key
