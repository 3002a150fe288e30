"""The Compressive Transformer (Rae et al. 2019): old memories are compressed instead of dropped. No torch here."""

from collections.abc import Iterable

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterable[Architecture]:
    yield Architecture(
        name="compressive",
        title="Compressive Transformer",
        family="segment-recurrent",
        paper=Paper(
            title="Compressive Transformers for Long-Range Sequence Modelling",
            authors="Rae, Potapenko, Jayakumar, Hillier, Lillicrap",
            venue="ICLR",
            year=2020,
            arxiv="1911.05507",
        ),
        # the authors published data, not code; this port is what the memory and the loss are checked against
        reference=Reference(
            project="labmlai/annotated_deep_learning_paper_implementations",
            path="labml_nn/transformers/compressive",
            commit="e6b3c8a6a2cdae4071bcde1abeaaf9a2bc37bd53",
            license="MIT",
        ),
        backbone="zoo_compressive.backbone:CompressiveBackbone",
        config="zoo_compressive.config:CompressiveConfig",
        capabilities=Capabilities(
            modes=frozenset({"causal", "bidirectional"}),
            state="memory",
            step=True,
            segment=True,
            aux=("reconstruction",),
        ),
        cost=Cost(
            time="O(L (T + M + C) d) for segments of T tokens, M rows of memory and C of compressed memory",
            memory="O(L d) kept for backward, O(T (T + M + C)) scores of one segment, O((M + C) d) carried per layer",
            time_exponent=1.0,
            memory_exponent=1.0,
        ),
    )
