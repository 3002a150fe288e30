"""What the protocols set. smoke: seconds; quick: minutes on two cores; paper: whole texts, for a GPU. No torch here."""

from __future__ import annotations

from typing import Any

SMOKE: dict[str, Any] = {
    "task.seq_len": 128,
    "train.max_samples": 32,
    "train.batch_size": 8,
    "model.d_model": 16,
    "model.n_layers": 1,
    "optim.lr": 1e-3,
}
QUICK: dict[str, Any] = {
    "task.corpus": "wikitext-2",
    "task.seq_len": 256,
    "train.max_samples": 5_000,
    "train.batch_size": 4,
    "train.eval_batch_size": 16,
    "train.val_every": 1_000,
    "model.match_params_of": "transformer",
    "model.d_model": 64,
    "model.n_layers": 2,
    # an architecture that reads by segments knows what is longer ago than a quarter of the input from its memory alone
    "segments.length": 64,
    "optim.lr": 3e-3,
}
# no published recipe trains bytes of WikiText-103 on 1,024 positions; this one is ours
PAPER: dict[str, Any] = {
    "task.corpus": "wikitext-103",
    "task.seq_len": 1_024,
    "train.max_samples": 100_000 * 32,
    "train.batch_size": 32,
    "train.val_every": 5_000 * 32,
    "model.d_model": 512,
    "model.n_layers": 12,
    "optim.lr": 1e-3,
    "optim.weight_decay": 0.1,
}
LAMBADA: dict[str, dict[str, Any]] = {
    "smoke": {**SMOKE, "task.val_size": 16, "task.test_size": 32},
    # after minutes of bytes hardly a model names a last word whole; what is compared is how likely it finds the word
    "quick": {
        **QUICK,
        "task.seq_len": 512,
        "train.max_samples": 2_000,
        "train.batch_size": 2,
        "train.val_every": 500,
        "task.val_size": 400,
        "task.test_size": 2_000,
        "task.rank_by": "perplexity",
        "segments.length": 128,
    },
    "paper": PAPER,
}
WIKITEXT: dict[str, dict[str, Any]] = {
    "smoke": {**SMOKE, "task.val_size": 1, "task.test_size": 2, "train.val_limit": 32},
    "quick": {**QUICK, "task.val_size": 10, "task.test_size": 20},
    "paper": PAPER,
}
