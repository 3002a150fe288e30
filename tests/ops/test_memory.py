"""Memory rows against plain lists."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.ops.memory import kept_rows, real_first, real_last, take_rows
from zoo.ops.relative import visible_keys

masks = st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4).map(torch.tensor)


@settings(max_examples=50, deadline=None)
@given(mask=masks)
def test_real_rows_move_together_and_keep_their_order(mask: torch.Tensor) -> None:
    x = torch.arange(mask.numel(), dtype=torch.float64).view(*mask.shape, 1)
    first, last = take_rows(x, real_first(mask)), take_rows(x, real_last(mask))
    for b, row in enumerate(mask):
        real, pads = x[b, row], x[b, ~row]
        assert torch.equal(first[b], torch.cat([real, pads]))
        assert torch.equal(last[b], torch.cat([pads, real]))
    assert torch.equal(take_rows(first, real_first(mask).argsort(1)), x)


@settings(max_examples=50, deadline=None)
@given(n_old=st.integers(0, 4), n_new=st.integers(0, 5), mem_len=st.integers(0, 12))
def test_a_memory_keeps_the_last_real_rows(n_old: int, n_new: int, mem_len: int) -> None:
    M, T = 4, 5
    rows = torch.arange(1.0, M + T + 1).view(1, -1, 1)
    valid = torch.tensor([[False] * (M - n_old) + [True] * (n_old + n_new) + [False] * (T - n_new)])
    row, real = kept_rows(valid, torch.tensor([n_new]), M, mem_len)
    expected = rows[0, valid[0], 0].tolist()[-mem_len:] if mem_len else []
    assert real[0].tolist() == [False] * (mem_len - len(expected)) + [True] * len(expected)
    assert take_rows(rows, row)[0, real[0], 0].tolist() == expected


def test_a_query_sees_valid_keys_and_always_itself() -> None:
    valid = torch.tensor([[False, True, True, True, False], [False] * 5])
    seen = visible_keys(3, 5, valid=valid, device=valid.device)
    assert seen[0].int().tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
    assert seen[1].int().tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    both = visible_keys(3, 5, two_sided=True, valid=valid, device=valid.device)
    assert both[0].int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 1]]
