"""The checker of shapes: sizes by name, optional tensors, and its messages."""

from __future__ import annotations

import pytest
import torch

from zoo.ops.shapes import check_shapes

x = torch.zeros(2, 5, 3)


def test_names_stand_for_one_size() -> None:
    check_shapes("op", {"batch seq_len channels": {"x": x, "z": None}, "channels": {"bias": torch.zeros(3)}})
    with pytest.raises(ValueError, match=r"^op: bias has shape \(4,\), expected \(channels=3\)$"):
        check_shapes("op", {"batch seq_len channels": {"x": x}, "channels": {"bias": torch.zeros(4)}})


def test_sizes_may_be_given_or_one() -> None:
    check_shapes("op", {"heads": {"h": torch.zeros(7)}, "1|heads taps": {"w": torch.zeros(1, 4)}}, taps=4)
    with pytest.raises(ValueError, match=r"w has shape \(2, 4\), expected \(1 or heads=7, taps=4\)"):
        check_shapes("op", {"heads": {"h": torch.zeros(7)}, "1|heads taps": {"w": torch.zeros(2, 4)}}, taps=4)


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3, 1), (2, 0, 3)])
def test_unknown_sizes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x has shape .*, expected \(batch, seq_len >= 1, channels\)"):
        check_shapes("op", {"batch seq_len channels": {"x": torch.zeros(shape)}})


def test_every_op_is_listed_and_loads() -> None:
    import zoo.ops

    assert {"scan", "gated_linear_attention", "retention", "selective_scan"} <= set(dir(zoo.ops))
    for name in dir(zoo.ops):
        assert getattr(zoo.ops, name).__doc__, name
