"""Every promise that minGRU makes, one test each, and its equation."""

import torch
from zoo_min_gru.backbone import MinGRU, g
from zoo_min_gru.config import MinGRUConfig

from zoo.testing import ArchitectureSuite


class TestMinGRU(ArchitectureSuite):
    architecture = "min_gru"


def test_the_recurrence_token_by_token() -> None:
    torch.manual_seed(0)
    layer = MinGRU(MinGRUConfig(expansion=2), 8).double()
    x = torch.randn(3, 50, 8, dtype=torch.float64)
    u, _ = layer.conv(x)
    h, hidden = torch.zeros(3, 16, dtype=torch.float64), []
    for u_t in u.unbind(1):
        z = torch.sigmoid(layer.z_proj(u_t))
        h = (1 - z) * h + z * g(layer.h_proj(u_t))
        hidden.append(h)
    y, state = layer(x)
    torch.testing.assert_close(y, layer.out_proj(torch.stack(hidden, 1)))
    torch.testing.assert_close(state["h"], h)
