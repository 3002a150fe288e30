"""Recipes of LongT5. Nobody has published its scores on the Long Range Arena, nor a recipe for it."""

from __future__ import annotations

from zoo import Preset, Reported

PRESETS: dict[tuple[str, str], Preset] = {
    ("pathx", "quick"): Preset(
        values={"arch.global_block": 128, "arch.n_heads": 1},
        sources={
            "arch.global_block": "ours, because with the published 16 each of 16,384 tokens sees 1,024 globals; a row of "
            "the 128 x 128 picture is a block",
            "arch.n_heads": "ours, because every head is another 16,384 x 500 exponentials, and quick has minutes on a CPU",
        },
    ),
}

REPORTED: tuple[Reported, ...] = ()
