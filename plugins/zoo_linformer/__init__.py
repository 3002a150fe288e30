"""Linformer (Wang et al. 2020): keys and values compressed from n positions to k by a learned matrix."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="linformer",
        title="Linformer",
        family="low-rank attention",
        paper=Paper(
            title="Linformer: Self-Attention with Linear Complexity",
            authors="Wang, Li, Khabsa, Fang, Ma",
            venue="arXiv",
            year=2020,
            arxiv="2006.04768",
        ),
        reference=Reference(
            project="google-research/long-range-arena",
            path="lra_benchmarks/models/linformer/linformer.py",
            commit="cd31e5c6b8e5bceabd28de2d2afb23f7ae5d36d8",
            license="Apache-2.0",
        ),
        backbone="zoo_linformer.backbone:LinformerBackbone",
        config="zoo_linformer.config:LinformerConfig",
        # every compressed key mixes all positions, so there is no causal form
        capabilities=Capabilities(modes=frozenset({"bidirectional"}), length="fixed", positions="external"),
        cost=Cost(time="O(L k d)", memory="O(L d + L k)", time_exponent=1.0, memory_exponent=1.0),
    )
