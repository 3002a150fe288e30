"""LongT5 (Guo et al. 2022): local attention, and transient globals made of block sums. No torch here."""

from collections.abc import Iterable

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterable[Architecture]:
    yield Architecture(
        name="longt5",
        title="LongT5",
        family="sparse attention",
        paper=Paper(
            title="LongT5: Efficient Text-To-Text Transformer for Long Sequences",
            authors="Guo, Ainslie, Uthus, Ontañón, Ni, Sung, Yang",
            venue="Findings of NAACL",
            year=2022,
            arxiv="2112.07916",
        ),
        reference=Reference(
            project="huggingface/transformers",
            path="src/transformers/models/longt5/modeling_longt5.py",
            commit="transformers 5.23.0 (PyPI)",
            license="Apache-2.0",
        ),
        backbone="zoo_longt5.backbone:LongT5Backbone",
        config="zoo_longt5.config:LongT5Config",
        capabilities=Capabilities(modes=frozenset({"bidirectional", "seq2seq"}), length="any", positions="internal"),
        cost=Cost(
            # with attention=local both are linear
            time="O(L (R + L/G) d), quadratic",
            memory="O(L d), scores again in backward",
            time_exponent=2.0,
            memory_exponent=1.0,
        ),
        conversion="zoo_longt5.convert:CONVERSION",
    )
