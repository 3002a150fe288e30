"""Perceiver and Perceiver AR: attention between a long input and a short array of latents. No torch here."""

from collections.abc import Iterable

from zoo import Architecture, Capabilities, Cost, Paper, Reference, hookimpl


@hookimpl
def zoo_architectures() -> Iterable[Architecture]:
    yield Architecture(
        name="perceiver",
        title="Perceiver",
        family="latent",
        paper=Paper(
            title="Perceiver IO: A General Architecture for Structured Inputs & Outputs",
            authors="Jaegle, Borgeaud, Alayrac, Doersch, Ionescu, Ding, Koppula, Zoran, Brock, Shelhamer, Hénaff, "
            "Botvinick, Zisserman, Vinyals, Carreira",
            venue="ICLR",
            year=2022,
            arxiv="2107.14795",
        ),
        reference=Reference(
            project="google-deepmind/deepmind-research",
            path="perceiver/perceiver.py",
            commit="198cf845de758fe966b2b7b1a95797df01e60011",
            license="Apache-2.0",
        ),
        backbone="zoo_perceiver.backbone:PerceiverBackbone",
        config="zoo_perceiver.config:PerceiverConfig",
        capabilities=Capabilities(
            modes=frozenset({"bidirectional", "causal"}),
            # without positions in its input the cross-attention is permutation-invariant
            positions="external",
        ),
        cost=Cost(
            time="O(L N d) to read the input, O(N² d) per latent layer, for N latents",
            memory="O(L d), and O(N d) per latent layer",
            time_exponent=1.0,
            memory_exponent=1.0,
        ),
        conversion="zoo_perceiver.convert:CONVERSION",
    )
