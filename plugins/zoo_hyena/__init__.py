"""Hyena (Poli et al. 2023): gates and long convolutions whose filters a small network writes."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="hyena",
        title="Hyena",
        family="long convolution",
        paper=Paper(
            title="Hyena Hierarchy: Towards Larger Convolutional Language Models",
            authors="Michael Poli, Stefano Massaroli, Eric Nguyen, Daniel Y. Fu, Tri Dao, Stephen Baccus, "
            "Yoshua Bengio, Stefano Ermon, Christopher Ré",
            venue="ICML",
            year=2023,
            arxiv="2302.10866",
        ),
        reference=Reference(
            project="HazyResearch/safari",
            path="src/models/sequence/hyena.py",
            commit="02220c69d247e5473616cd053a443ad99fd2559b",
            license="Apache-2.0",
        ),
        backbone="zoo_hyena.backbone:HyenaBackbone",
        config="zoo_hyena.config:HyenaConfig",
        capabilities=Capabilities(modes=frozenset({"causal", "bidirectional"}), length="max"),
        cost=Cost(
            time="O(order · D · L log L), and O(L · filter_width²) for the filters, once per layer and call",
            memory="O(order · D · L)",
            time_exponent=1.1,
            memory_exponent=1.0,
        ),
    )
