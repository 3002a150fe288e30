"""Mega: a damped moving average in every channel, then single-head gated attention, whole or in chunks."""

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="mega",
        title="Mega",
        family="hybrid",
        paper=Paper(
            title="Mega: Moving Average Equipped Gated Attention",
            authors="Xuezhe Ma, Chunting Zhou, Xiang Kong, Junxian He, Liangke Gui, Graham Neubig, Jonathan May, "
            "Luke Zettlemoyer",
            venue="ICLR",
            year=2023,
            arxiv="2209.10655",
        ),
        reference=Reference(
            project="facebookresearch/mega",
            path="fairseq/modules/moving_average_gated_attention.py",
            commit="aeaa4b44592cd1d60a9a34554e359eda2a62b03b",
            license="MIT",
        ),
        backbone="zoo_mega.backbone:MegaBackbone",
        config="zoo_mega.config:MegaConfig",
        capabilities=Capabilities(
            modes=frozenset({"causal", "bidirectional"}),
            state="recurrent",
            chunk_exact=True,
            state_grad=True,
            step=True,
        ),
        cost=Cost(
            time="L (c + log L) in chunks of c; L² with chunk_size=-1",
            memory="L c in chunks of c; L with recomputation beyond 2^24 scores",
            time_exponent=1.1,
            memory_exponent=1.0,
        ),
    )
