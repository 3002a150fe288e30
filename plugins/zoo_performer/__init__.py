"""Performer (Choromanski et al. 2021): attention as a product of positive random features."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="performer",
        title="Performer",
        family="low-rank attention",
        paper=Paper(
            title="Rethinking Attention with Performers",
            authors="Choromanski, Likhosherstov, Dohan, Song, Gane, Sarlos, Hawkins, Davis, Mohiuddin, Kaiser, "
            "Belanger, Colwell, Weller",
            venue="ICLR",
            year=2021,
            arxiv="2009.14794",
        ),
        reference=Reference(
            project="google-research/long-range-arena",
            path="lra_benchmarks/models/performer/performer_attention.py",
            commit="cd31e5c6b8e5bceabd28de2d2afb23f7ae5d36d8",
            license="Apache-2.0",
        ),
        backbone="zoo_performer.backbone:PerformerBackbone",
        config="zoo_performer.config:PerformerConfig",
        capabilities=Capabilities(
            modes=frozenset({"causal", "bidirectional"}),
            state="recurrent",
            chunk_exact=True,
            state_grad=True,
            step=True,
            positions="external",
        ),
        cost=Cost(time="O(L m d)", memory="O(L (m + d))", time_exponent=1.0, memory_exponent=1.0),
    )
