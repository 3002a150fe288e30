"""Operators for long sequences: a readable reference form of each and, where it pays, faster ones.

An op with several forms is a folder whose `__init__.py` holds the signature and the choice of the form; an op with one
form is a file. Imports nothing of zoo but `zoo.spec`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "attention",
        "blocked",
        "conv",
        "diagonal",
        "dplr",
        "fftconv",
        "gated_linear_attention",
        "hippo",
        "memory",
        "positions",
        "random_features",
        "relative",
        "retention",
        "scan",
        "selective_scan",
    ],
)
