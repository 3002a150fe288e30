"""S4 and S4D: structured state space models, run as a long convolution or token by token."""

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="s4",
        title="S4",
        family="state space",
        paper=Paper(
            title="Efficiently Modeling Long Sequences with Structured State Spaces",
            authors="Albert Gu, Karan Goel, Christopher Ré",
            venue="ICLR",
            year=2022,
            arxiv="2111.00396",
        ),
        reference=Reference(
            project="state-spaces/s4",
            path="src/models/sequence/modules/s4block.py",
            commit="e757cef57d89e448c413de7325ed5601aceaac13",
            license="Apache-2.0",
        ),
        backbone="zoo_s4.backbone:S4Backbone",
        config="zoo_s4.config:S4Config",
        capabilities=Capabilities(
            modes=frozenset({"causal", "bidirectional"}),
            state="recurrent",
            chunk_exact=True,
            state_grad=True,
            step=True,
        ),
        cost=Cost(time="L log L", memory="L", time_exponent=1.1, memory_exponent=1.0),
    )
