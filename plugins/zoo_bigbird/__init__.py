"""BigBird (Zaheer et al. 2020): attention over window, global and random blocks."""

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="bigbird",
        title="BigBird",
        family="sparse attention",
        paper=Paper(
            title="Big Bird: Transformers for Longer Sequences",
            authors="Zaheer, Guruganesh, Dubey, Ainslie, Alberti, Ontañón, Pham, Ravula, Wang, Yang, Ahmed",
            venue="NeurIPS",
            year=2020,
            arxiv="2007.14062",
        ),
        reference=Reference(
            project="huggingface/transformers",
            path="src/transformers/models/big_bird/modeling_big_bird.py",
            commit="transformers 5.23.0 (PyPI)",
            license="Apache-2.0",
        ),
        backbone="zoo_bigbird.backbone:BigBirdBackbone",
        config="zoo_bigbird.config:BigBirdConfig",
        capabilities=Capabilities(modes=frozenset({"causal", "bidirectional"}), length="max", positions="external"),
        cost=Cost(
            time="O(L S (5 + r) d)",
            memory="O(L (5 + r) d)",
            time_exponent=1.0,
            memory_exponent=1.0,
        ),
        conversion="zoo_bigbird.convert:CONVERSION",
    )
