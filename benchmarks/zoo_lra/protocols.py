"""What the protocols set per task. smoke: seconds; quick: minutes on two cores; paper: the published lengths and sizes,
with the budgets of Long Range Arena's own configurations (google-research/long-range-arena @cd31e5c). No torch here."""

from __future__ import annotations

from typing import Any

LISTOPS: dict[str, dict[str, Any]] = {
    "smoke": {
        "task.train_size": 256,
        "task.val_size": 64,
        "task.test_size": 64,
        "task.min_len": 9,
        "task.max_len": 65,
        "task.seq_len": 64,
        "train.max_samples": 128,
        "train.batch_size": 16,
        "model.d_model": 16,
        "model.n_layers": 1,
        "optim.lr": 1e-3,
    },
    "quick": {
        "task.train_size": 64_000,
        "task.val_size": 1_000,
        "task.test_size": 2_000,
        "task.min_len": 5,
        "task.max_len": 33,
        "task.seq_len": 32,
        "train.max_samples": 64_000,
        "train.batch_size": 64,
        "train.val_every": 16_000,
        "model.match_params_of": "transformer",
        "model.d_model": 64,
        "model.n_layers": 2,
        "segments.length": 8,
        "optim.lr": 3e-3,
    },
    "paper": {
        "train.max_samples": 5_000 * 32,
        "train.batch_size": 32,
        "model.d_model": 128,
        "model.n_layers": 4,
        "optim.lr": 1e-3,
    },
}


def pictures(**quick: Any) -> dict[str, dict[str, Any]]:
    """Protocols of a Pathfinder task; smoke is 32x32 always."""
    return {
        "smoke": {
            "task.train_size": 128,
            "task.val_size": 32,
            "task.test_size": 32,
            "task.seq_len": 1024,
            "train.max_samples": 32,
            "train.batch_size": 8,
            "model.d_model": 16,
            "model.n_layers": 1,
            "optim.lr": 1e-3,
        },
        "quick": {"model.match_params_of": "transformer", "model.d_model": 32, "optim.lr": 3e-3, **quick},
        "paper": {
            "train.max_samples": 200 * 160_000,
            "train.batch_size": 64,
            "model.d_model": 128,
            "model.n_layers": 6,
            "optim.lr": 1e-3,
        },
    }


# contours and pictures that are learned within minutes: docs/quick.md
PATHFINDER_QUICK = {
    "task.seq_len": 256,
    "task.input": "values",
    "task.target_dashes": 2,
    "task.distractors": 0,
    "task.train_size": 16_000,
    "task.val_size": 1_000,
    "task.test_size": 2_000,
    "train.max_samples": 16_000,
    "train.batch_size": 16,
    "train.val_every": 4_000,
    "model.n_layers": 2,
    "segments.length": 64,
}
# the true length: what a run costs, not what it can learn
PATHX_QUICK = {
    "task.train_size": 64,
    "task.val_size": 24,
    "task.test_size": 64,
    "train.max_samples": 64,
    "train.batch_size": 8,
    "train.micro_batch_size": 1,
    "train.val_every": 32,
    "model.n_layers": 1,
}

SMOKE: dict[str, Any] = {
    "task.train_size": 64,
    "task.val_size": 32,
    "task.test_size": 32,
    "train.max_samples": 32,
    "train.batch_size": 8,
    "model.d_model": 16,
    "model.n_layers": 1,
    "optim.lr": 1e-3,
}
QUICK: dict[str, Any] = {
    "train.batch_size": 32,
    "model.match_params_of": "transformer",
    "model.d_model": 64,
    "model.n_layers": 2,
    # an architecture that reads by segments knows what is longer ago than a quarter of the input from its memory alone
    "segments.length": 64,
    "optim.lr": 3e-3,
}
# the beginnings of all reviews: 256 bytes hold a fifth of the mean review
TEXT: dict[str, dict[str, Any]] = {
    "smoke": {**SMOKE, "task.seq_len": 128},
    "quick": {
        **QUICK,
        "task.seq_len": 256,
        "task.test_size": 5_000,
        "train.max_samples": 10_000,
        "train.batch_size": 10,
        "train.eval_batch_size": 32,
        "train.val_every": 2_500,
        "train.val_limit": 1_000,
    },
    "paper": {
        "train.max_samples": 20_000 * 32,
        "train.batch_size": 32,
        "model.d_model": 256,
        "model.n_layers": 4,
        "optim.lr": 1e-3,
    },
}
IMAGE: dict[str, dict[str, Any]] = {
    "smoke": SMOKE,
    "quick": {
        **QUICK,
        "model.d_model": 32,
        "task.seq_len": 256,
        "task.input": "values",
        "task.val_size": 1_000,
        "task.test_size": 2_000,
        "train.max_samples": 12_000,
        "train.batch_size": 16,
        "train.val_every": 3_000,
    },
    "paper": {
        "train.max_samples": 200 * 45_000,
        "train.batch_size": 64,
        "model.d_model": 128,
        "model.n_layers": 1,
        "optim.lr": 1e-3,
    },
}
RETRIEVAL: dict[str, dict[str, Any]] = {
    "smoke": {**SMOKE, "task.seq_len": 128},
    "quick": {
        **QUICK,
        "task.seq_len": 256,
        "task.train_size": 5_000,
        "task.val_size": 500,
        "task.test_size": 1_000,
        "train.max_samples": 5_000,
        "train.batch_size": 10,
        "train.eval_batch_size": 32,
        "train.val_every": 1_250,
    },
    "paper": {
        "train.max_samples": 5_000 * 32,
        "train.batch_size": 32,
        "model.d_model": 128,
        "model.n_layers": 4,
        "optim.lr": 1e-3,
    },
}
