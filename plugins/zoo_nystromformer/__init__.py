"""Nyströmformer (Xiong et al. 2021): softmax attention through landmarks, by the Nyström method."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="nystromformer",
        title="Nyströmformer",
        family="low-rank attention",
        paper=Paper(
            title="Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention",
            authors="Xiong, Zeng, Chakraborty, Tan, Fung, Li, Singh",
            venue="AAAI",
            year=2021,
            arxiv="2102.03902",
        ),
        reference=Reference(
            project="mlpen/Nystromformer",
            path="LRA/code/attention_nystrom.py",
            commit="56893131bf3fa99b5a2d3ab452a591dca722529a",
            license="not checked",
        ),
        backbone="zoo_nystromformer.backbone:NystromformerBackbone",
        config="zoo_nystromformer.config:NystromformerConfig",
        # a landmark is a mean over past and future tokens, so there is no causal form
        capabilities=Capabilities(modes=frozenset({"bidirectional"}), positions="external"),
        cost=Cost(time="O(L m d + m³)", memory="O(L (m + d) + m²)", time_exponent=1.0, memory_exponent=1.0),
        conversion="zoo_nystromformer.convert:CONVERSION",
    )
