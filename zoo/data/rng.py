"""Streams of random numbers that depend on nothing but their key: not on processes, threads or versions.

SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a counter with a bijective finaliser. A stream is one uint64 in an array
of length 1, so that compiled generators can advance it in place; everything here may be called from compiled code.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from zoo.ops.compiled import compiled

GAMMA = np.uint64(0x9E3779B97F4A7C15)
A = np.uint64(0xBF58476D1CE4E5B9)
B = np.uint64(0x94D049BB133111EB)
S30, S27, S31, S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
UNIT = 2.0**-53


def key(*parts: object) -> np.uint64:
    """A stream family's key from anything printable: `key("listops", version, seed, split)`."""
    return np.uint64(int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little"))


@compiled
def mix(z):  # type: ignore[no-untyped-def]
    """Bijection of uint64 in which every input bit reaches every output bit."""
    z = (z ^ (z >> S30)) * A
    z = (z ^ (z >> S27)) * B
    return z ^ (z >> S31)


@compiled
def start(stream, family, index):  # type: ignore[no-untyped-def]
    """Set `stream` to the beginning of stream `index` of a family."""
    stream[0] = mix(family ^ mix(np.uint64(index) + GAMMA))


@compiled
def uniform(stream):  # type: ignore[no-untyped-def]
    """A float64 in [0, 1), 53 bits."""
    stream[0] += GAMMA
    return np.float64(mix(stream[0]) >> S11) * UNIT


@compiled
def below(stream, n):  # type: ignore[no-untyped-def]
    """An integer in [0, n), n < 2^31 (bias below 2^-22)."""
    return np.int64(uniform(stream) * n)
