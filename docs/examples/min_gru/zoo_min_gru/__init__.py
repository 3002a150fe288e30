"""minGRU: what zoo knows of it before anything is built. No torch here: `zoo list` reads this file."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="min_gru",
        title="minGRU",
        family="recurrent",
        paper=Paper(
            title="Were RNNs All We Needed?",
            authors="Leo Feng, Frederick Tung, Mohamed Osama Ahmed, Yoshua Bengio, Hossein Hajimirsadeghi",
            venue="arXiv",
            year=2024,
            arxiv="2410.01201",
        ),
        reference=None,
        backbone="zoo_min_gru.backbone:MinGRUBackbone",
        config="zoo_min_gru.config:MinGRUConfig",
        capabilities=Capabilities(
            modes=frozenset({"causal"}), state="recurrent", chunk_exact=True, state_grad=True, step=True
        ),
        cost=Cost(time="O(L · D²)", memory="O(L · D)", time_exponent=1.0, memory_exponent=1.0),
    )
