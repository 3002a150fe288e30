"""Mamba (Gu & Dao 2023): a state space model whose step size, input and output maps depend on the token."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterator[Architecture]:
    yield Architecture(
        name="mamba",
        title="Mamba",
        family="state space",
        paper=Paper(
            title="Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
            authors="Albert Gu, Tri Dao",
            venue="COLM",
            year=2024,
            arxiv="2312.00752",
        ),
        reference=Reference(
            project="state-spaces/mamba",
            path="mamba_ssm/modules/mamba_simple.py",
            commit="e9594ce1c732d97440f0332fdc43170a2294dbfa",
            license="Apache-2.0",
        ),
        backbone="zoo_mamba.backbone:MambaBackbone",
        config="zoo_mamba.config:MambaConfig",
        capabilities=Capabilities(
            modes=frozenset({"causal"}), state="recurrent", chunk_exact=True, state_grad=True, step=True
        ),
        cost=Cost(
            time="O(L · d_inner · d_state)",
            memory="O(L · d_inner), and one state of d_inner · d_state per chunk of the scan",
            time_exponent=1.0,
            memory_exponent=1.0,
        ),
        conversion="zoo_mamba.convert:CONVERSION",
    )
