"""Published recipes and scores of the Performer."""

from __future__ import annotations

from typing import Any

from zoo import Preset, Reported

_LRA = "google-research/long-range-arena@cd31e5c"

# every configuration of the repository
_COMMON: dict[str, Any] = {
    "model.mode": "bidirectional",
    "model.head": "mlp",
    "arch.activation": "gelu_tanh",
    "arch.bias": False,
    "arch.norm_eps": 1e-6,
    "optim.betas": [0.9, 0.98],
    "optim.eps": 1e-9,
    "optim.gradient_clip_val": 0.0,
}
_COMMON_SOURCES = {
    "model.d_head": f"{_LRA}: the classifier's hidden layer is mlp_dim wide",
    "arch.activation": f"{_LRA}: flax's gelu is the tanh form",
    "arch.norm_eps": f"{_LRA}: flax's default",
    "arch.bias": f"{_LRA} lra_benchmarks/models/performer/performer.py: no biases in the attention",
    "arch.dropout": f"{_LRA}: the configuration's dropout_rate; fast attention forms no weights that could be dropped",
}
_RELU: dict[str, Any] = {"arch.kernel": "relu", "arch.project": False}
_RELU_SOURCE = f"{_LRA} lra_benchmarks/models/performer: the generalised kernel relu(u) + 0.001 without random features"


def _sizes(d_model: int, d_qkv: int, d_ff: int, n_heads: int, n_layers: int, dropout: float) -> dict[str, Any]:
    return {
        "model.d_model": d_model,
        "model.n_layers": n_layers,
        "model.d_head": d_ff,
        "model.dropout": dropout,
        "arch.d_qkv": d_qkv,
        "arch.d_ff": d_ff,
        "arch.n_heads": n_heads,
        "arch.dropout": dropout,
    }


def _text(
    config: str, *, sizes: dict[str, Any], kernel: dict[str, Any], warmup: int, steps: int, expected: float
) -> Preset:
    """ListOps, Text, Retrieval: lr = 0.05 * min(1, t/warmup) / sqrt(max(t, warmup)), weight decay 0.1, batch 32, CLS."""
    files = f"{_LRA} lra_benchmarks/{config}"
    reached = min(warmup, steps)
    values = {
        "model.pool": "cls",
        "model.positions": "sinusoidal",
        # a run that ends before the warm-up does has reached this fraction of the peak
        "optim.lr": round(0.05 * reached / warmup / warmup**0.5, 7),
        "optim.weight_decay": 0.1,
        "optim.warmup_ratio": reached / steps,
        "optim.lr_scheduler": "rsqrt",
        "train.batch_size": 32,
        "train.max_samples": 32 * steps,
    }
    sources = _COMMON_SOURCES | {
        "*": files,
        "optim.lr": f"{files}: 0.05 * min(1, t/{warmup}) / sqrt(max(t, {warmup})) at its peak",
        "train.max_samples": f"{files}: {steps} steps of 32",
    }
    sources |= dict.fromkeys(_RELU, _RELU_SOURCE)
    if kernel is not _RELU:
        sources |= {
            "arch.kernel": f"{files}: the softmax kernel, on this task only",
            "arch.n_features": f"{files}: nb_features = 2, hence the published score, that of an untrained model",
            "arch.redraw_every": f"{_LRA}: new features for every batch (there in evaluation too; here the last ones)",
        }
    return Preset(values=_COMMON | sizes | kernel | values, sources=sources, expected=expected)


def _image(
    config: str,
    *,
    sizes: dict[str, Any],
    pool: str,
    positions: str,
    lr: float,
    batch: int,
    warmup: int,
    steps: int,
    expected: float | None,
    clip: float = 0.0,
    ours: str = "",
) -> Preset:
    """Image, Pathfinder, Path-X: cosine, no weight decay, the ReLU kernel."""
    files = f"{ours}{_LRA} lra_benchmarks/{config}"
    values = {
        "model.pool": pool,
        "model.positions": positions,
        "optim.lr": lr,
        "optim.weight_decay": 0.0,
        "optim.warmup_ratio": warmup / steps,
        "optim.lr_scheduler": "cosine",
        "optim.gradient_clip_val": clip,
        "train.batch_size": batch,
        "train.max_samples": batch * steps,
    }
    sources = _COMMON_SOURCES | dict.fromkeys(_RELU, _RELU_SOURCE)
    sources |= {"*": files, "train.max_samples": f"{files}: {steps} steps of {batch}"}
    return Preset(values=_COMMON | sizes | _RELU | values, sources=sources, expected=expected)


PRESETS: dict[tuple[str, str], Preset] = {
    ("listops", "paper"): _text(
        "listops/configs",
        sizes=_sizes(512, 512, 1024, n_heads=8, n_layers=4, dropout=0.1),
        kernel={"arch.kernel": "softmax", "arch.n_features": 2, "arch.redraw_every": 1},
        warmup=1000,
        steps=5000,
        expected=0.1801,
    ),
    ("text", "paper"): _text(
        "text_classification/configs",
        sizes=_sizes(256, 256, 1024, n_heads=4, n_layers=4, dropout=0.1),
        kernel=_RELU,
        warmup=8000,
        steps=20000,
        expected=0.6540,
    ),
    ("retrieval", "paper"): _text(
        "matching/configs",
        sizes=_sizes(128, 128, 512, n_heads=4, n_layers=4, dropout=0.1),
        kernel=_RELU,
        warmup=8000,
        steps=5000,
        expected=0.5382,
    ),
    ("image", "paper"): _image(
        "image/configs/cifar10",
        sizes=_sizes(128, 64, 128, n_heads=8, n_layers=1, dropout=0.3),
        pool="cls",
        positions="learned",
        lr=5e-4,
        batch=256,
        warmup=175,
        steps=35000,
        expected=0.4277,
    ),
    ("pathfinder", "paper"): _image(
        "image/configs/pathfinder32",
        sizes=_sizes(32, 16, 32, n_heads=8, n_layers=4, dropout=0.2),
        pool="mean",
        positions="sinusoidal",
        lr=1e-3,
        batch=512,
        warmup=312,
        steps=62400,
        expected=0.7705,
    ),
    ("pathx", "paper"): _image(
        "image/configs/pathfinder128",
        sizes=_sizes(32, 16, 32, n_heads=2, n_layers=1, dropout=0.1),
        pool="mean",
        positions="learned",
        lr=1e-3,
        batch=64,
        warmup=2500,
        steps=500000,
        expected=None,
        clip=1.0,
        ours="ours: a Path-X configuration is published for the Transformer only, and these are its sizes and optimiser: ",
    ),
}


def _scores(source: str, table: str, **scores: float) -> tuple[Reported, ...]:
    return tuple(
        Reported(task=task, metric="accuracy", value=value, source=source, table=table)
        for task, value in scores.items()
    )


REPORTED: tuple[Reported, ...] = (
    *_scores(
        "Tay et al. 2021, Long Range Arena (arXiv 2011.04006); Path-X: failed",
        "Table 1",
        listops=0.1801,
        text=0.6540,
        retrieval=0.5382,
        image=0.4277,
        pathfinder=0.7705,
    ),
    *_scores(
        "Xiong et al. 2021, Nyströmformer (arXiv 2102.03902): own protocol, 256 features",
        "LRA table",
        listops=0.1880,
        text=0.6381,
        retrieval=0.7862,
        image=0.3707,
        pathfinder=0.6987,
    ),
)
