"""Costs at several lengths: exponents, and a part of the board that says what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.records import make, make_cost
from zoo.board import build as board
from zoo.board.scaling import fit_exponent, scaling_parts
from zoo.spec.cost import CostRecord
from zoo.spec.store import write

LENGTHS = (256, 512, 1024, 2048)


def costs(name: str, power: float, lengths: tuple[int, ...] = LENGTHS, **changes: object) -> list[CostRecord]:
    """Costs whose time grows with this power of the length, above a constant that short lengths feel; their memory
    grows linearly."""
    record = make(name)
    return [
        make_cost(
            record,
            places=float(length),
            tokens=float(length),
            train=1e-3 * (1 + (length / 64) ** power),
            memory_bytes=length * 2**15,
            shape=f"{k:012x}",
            **changes,
        )
        for k, length in enumerate(lengths)
    ]


def test_exponents_are_fitted_to_the_longest_lengths() -> None:
    assert fit_exponent([(2.0**k, 7.0 * 2.0 ** (1.5 * k)) for k in range(6)]) == pytest.approx(1.5)
    bent = [(1.0, 100.0), (2.0, 100.0), (4.0, 4.0), (8.0, 8.0), (16.0, 16.0)]
    assert fit_exponent(bent) == pytest.approx(1.0)
    assert fit_exponent(bent[:2]) is None


def test_architectures_with_enough_lengths_are_compared_on_one_machine() -> None:
    elsewhere = costs("gamma", 1, machine="another machine")
    (part,) = scaling_parts([*costs("alpha", 2), *costs("beta", 1), *costs("few", 1, LENGTHS[:2]), *elsewhere])
    rows = {row[0]: row[1:] for row in part.table.rows}
    assert set(rows) == {"alpha", "beta"}
    time, memory, longest, there, held = rows["alpha"]
    assert 1.9 < float(time.removeprefix("L^")) <= 2.0
    assert (memory, longest, held) == ("L^1.00", "2,048", "2 MiB")
    assert there == "1.02 s"
    assert "on a processor, 1 thread" in part.text
    assert "Other processes" not in part.text
    (busy,) = scaling_parts(costs("alpha", 2, others=1.5))
    assert busy.text.endswith("Other processes ran meanwhile: alpha.")
    assert scaling_parts(costs("alpha", 2, LENGTHS[:2])) == []


def test_the_board_has_the_table_and_the_picture(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write(make("alpha"), results)
    for cost in costs("alpha", 2):
        cost.write(results)
    board.build(results, page=True)
    text = (tmp_path / "README.md").read_text()
    assert "### Cost over length: training on listops" in text
    assert "](scaling-quick-listops.svg)" in text
    assert (tmp_path / "scaling-quick-listops.svg").exists()
    assert re.search(r"Cost over length: training on listops</h3>", (tmp_path / "index.html").read_text())
