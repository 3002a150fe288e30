"""Memformer (Wu et al. 2020): an external memory of slots, read by cross-attention, written by attention. No torch."""

from collections.abc import Iterable

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterable[Architecture]:
    yield Architecture(
        name="memformer",
        title="Memformer",
        family="segment-recurrent",
        paper=Paper(
            title="Memformer: A Memory-Augmented Transformer for Sequence Modeling",
            authors="Wu, Lan, Qian, Gu, Geramifard, Yu",
            venue="Findings of AACL-IJCNLP",
            year=2022,
            arxiv="2010.06891",
        ),
        reference=Reference(
            project="lucidrains/memformer",
            path="memformer/memformer.py",
            commit="c8f9a97f8b3fc7a90c21f5d3ae911499bf13e50a",
            license="MIT",
        ),
        backbone="zoo_memformer.backbone:MemformerBackbone",
        config="zoo_memformer.config:MemformerConfig",
        capabilities=Capabilities(
            # the backbone has a seq2seq mode, but its contract is one source in one call, which never reads the memory
            modes=frozenset({"causal", "bidirectional"}),
            state="memory",
            state_grad=True,
            step=True,
            segment=True,
        ),
        cost=Cost(
            time="O(L (T + S) d) for segments of T tokens and S slots",
            memory="O(L (T + S)) scores kept for backward, one segment's with activation checkpointing; O(S d) carried",
            time_exponent=1.0,
            memory_exponent=1.0,
        ),
    )
