"""Generic operations on carried state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from zoo.nn import BatchNorm
from zoo.nn import state as ops
from zoo.testing.architectures.mixing import reset_rows_begin_anew
from zoo.testing.architectures.subject import ArchitectureSubject


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
        ops.check_state(tree(batch=5), tree(batch=4))
    with pytest.raises(TypeError, match="float"):
        ops.leaves([1.0])


@pytest.mark.parametrize(
    ("name", "options"), [("h3", {"attn_layers": [1]}), ("mega", {"chunk_size": -1}), ("mega", {}), ("retnet", {})]
)
def test_rows_of_a_grown_state_are_reset_one_by_one(name: str, options: dict[str, object]) -> None:
    reset_rows_begin_anew(replace(ArchitectureSubject.find(name, options), mode="causal"))


def test_batch_norm_of_half_precision_and_of_pads() -> None:
    x = torch.randn(3, 4, 5)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    expected, norm = torch.nn.BatchNorm1d(5), BatchNorm(5)
    torch.testing.assert_close(norm(x, mask)[mask], expected(x[mask]))
    torch.testing.assert_close(norm.state_dict(), expected.state_dict())
    for dtype in (torch.bfloat16, torch.float16):
        for half in (BatchNorm(5).to(dtype), BatchNorm(5).to(dtype).eval()):
            assert half(x.to(dtype), mask).dtype == dtype
