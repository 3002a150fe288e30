"""Our models beside those of transformers: one pair is measured, and a pair that computes something else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import zoo.convert
from efficiency import __main__ as efficiency


@pytest.mark.parametrize("name", sorted(efficiency.PEERS))
def test_a_pair_computes_the_same_and_has_a_row_for_inference_and_for_training(name: str) -> None:
    rows = efficiency.compare(name, 128, 1, 2)
    assert [(row.architecture, row.work) for row in rows] == [(name, "infer"), (name, "train")]
    for row in rows:
        median, low, high = row.ratio
        assert 0 < low <= median <= high
        assert min(row.seconds) > 0
        assert min(row.bytes) > 4 * 128 * efficiency.D_MODEL


def test_another_computation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(folder: Path) -> Any:
        model = zoo.convert.load(folder)
        with torch.no_grad():
            for parameter in model.backbone.parameters():
                parameter += 0.01
        return model

    monkeypatch.setattr(efficiency, "load", load)
    with pytest.raises(SystemExit, match=r"nystromformer: outputs differ by .*: not the same computation"):
        efficiency.compare("nystromformer", 64, 1, 2)


def test_the_table_names_both_and_the_versions(capsys: pytest.CaptureFixture[str]) -> None:
    efficiency.main(["nystromformer"], length=[64], batch=1, repeats=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "architecture"
    assert [line.split()[:4] for line in lines[2:4]] == [
        ["nystromformer", "NystromformerModel", "64", "infer"],
        ["nystromformer", "NystromformerModel", "64", "train"],
    ]
    assert lines[-1].startswith("transformers ")
