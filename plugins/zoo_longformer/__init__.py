"""Longformer (Beltagy, Peters & Cohan 2020): sliding-window attention with a few global tokens."""

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="longformer",
        title="Longformer",
        family="sparse attention",
        paper=Paper(
            title="Longformer: The Long-Document Transformer",
            authors="Iz Beltagy, Matthew E. Peters, Arman Cohan",
            venue="arXiv",
            year=2020,
            arxiv="2004.05150",
        ),
        reference=Reference(
            project="allenai/longformer",
            path="longformer/longformer.py",
            commit="caefee668e39cacdece7dd603a0bebf24df6d8ca",
            license="Apache-2.0",
        ),
        backbone="zoo_longformer.backbone:LongformerBackbone",
        config="zoo_longformer.config:LongformerConfig",
        capabilities=Capabilities(
            modes=frozenset({"causal", "bidirectional"}),
            state="recurrent",
            chunk_exact=True,
            state_grad=True,
            step=True,
            positions="external",
        ),
        cost=Cost(
            time="O(L (W + g) d)",
            memory="O(L d), and causally a cache of W/2 keys and values",
            time_exponent=1.0,
            memory_exponent=1.0,
        ),
        conversion="zoo_longformer.convert:CONVERSION",
    )
