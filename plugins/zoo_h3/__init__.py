"""H3: a shift and a diagonal state space model between multiplicative gates; optionally attention in some layers."""

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="h3",
        title="H3",
        family="state space",
        paper=Paper(
            title="Hungry Hungry Hippos: Towards Language Modeling with State Space Models",
            authors="Daniel Y. Fu, Tri Dao, Khaled K. Saab, Armin W. Thomas, Atri Rudra, Christopher Ré",
            venue="ICLR",
            year=2023,
            arxiv="2212.14052",
        ),
        reference=Reference(
            project="HazyResearch/safari",
            path="src/models/sequence/h3.py",
            commit="02220c69d247e5473616cd053a443ad99fd2559b",
            license="Apache-2.0",
        ),
        backbone="zoo_h3.backbone:H3Backbone",
        config="zoo_h3.config:H3Config",
        capabilities=Capabilities(
            modes=frozenset({"causal", "bidirectional"}),
            state="recurrent",
            chunk_exact=True,
            state_grad=True,
            step=True,
        ),
        cost=Cost(time="L log L", memory="L", time_exponent=1.1, memory_exponent=1.0),
    )
