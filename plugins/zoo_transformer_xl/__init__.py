"""Transformer-XL (Dai et al. 2019): segment-level recurrence with relative positions. No torch here."""

from collections.abc import Iterable

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterable[Architecture]:
    yield Architecture(
        name="transformer_xl",
        title="Transformer-XL",
        family="segment-recurrent",
        paper=Paper(
            title="Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context",
            authors="Dai, Yang, Yang, Carbonell, Le, Salakhutdinov",
            venue="ACL",
            year=2019,
            arxiv="1901.02860",
        ),
        reference=Reference(
            project="kimiyoung/transformer-xl",
            path="pytorch/mem_transformer.py",
            commit="44781ed21dbaec88b280f74d9ae2877f52b492a5",
            license="Apache-2.0",
        ),
        backbone="zoo_transformer_xl.backbone:TransformerXLBackbone",
        config="zoo_transformer_xl.config:TransformerXLConfig",
        capabilities=Capabilities(
            modes=frozenset({"causal", "bidirectional"}),
            state="memory",
            # chunk_exact only holds with same_length, which the paper does not train with
            step=True,
            segment=True,
        ),
        cost=Cost(
            time="O(L (T + M) d) for segments of T tokens and a memory of M rows",
            memory="O(L d) kept for backward, O(T (T + M)) scores of one segment, O(M d) carried per layer",
            time_exponent=1.0,
            memory_exponent=1.0,
        ),
    )
