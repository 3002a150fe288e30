"""docs/api: every public name has an entry, every entry exists, and the site's lists are those of the docstrings."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

import pytest

import zoo
import zoo.convert
import zoo.kinds
import zoo.nn
import zoo.ops
from tests.conftest import ROOT

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md")}
ENTRIES = [name for text in PAGES.values() for name in re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)]


@pytest.mark.parametrize("module", [zoo, zoo.nn, zoo.ops, zoo.kinds], ids=lambda module: module.__name__)
def test_every_public_name_has_an_entry(module: ModuleType) -> None:
    public = {f"{module.__name__}.{name}" for name in module.__all__}
    assert sorted(public - set(ENTRIES)) == []


def test_every_entry_exists_once() -> None:
    assert len(ENTRIES) == len(set(ENTRIES))
    for entry in ENTRIES:
        module, _, name = entry.rpartition(".")
        try:
            importlib.import_module(entry)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), name), entry


def test_every_page_is_in_the_sites_navigation() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(page for page in pages if not page.startswith("examples/") and f" {page}\n" not in site) == []
