"""Hyperparameters per (task, protocol). Nobody published a Long Range Arena run of Hyena: all of it is ours."""

from __future__ import annotations

from zoo import Preset, Reported

_WHY = (
    "ours, because neither the Hyena paper nor safari has a Long Range Arena run of it: width, depth, batch, steps, "
    "weight decay and warm-up follow S4's recipe for the task (state-spaces/s4@e757cef configs/experiment/lra)"
)
_LR = "ours, because one rate serves all parameters but the filters (0.001 there too), with the usual clip"
_MODE = "ours: the reverse filter of Monarch Mixer (arXiv 2310.12109), a mean over positions"
_SMALL = "ours, because filter networks of width 64 would be most of a model this small; 16 is the filter's own default"


def _paper(batch_size: int, steps: int, d_model: int = 256, dropout: float = 0.0) -> Preset:
    return Preset(
        values={
            "model.d_model": d_model,
            "model.n_layers": 6,
            "model.mode": "bidirectional",
            "model.pool": "mean",
            "arch.dropout": dropout,
            "optim.lr": 0.001,
            "optim.weight_decay": 0.05,
            "optim.warmup_ratio": 0.1,
            "optim.lr_scheduler": "cosine",
            "optim.gradient_clip_val": 1.0,
            "train.batch_size": batch_size,
            "train.max_samples": steps * batch_size,
        },
        sources={"*": _WHY, "optim.lr": _LR, "optim.gradient_clip_val": _LR, "model.mode": _MODE, "model.pool": _MODE},
    )


_QUICK = Preset(values={"arch.filter_width": 16}, sources={"*": _SMALL})

PRESETS: dict[tuple[str, str], Preset] = {
    ("listops", "paper"): _paper(32, 120_000),
    ("text", "paper"): _paper(16, 50_000),
    ("retrieval", "paper"): _paper(64, 50_000),
    ("image", "paper"): _paper(50, 180_000, d_model=512, dropout=0.1),
    ("pathfinder", "paper"): _paper(64, 500_000),
    ("pathx", "paper"): _paper(16, 500_000),
    ("listops", "quick"): _QUICK,
    ("image", "quick"): _QUICK,
    ("pathfinder", "quick"): _QUICK,
    ("pathx", "quick"): _QUICK,
}

REPORTED: tuple[Reported, ...] = ()
"""None published: safari's Long Range Arena configurations are for long convolutions, another model."""
