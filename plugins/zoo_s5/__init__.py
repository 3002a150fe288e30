"""S5: one multi-input, multi-output diagonal state space model per layer, run as a parallel scan."""

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="s5",
        title="S5",
        family="state space",
        paper=Paper(
            title="Simplified State Space Layers for Sequence Modeling",
            authors="Jimmy T.H. Smith, Andrew Warrington, Scott W. Linderman",
            venue="ICLR",
            year=2023,
            arxiv="2208.04933",
        ),
        reference=Reference(
            project="lindermanlab/S5",
            path="s5/ssm.py",
            commit="3c18fdb6b06414da35e77b94b9cd855f6a95ef17",
            license="MIT",
        ),
        backbone="zoo_s5.backbone:S5Backbone",
        config="zoo_s5.config:S5Config",
        capabilities=Capabilities(
            modes=frozenset({"causal", "bidirectional"}),
            state="recurrent",
            chunk_exact=True,
            state_grad=True,
            step=True,
        ),
        cost=Cost(time="L", memory="L", time_exponent=1.0, memory_exponent=1.0),
    )
