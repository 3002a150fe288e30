"""Recipes of LongT5. Nobody has published its scores on the Long Range Arena, nor a recipe for it."""

from __future__ import annotations

from zoo import Preset, Reported

_WHY = (
    "ours, because nobody published a Long Range Arena recipe for LongT5: widths, depths and epochs of the order of "
    "Mega's and S5's recipes, AdamW with warm-up and cosine decay; nothing here was tuned"
)


def _paper(
    d_model: int,
    n_layers: int,
    lr: float,
    batch_size: int,
    samples: int,
    *,
    dropout: float = 0.1,
    **arch: int,
) -> Preset:
    return Preset(
        values={
            "model.d_model": d_model,
            "model.n_layers": n_layers,
            "model.mode": "bidirectional",
            "model.pool": "mean",
            "arch.dropout": dropout,
            **{f"arch.{key}": value for key, value in arch.items()},
            "optim.lr": lr,
            "optim.weight_decay": 0.01,
            "optim.warmup_ratio": 0.1,
            "optim.lr_scheduler": "cosine",
            "optim.gradient_clip_val": 1.0,
            "train.batch_size": batch_size,
            "train.max_samples": samples,
        },
        sources={"*": _WHY},
    )


PRESETS: dict[tuple[str, str], Preset] = {
    ("listops", "paper"): _paper(128, 6, 0.001, 64, 60 * 96_000),
    ("text", "paper"): _paper(256, 4, 0.0005, 32, 50 * 25_000),
    ("retrieval", "paper"): _paper(128, 6, 0.0005, 32, 20 * 147_086),
    ("image", "paper"): _paper(256, 6, 0.001, 64, 200 * 45_000),
    ("pathfinder", "paper"): _paper(128, 6, 0.001, 64, 200 * 160_000),
    ("pathx", "paper"): _paper(128, 4, 0.0005, 32, 100 * 160_000, global_block=128),
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
