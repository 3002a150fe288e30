"""Memformer (Wu et al. 2020): an external memory of slots, read by cross-attention, written by attention. No torch."""

from __future__ import annotations

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
            # seq2seq is built, and is not declared: the frame's contract for it is one source in one call, in which
            # nothing that is written is ever read
            modes=frozenset({"causal", "bidirectional"}),
            state="memory",
            chunk_exact=False,
            state_grad=True,
            step=False,
            segment=True,
            length="any",
            positions="internal",
        ),
        cost=Cost(
            time="O(L (T + S) d) for segments of T tokens and S slots",
            memory="O(L (T + S)) scores kept for backward, one segment's under mrbp; O(S d) carried",
            time_exponent=1.0,
            memory_exponent=1.0,
        ),
    )
