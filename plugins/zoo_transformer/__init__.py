"""The Transformer of Vaswani et al. 2017 in its pre-norm form: the baseline that all others are compared with."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="transformer",
        title="Transformer",
        family="attention",
        paper=Paper(
            title="Attention Is All You Need",
            authors="Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin",
            venue="NeurIPS",
            year=2017,
            arxiv="1706.03762",
        ),
        reference=Reference(
            project="pytorch/pytorch",
            path="torch/nn/modules/transformer.py",
            commit="torch 2.13.0 (PyPI)",
            license="BSD-3-Clause",
        ),
        backbone="zoo_transformer.backbone:TransformerBackbone",
        config="zoo_transformer.config:TransformerConfig",
        # only learned positions run out, and they say so themselves; the default, rope, does not
        capabilities=Capabilities(
            modes=frozenset({"causal", "bidirectional"}),
            state="cache",
            chunk_exact=True,
            state_grad=True,
            step=True,
            length="any",
            positions="internal",
        ),
        cost=Cost(time="O(L² d)", memory="O(L d)", time_exponent=2.0, memory_exponent=1.0),
    )
