"""Published recipes of Mega on the Long Range Arena, and the scores that go with them."""

from typing import Any

from zoo import Preset, Reported

REPO = "facebookresearch/mega@aeaa4b4"


def _lra(expected: float, *, batch: int, updates: int, warmup: int, **own: Any) -> Preset:
    """One line of the LRA table: what all six recipes share, and what this one sets. `__` stands for a dot."""
    common = {
        "model.mode": "bidirectional",
        "model.pool": "mean",
        "model.head": "mlp",
        "model.d_head": own["arch__d_ff"],
        "arch.d_ema": 16,
        "arch.bias": "simple",
        "arch.chunk_size": -1,
        "arch.truncation": 1024,
        "optim.betas": [0.9, 0.98],
        "optim.eps": 1e-8,
        "optim.lr_scheduler": "linear",
        "optim.warmup_ratio": warmup / updates,
        "optim.gradient_clip_val": 1.0,
        "train.batch_size": batch,
        "train.max_samples": updates * batch,
    }
    source = f"{REPO} README.md, scripts for the Long Range Arena; paper (arXiv 2209.10655), table 8"
    values = common | {key.replace("__", "."): value for key, value in own.items()}
    sources = {
        "*": source,
        "model.d_head": f"{source}: the classifier's hidden layer is as wide as the MLP's",
        "optim.warmup_ratio": f"{source}: {warmup:,} of {updates:,} updates",
        "train.max_samples": f"{source}: {updates:,} updates x batch size",
    }
    return Preset(values=values, sources=sources, expected=expected)  # paper, table 2, row Mega


PRESETS: dict[tuple[str, str], Preset] = {
    ("listops", "paper"): _lra(
        0.6314,
        batch=64,
        updates=90_000,
        warmup=3_000,
        model__n_layers=6,
        model__d_model=80,
        arch__d_ff=160,
        arch__d_value=160,
        arch__d_attn=64,
        arch__attention="softmax",
        arch__norm="layer",
        arch__prenorm=False,
        arch__dropout=0.1,
        optim__lr=0.001,
        optim__weight_decay=0.01,
    ),
    ("text", "paper"): _lra(
        0.9043,
        batch=50,
        updates=25_000,
        warmup=10_000,
        model__n_layers=4,
        model__d_model=128,
        arch__d_ff=256,
        arch__d_value=256,
        arch__d_attn=64,
        arch__attention="softmax",
        arch__norm="scale",
        arch__prenorm=False,
        arch__dropout=0.1,
        optim__lr=0.004,
        optim__weight_decay=0.01,
    ),
    ("retrieval", "paper"): _lra(
        0.9125,
        batch=64,
        updates=91_960,
        warmup=10_000,
        model__n_layers=6,
        model__d_model=128,
        arch__d_ff=256,
        arch__d_value=256,
        arch__d_attn=64,
        arch__attention="softmax",
        arch__norm="scale",
        arch__prenorm=False,
        arch__dropout=0.1,
        optim__lr=0.003,
        optim__weight_decay=0.04,
    ),
    ("image", "paper"): _lra(
        0.9044,
        batch=50,
        updates=180_000,
        warmup=9_000,
        model__n_layers=8,
        model__d_model=160,
        arch__d_ff=320,
        arch__d_value=320,
        arch__d_attn=96,
        arch__attention="laplace",
        arch__norm="batch",
        arch__prenorm=True,
        arch__dropout=0.0,
        optim__lr=0.01,
        optim__weight_decay=0.02,
        task__input="values",
    ),
    ("pathfinder", "paper"): _lra(
        0.9601,
        batch=128,
        updates=250_000,
        warmup=50_000,
        model__n_layers=6,
        model__d_model=128,
        arch__d_ff=256,
        arch__d_value=256,
        arch__d_attn=64,
        arch__attention="laplace",
        arch__norm="batch",
        arch__prenorm=True,
        arch__dropout=0.0,
        optim__lr=0.01,
        optim__weight_decay=0.01,
        task__input="values",
    ),
    ("pathx", "paper"): _lra(
        0.9798,
        batch=128,
        updates=125_000,
        warmup=25_000,
        model__n_layers=4,
        model__d_model=64,
        arch__d_ff=128,
        arch__d_value=128,
        arch__d_attn=32,
        arch__attention="laplace",
        arch__norm="batch",
        arch__prenorm=True,
        arch__dropout=0.0,
        arch__truncation=4096,
        optim__lr=0.01,
        optim__weight_decay=0.01,
        task__input="values",
    ),
}

_PAPER = "Ma et al. 2023 (arXiv 2209.10655)"

REPORTED: tuple[Reported, ...] = tuple(
    Reported(task=task, metric="accuracy", value=value, source=_PAPER, table="Table 2, row Mega (full attention)")
    for task, value in (
        ("listops", 0.6314),
        ("text", 0.9043),
        ("retrieval", 0.9125),
        ("image", 0.9044),
        ("pathfinder", 0.9601),
        ("pathx", 0.9798),
    )
)
