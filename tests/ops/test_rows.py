"""Gathering and replacing rows."""

from __future__ import annotations

import torch

from zoo.ops.rows import put_rows, take_rows


def test_rows_come_back_to_their_places() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[4, 0], [2, 3]])
    rows = take_rows(x, index)
    assert torch.equal(rows[0, :, 0], x[0, :, 4])
    assert torch.equal(put_rows(x, index, rows), x)
    y = put_rows(torch.zeros_like(x), index, rows)
    assert set(y[1, 0].any(-1).nonzero().flatten().tolist()) == {2, 3}
    assert torch.autograd.gradcheck(lambda x: put_rows(2 * x, index, take_rows(x, index)), [x])


def test_an_index_of_the_length_drops_its_row() -> None:
    y, rows = torch.zeros(1, 1, 3, 2), torch.ones(1, 1, 2, 2)
    assert put_rows(y, torch.tensor([[3, 1]]), rows)[0, 0, :, 0].tolist() == [0, 1, 0]
    assert not put_rows(y, torch.tensor([[3, 3]]), rows).any()


def test_rows_of_a_sequence_without_heads() -> None:
    x = torch.arange(12.0).view(2, 3, 2)
    assert take_rows(x, torch.tensor([[2, 0], [1, 1]]))[..., 0].tolist() == [[4, 0], [8, 8]]
