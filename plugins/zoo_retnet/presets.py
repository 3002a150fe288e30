"""Hyperparameters per (task, protocol). Nobody published a Long Range Arena run of RetNet: all of it is ours."""

from __future__ import annotations

from zoo import Preset, Reported

_WHY = (
    "ours, because neither the RetNet paper nor torchscale has a Long Range Arena run: width, depth, batch, steps, "
    "weight decay and warm-up follow S4's recipe for the task (state-spaces/s4@e757cef configs/experiment/lra)"
)
_LR = "ours, because a model without slowed-down parameters wants a lower peak than S4 and a clip"
_HEADS = "ours, because the longest half-life, 22 * 2^(n_heads - 1) tokens, must reach across the input"
_MODE = "ours: the symmetric decay of LION (arXiv 2502.16249), a mean over positions"


def _paper(n_heads: int, batch_size: int, steps: int, d_model: int = 256, dropout: float = 0.0) -> Preset:
    return Preset(
        values={
            "model.d_model": d_model,
            "model.n_layers": 6,
            "model.mode": "bidirectional",
            "model.pool": "mean",
            "arch.n_heads": n_heads,
            "arch.dropout": dropout,
            "optim.lr": 0.001,
            "optim.weight_decay": 0.05,
            "optim.warmup_ratio": 0.1,
            "optim.lr_scheduler": "cosine",
            "optim.gradient_clip_val": 1.0,
            "train.batch_size": batch_size,
            "train.max_samples": steps * batch_size,
        },
        sources={
            "*": _WHY,
            "optim.lr": _LR,
            "optim.gradient_clip_val": _LR,
            "arch.n_heads": _HEADS,
            "model.mode": _MODE,
            "model.pool": _MODE,
        },
    )


_QUICK = Preset(values={"arch.n_heads": 8}, sources={"*": _HEADS})

PRESETS: dict[tuple[str, str], Preset] = {
    ("listops", "paper"): _paper(8, 32, 120_000),
    ("text", "paper"): _paper(8, 16, 50_000),
    ("retrieval", "paper"): _paper(8, 64, 50_000),
    ("image", "paper"): _paper(8, 50, 180_000, d_model=512, dropout=0.1),
    ("pathfinder", "paper"): _paper(8, 64, 500_000),
    ("pathx", "paper"): _paper(16, 16, 500_000),
    ("pathfinder", "quick"): _QUICK,
    ("pathx", "quick"): _QUICK,
}

REPORTED: tuple[Reported, ...] = ()
"""None published. LION-D's scores (arXiv 2502.16249) are those of learned, per-channel decays, not of RetNet."""
