"""docs/plugins.md, which others extend."""

from __future__ import annotations

import re

from tests.conftest import ROOT
from zoo.spec.registry import registry


def rows() -> list[list[str]]:
    lines = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")][2:]


def test_every_line_names_a_distribution_what_it_brings_its_page_and_what_it_is() -> None:
    for name, brings, page, what in rows():
        assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name)
        assert re.search(r"\d+ (architecture|task)s?\b", brings)
        assert re.fullmatch(r"<https://[^\s<>]+>", page)
        assert what


def test_they_are_in_order_and_named_once() -> None:
    names = [row[0].lower() for row in rows()]
    assert names == sorted(set(names))


def test_ours_is_counted_right() -> None:
    (ours,) = (row for row in rows() if row[0] == "seqzoo")
    known = registry()
    assert ours[1] == f"{len(known.architectures)} architectures, {len(known.tasks)} tasks"
