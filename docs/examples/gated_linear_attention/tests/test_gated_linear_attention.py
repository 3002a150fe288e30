"""Every promise that the GLA Transformer makes, one test each, and its equation."""

import torch
from zoo_gated_linear_attention.backbone import GatedLinearAttention
from zoo_gated_linear_attention.config import GatedLinearAttentionConfig

from zoo.testing import ArchitectureSuite


class TestGatedLinearAttention(ArchitectureSuite):
    architecture = "gated_linear_attention"


def test_the_recurrence_token_by_token() -> None:
    torch.manual_seed(0)
    layer = GatedLinearAttention(GatedLinearAttentionConfig(n_heads=1), 8).double()
    x = torch.randn(3, 50, 8, dtype=torch.float64)
    S, outs = torch.zeros(3, 4, 8, dtype=torch.float64), []
    for x_t in x.unbind(1):
        alpha = torch.sigmoid(layer.gate_proj(x_t)) ** (1 / 16)
        S = alpha[:, :, None] * S + layer.k_proj(x_t)[:, :, None] * layer.v_proj(x_t)[:, None]
        o = torch.einsum("bk,bkv->bv", layer.q_proj(x_t) / 2, S)
        outs.append(layer.out_proj(torch.nn.functional.silu(layer.r_proj(x_t)) * layer.norm(o, None)))
    y, state = layer(x)
    torch.testing.assert_close(y, torch.stack(outs, 1))
    torch.testing.assert_close(state[:, 0], S)
