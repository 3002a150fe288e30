"""Gated linear attention: what zoo knows of it before anything is built. No torch here: `zoo list` reads this file."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="gated_linear_attention",
        title="GLA Transformer",
        family="linear attention",
        paper=Paper(
            title="Gated Linear Attention Transformers with Hardware-Efficient Training",
            authors="Songlin Yang, Bailin Wang, Yikang Shen, Rameswar Panda, Yoon Kim",
            venue="ICML",
            year=2024,
            arxiv="2312.06635",
        ),
        reference=None,
        backbone="zoo_gated_linear_attention.backbone:GatedLinearAttentionBackbone",
        config="zoo_gated_linear_attention.config:GatedLinearAttentionConfig",
        capabilities=Capabilities(
            modes=frozenset({"causal"}), state="recurrent", chunk_exact=True, state_grad=True, step=True
        ),
        cost=Cost(
            time="O(L · D · (D / H + 64))",
            memory="O(L · D), and one state of D² / 2H per chunk of 64 tokens",
            time_exponent=1.0,
            memory_exponent=1.0,
        ),
    )
