"""What the protocols set per task. smoke: seconds; quick: minutes on two cores, see docs/recall.md; paper: the
published lengths, sizes and budgets. No torch here."""

from __future__ import annotations

from typing import Any

SMOKE: dict[str, Any] = {
    "task.train_size": 256,
    "task.val_size": 32,
    "task.group_size": 8,
    "train.max_samples": 64,
    "train.batch_size": 8,
    "model.d_model": 16,
    "model.n_layers": 1,
    "optim.lr": 1e-3,
}
QUICK: dict[str, Any] = {
    "train.batch_size": 32,
    "train.eval_batch_size": 128,
    "model.match_params_of": "transformer",
    "model.d_model": 64,
    "model.n_layers": 2,
    "optim.lr": 3e-3,
    # an architecture that reads by segments knows what is longer ago than this from its memory alone
    "segments.length": 32,
}
# Zoology: two layers, AdamW with weight decay 0.1, 64 epochs; of its grid of rates and widths the middle ones
MQAR: dict[str, dict[str, Any]] = {
    "smoke": {
        **SMOKE,
        "task.seq_len": 32,
        "task.vocab": 512,
        "task.mixture": ["16x2", "32x4"],
        "task.test_cells": ["16x2", "32x4"],
        "task.generalization_cells": ["64x4", "128x8"],
    },
    "quick": {
        **QUICK,
        "task.seq_len": 64,
        "task.vocab": 64,
        "task.mixture": ["16x2", "32x4", "32x8", "64x8", "64x16"],
        "task.test_cells": ["64x4", "64x8", "64x16"],
        "task.generalization_cells": ["128x8", "256x8", "512x8"],
        "task.train_size": 64_000,
        "task.group_size": 500,
        "train.max_samples": 64_000,
        "train.val_every": 16_000,
    },
    "paper": {
        "train.max_samples": 64 * 180_000,
        "train.batch_size": 256,
        "model.d_model": 128,
        "model.n_layers": 2,
        "optim.lr": 1e-3,
        "optim.weight_decay": 0.1,
    },
}
# Mamba, appendix E.1: two layers of width 64, a constant rate of 1e-4, 400,000 steps of 64
SELECTIVE_COPYING: dict[str, dict[str, Any]] = {
    "smoke": {**SMOKE, "task.seq_len": 36, "task.tokens": 4},
    "quick": {
        **QUICK,
        "task.seq_len": 64,
        "task.train_size": 38_400,
        "train.max_samples": 38_400,
        "train.val_every": 9_600,
        # Mamba after 1,200 steps: 74 % at a constant rate, 62 % under the cosine
        "optim.lr_scheduler": "constant",
    },
    "paper": {
        "train.max_samples": 400_000 * 64,
        "train.batch_size": 64,
        "model.d_model": 64,
        "model.n_layers": 2,
        "optim.lr": 1e-4,
        "optim.lr_scheduler": "constant",
        "optim.warmup_ratio": 0.0,
    },
}
# Mamba, appendix E.1: two layers, batch 8, 25 epochs of 8,192 steps, a constant rate
INDUCTION_HEADS: dict[str, dict[str, Any]] = {
    "smoke": {**SMOKE, "task.seq_len": 32, "task.test_lengths": [16, 32], "task.generalization_factors": [2, 4]},
    "quick": {
        **QUICK,
        "task.seq_len": 64,
        "task.test_lengths": [16, 32, 64],
        "task.generalization_factors": [2, 4, 8],
        "task.train_size": 32_000,
        "task.group_size": 500,
        "train.max_samples": 32_000,
        "train.val_every": 8_000,
    },
    "paper": {
        "train.max_samples": 25 * 8_192 * 8,
        "train.batch_size": 8,
        "model.d_model": 64,
        "model.n_layers": 2,
        "optim.lr": 1e-3,
        "optim.lr_scheduler": "constant",
        "optim.warmup_ratio": 0.0,
    },
}
# published as a test of pretrained language models; the budget of training is ours
NEEDLE: dict[str, dict[str, Any]] = {
    "smoke": {
        **SMOKE,
        "task.form": "symbols",
        "task.seq_len": 64,
        "task.generalization_factors": [2, 4],
        "task.depths": 3,
        "task.digits": 2,
    },
    "quick": {
        **QUICK,
        "task.form": "symbols",
        "task.seq_len": 64,
        "task.train_lengths": [32, 64],
        "task.depths": 5,
        "task.digits": 2,
        "task.hay": 16,
        "task.keys": 16,
        "task.train_size": 24_000,
        "train.max_samples": 24_000,
        "train.val_every": 6_000,
    },
    "paper": {
        "train.max_samples": 100_000,
        "train.batch_size": 32,
        "model.d_model": 256,
        "model.n_layers": 4,
        "optim.lr": 1e-3,
    },
}
KV_RETRIEVAL: dict[str, dict[str, Any]] = {
    "smoke": {
        **SMOKE,
        "task.form": "symbols",
        "task.seq_len": 43,
        "task.train_pairs": [6],
        "task.test_pairs": [6],
        "task.generalization_pairs": [12, 24],
        "task.positions": 3,
    },
    "quick": {
        **QUICK,
        "task.form": "symbols",
        "task.seq_len": 64,
        "task.train_pairs": [4, 8],
        "task.test_pairs": [4, 8],
        "task.generalization_pairs": [16, 32, 64],
        "task.key_len": 2,
        "task.value_len": 1,
        "task.train_size": 64_000,
        "task.group_size": 200,
        "train.max_samples": 64_000,
        "train.val_every": 16_000,
    },
    "paper": {
        "train.max_samples": 100_000,
        "train.batch_size": 32,
        "model.d_model": 256,
        "model.n_layers": 4,
        "optim.lr": 1e-3,
    },
}
