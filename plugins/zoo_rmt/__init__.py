"""The Recurrent Memory Transformer (Bulatov et al. 2022): memory tokens carried between segments. No torch here."""

from collections.abc import Iterable

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterable[Architecture]:
    yield Architecture(
        name="rmt",
        title="Recurrent Memory Transformer",
        family="segment-recurrent",
        paper=Paper(
            title="Recurrent Memory Transformer",
            authors="Bulatov, Kuratov, Burtsev",
            venue="NeurIPS",
            year=2022,
            arxiv="2207.06881",
        ),
        reference=Reference(
            project="booydar/LM-RMT",
            path="pytorch/mem_transformer.py",
            commit="e2895080868afc390386220f2b68a56c4a218126",
            license="Apache-2.0",
        ),
        backbone="zoo_rmt.backbone:RMTBackbone",
        config="zoo_rmt.config:RMTConfig",
        capabilities=Capabilities(
            modes=frozenset({"causal", "bidirectional"}),
            state="memory",
            state_grad=True,
            step=True,
            segment=True,
            # of one segment: two of the four bodies have learned positions
            length="max",
        ),
        cost=Cost(
            time="O(L (T + 2n) d) for segments of T tokens and n memory tokens",
            memory="O(L d) kept for backward through all segments (O(k T d) for a depth of k), O(n d) carried",
            time_exponent=1.0,
            memory_exponent=1.0,
        ),
    )
