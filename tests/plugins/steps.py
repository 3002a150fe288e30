"""Steps against whole segments, for backbones that read a text segment by segment."""

from __future__ import annotations

import torch
from torch import nn

from zoo.model.segments import SegmentPlan, drive
from zoo.nn import SegmentBackbone


def assert_steps_equal_segments(backbone: nn.Module, length: int = 17) -> None:
    """Rows that begin with 9, 4 and 1 tokens go on token by token, each as its own text cut into whole segments."""
    assert isinstance(backbone, SegmentBackbone)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, length, backbone.dims.d_model, dtype=torch.float64, generator=generator)
    plan, begun = SegmentPlan(backbone.segment_len), torch.tensor([9, 4, 1])
    expected = torch.cat([segment.hidden for segment in drive(backbone, x, None, None, plan)], dim=1)
    mask = torch.arange(9) < begun[:, None]
    out = backbone.prefill(x[:, :9], mask=mask)
    torch.testing.assert_close(out.hidden[mask], expected[:, :9][mask], rtol=1e-9, atol=1e-11)
    rows, state = torch.arange(3), out.state
    for t in range(length - 9):
        y, state = backbone.step(x[rows, begun + t], state)
        torch.testing.assert_close(y, expected[rows, begun + t], rtol=1e-9, atol=1e-11)
