"""Generic operations on carried state."""

from __future__ import annotations

import pytest
import torch

from zoo.nn import state as ops


def tree(batch: int = 3, fill: float = 0.0, rows: int = 2) -> dict:
    return {
        "memory": [torch.full((batch, rows, 4), fill), torch.full((batch, 2), fill, dtype=torch.complex64)],
        "valid": (torch.ones(batch, rows, dtype=torch.bool), None),
        "count": torch.zeros(batch, dtype=torch.int64),
    }


def test_where_and_reset_take_whole_rows() -> None:
    keep = torch.tensor([True, False, True])
    mixed = ops.where_rows(keep, tree(fill=1), tree(fill=2))
    for leaf in mixed["memory"]:
        assert [leaf[i].real.unique().tolist() for i in range(3)] == [[1], [2], [1]]
    assert mixed["valid"][1] is None
    fresh = ops.reset_rows(tree(fill=1), keep, tree(fill=0))
    assert [fresh["memory"][0][i].unique().tolist() for i in range(3)] == [[0], [1], [0]]


def test_states_of_different_form_cannot_be_mixed() -> None:
    keep = torch.ones(3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\(3, 2, 4\).*\(3, 5, 4\)"):
        ops.where_rows(keep, tree(), tree(rows=5))
    with pytest.raises(ValueError, match="None"):
        ops.where_rows(keep, tree(), None)
    with pytest.raises(ValueError, match="2 rows for a state of batch size 3"):
        ops.where_rows(keep[:2], tree(), tree())
    assert ops.where_rows(keep, None, None) is None


def test_select_rows_by_index_and_mask() -> None:
    state = {"a": torch.arange(4), "b": torch.arange(8).reshape(4, 2)}
    assert ops.select_rows(state, torch.tensor([2, 0]))["b"].tolist() == [[4, 5], [0, 1]]
    assert ops.select_rows(state, torch.tensor([True, False, False, True]))["a"].tolist() == [0, 3]


def test_cast_keeps_masks_counters_and_complexity() -> None:
    moved = ops.to(tree(), dtype=torch.float64, device="cpu")
    assert [leaf.dtype for leaf in ops.leaves(moved)] == [torch.float64, torch.complex128, torch.bool, torch.int64]


def test_elements_count_complex_twice_and_bookkeeping_not() -> None:
    assert ops.elements(tree()) == 2 * 4 + 2 * 2
    assert ops.elements(tree(batch=1)) == 2 * 4 + 2 * 2
    assert ops.elements(None) == 0


def test_detach() -> None:
    leaf = torch.ones(2, 3, requires_grad=True)
    assert not ops.detach([leaf * 2])[0].requires_grad
    assert ops.detach(None) is None


def test_batch_size() -> None:
    assert ops.batch_size(tree(batch=5)) == 5
    assert ops.batch_size(None) is None
    with pytest.raises(ValueError, match="batch-first"):
        ops.batch_size([torch.zeros(2, 3), torch.zeros(3, 2)])
    with pytest.raises(ValueError, match="batch-first"):
        ops.batch_size([torch.zeros(())])
    with pytest.raises(ValueError, match="batch size 5 given with an input of batch size 4"):
        ops.check_batch(tree(batch=5), 4)
    with pytest.raises(TypeError, match="float"):
        ops.leaves([1.0])
