"""RetNet (Sun et al. 2023): retention, trained in parallel or in chunks, generated token by token."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="retnet",
        title="RetNet",
        family="linear attention",
        paper=Paper(
            title="Retentive Network: A Successor to Transformer for Large Language Models",
            authors="Yutao Sun, Li Dong, Shaohan Huang, Shuming Ma, Yuqing Xia, Jilong Xue, Jianyong Wang, Furu Wei",
            venue="arXiv",
            year=2023,
            arxiv="2307.08621",
        ),
        reference=Reference(
            project="microsoft/torchscale",
            path="torchscale/architecture/retnet.py",
            commit="4d1e0e82e5adf86dd424f1463192635b73fc8efc",
            license="MIT",
        ),
        backbone="zoo_retnet.backbone:RetNetBackbone",
        config="zoo_retnet.config:RetNetConfig",
        capabilities=Capabilities(
            modes=frozenset({"causal", "bidirectional"}),
            state="recurrent",
            chunk_exact=True,
            state_grad=True,
            step=True,
        ),
        cost=Cost(
            time="O(L · (chunk_size + key_dim) · value_dim)",
            memory="O(L · (d_model + value_dim)), and the (c, c) products of all chunks for the time of one call",
            time_exponent=1.0,
            memory_exponent=1.0,
        ),
    )
