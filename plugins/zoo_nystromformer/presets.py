"""Published recipes and scores of the Nyströmformer: its own PyTorch protocol for the Long Range Arena."""

from __future__ import annotations

from zoo import Preset, Reported

_MLPEN = "mlpen/Nystromformer@5689313 LRA/code"
_CONFIG = f"{_MLPEN}/lra_config.py"


def _recipe(*, batch: int, steps: int, warmup: int, expected: float | None, ours: str = "") -> Preset:
    """The same model on every task; AdamW, one cycle with linear flanks that peaks at 1e-4."""
    return Preset(
        values={
            "model.d_model": 64,
            "model.n_layers": 2,
            "model.mode": "bidirectional",
            "model.pool": "mean",
            "model.positions": "learned",
            "model.head": "mlp",
            "model.d_head": 128,
            "model.dropout": 0.1,
            "arch.n_heads": 2,
            "arch.n_landmarks": 64,
            "arch.d_ff": 128,
            "arch.conv_kernel": 35,
            "arch.activation": "gelu",
            "arch.dropout": 0.1,
            "optim.lr": 1e-4,
            "optim.weight_decay": 0.0,
            "optim.betas": [0.9, 0.999],
            "optim.eps": 1e-6,
            "optim.warmup_ratio": warmup / steps,
            "optim.lr_scheduler": "linear",
            "optim.gradient_clip_val": 0.0,
            "train.batch_size": batch,
            "train.max_samples": batch * steps,
        },
        sources={
            "*": f"{ours}{_CONFIG}",
            "model.pool": f"{_MLPEN}/model_wrapper.py: the mean; there over pads too, here over real tokens",
            "arch.n_landmarks": f"{_CONFIG}: 32 to 256; the README runs nystrom-64",
            "optim.warmup_ratio": f"{_CONFIG}: {warmup} of {steps} steps; there the cycle begins at 1/25 of the peak",
            "optim.lr_scheduler": f"{_MLPEN}/run_tasks.py: OneCycleLR with linear flanks",
            "train.max_samples": f"{ours}{_CONFIG}: {steps} steps of {batch}",
        },
        expected=expected,
    )


PRESETS: dict[tuple[str, str], Preset] = {
    ("listops", "paper"): _recipe(batch=32, steps=5000, warmup=1000, expected=0.3715),
    ("text", "paper"): _recipe(batch=32, steps=20000, warmup=8000, expected=0.6552),
    ("retrieval", "paper"): _recipe(batch=32, steps=30000, warmup=800, expected=0.7956),
    ("image", "paper"): _recipe(batch=256, steps=35000, warmup=175, expected=0.4158),
    ("pathfinder", "paper"): _recipe(batch=256, steps=62400, warmup=312, expected=0.7094),
    ("pathx", "paper"): _recipe(
        batch=256, steps=62400, warmup=312, expected=None, ours="ours: none is published for Path-X, Pathfinder's of "
    ),
}

REPORTED: tuple[Reported, ...] = tuple(
    Reported(
        task=task,
        metric="accuracy",
        value=value,
        source="Xiong et al. 2021, Nyströmformer (arXiv 2102.03902): own protocol; Text selected on the test split",
        table="LRA table",
    )
    for task, value in {
        "listops": 0.3715,
        "text": 0.6552,
        "retrieval": 0.7956,
        "image": 0.4158,
        "pathfinder": 0.7094,
    }.items()
)
