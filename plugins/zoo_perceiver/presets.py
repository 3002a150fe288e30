"""Hyperparameters per (task, protocol). No Perceiver was ever published on LRA, so all of it is ours."""

from __future__ import annotations

from zoo import Preset, Reported


def _heads(count: int) -> Preset:
    return Preset(
        values={"arch.n_heads": count, "arch.n_cross_heads": count},
        sources={"*": "ours, because fewer heads allow a width nearer to the baseline's parameters"},
    )


_WHY = (
    "ours, because nobody published a Long Range Arena recipe for a Perceiver: widths, depths and epochs of the order "
    "of Mega's and S5's recipes, AdamW with warm-up and cosine decay; nothing here was tuned"
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
    ("pathx", "paper"): _paper(128, 4, 0.0005, 32, 100 * 160_000),
    ("image", "quick"): _heads(2),
    ("pathfinder", "quick"): _heads(2),
    ("pathx", "quick"): _heads(1),
}

REPORTED: tuple[Reported, ...] = ()
