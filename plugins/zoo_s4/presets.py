"""Published recipes of S4 on the Long Range Arena, and the scores that go with them."""

from typing import Any

from zoo import Preset, Reported

REPO = "state-spaces/s4@e757cef"


def _lra(file: str, expected: float, **own: Any) -> Preset:
    """One line of the LRA table: what all six recipes share, and what this one sets. `__` stands for a dot."""
    common = {
        "model.n_layers": 6,
        "model.mode": "bidirectional",
        "model.pool": "mean",
        "arch.kernel": "dplr",
        "arch.init": "legs",
        "arch.norm": "batch",
        "arch.dt_max": 0.1,
        "arch.ssm_lr": 0.001,
        "optim.weight_decay": 0.05,
        "optim.betas": [0.9, 0.999],
        "optim.lr_scheduler": "cosine",
        "optim.warmup_ratio": 0.1,
        "optim.gradient_clip_val": 0.0,
    }
    source = f"{REPO} configs/experiment/lra/s4-{file}.yaml, configs/model/layer/s4.yaml, configs/model/base.yaml"
    values = common | {key.replace("__", "."): value for key, value in own.items()}
    return Preset(
        values=values,
        sources={
            "*": source,
            "train.max_samples": f"{source}: scheduler steps x batch size",
            "model.d_head": "ours, because the width of the recipe's hidden layer was not read; as wide as the model",
        },
        expected=expected,  # state-spaces/s4@e757cef models/s4/experiments.md
    )


PRESETS: dict[tuple[str, str], Preset] = {
    ("listops", "paper"): _lra(
        "listops",
        0.595,
        model__d_model=256,
        arch__d_state=4,
        arch__n_ssm=1,
        arch__prenorm=False,
        arch__dropout=0.0,
        arch__dt_min=0.001,
        arch__dt_lr=None,
        arch__c_lr=None,
        optim__lr=0.01,
        train__batch_size=32,
        train__samples=120_000 * 32,
    ),
    ("text", "paper"): _lra(
        "imdb",
        0.865,
        model__d_model=256,
        arch__d_state=4,
        arch__n_ssm=1,
        arch__prenorm=True,
        arch__dropout=0.0,
        arch__dt_min=0.001,
        arch__dt_lr=None,
        arch__c_lr=None,
        optim__lr=0.01,
        train__batch_size=16,
        train__samples=50_000 * 16,
        task__eos=True,
        task__tokens="characters",
    ),
    ("retrieval", "paper"): _lra(
        "aan",
        0.91,
        # the recipe's classifier on [a, b, a - b, ab] has one hidden layer with GELU; the frame's has ReLU
        model__head="mlp",
        model__d_head=256,
        model__d_model=256,
        arch__d_state=4,
        arch__n_ssm=1,
        arch__prenorm=True,
        arch__dropout=0.0,
        arch__dt_min=0.001,
        arch__dt_lr=None,
        arch__c_lr=None,
        optim__lr=0.01,
        train__batch_size=64,
        train__samples=50_000 * 64,
        task__eos=True,
    ),
    ("image", "paper"): _lra(
        "cifar",
        0.885,
        model__d_model=512,
        arch__d_state=64,
        arch__n_ssm=1,
        arch__prenorm=False,
        arch__dropout=0.1,
        arch__tie_dropout=True,
        arch__dt_min=0.001,
        arch__dt_lr=0.001,
        arch__c_lr=0.001,
        optim__lr=0.01,
        train__batch_size=50,
        train__samples=180_000 * 50,
        task__input="values",
    ),
    ("pathfinder", "paper"): _lra(
        "pathfinder",
        0.94,
        model__d_model=256,
        arch__d_state=64,
        arch__n_ssm=None,
        arch__prenorm=True,
        arch__dropout=0.0,
        arch__dt_min=0.001,
        arch__dt_lr=0.001,
        arch__c_lr=0.001,
        optim__lr=0.004,
        train__batch_size=64,
        train__samples=500_000 * 64,
        task__input="values",
    ),
    ("pathx", "paper"): _lra(
        "pathx",
        0.96,
        model__d_model=256,
        arch__d_state=64,
        arch__n_ssm=None,
        arch__prenorm=True,
        arch__dropout=0.0,
        arch__dt_min=0.0001,
        arch__dt_lr=0.001,
        arch__c_lr=0.001,
        optim__lr=0.001,
        train__batch_size=16,
        train__samples=500_000 * 16,
        task__input="values",
    ),
    ("listops", "quick"): Preset(
        values={"arch.d_state": 4, "arch.norm": "batch", "optim.lr": 0.01},
        sources={"*": f"{REPO} configs/experiment/lra/s4-listops.yaml"},
    ),
    ("pathfinder", "quick"): Preset(
        values={"arch.norm": "batch", "optim.lr": 0.004},
        sources={"*": f"{REPO} configs/experiment/lra/s4-pathfinder.yaml"},
    ),
    ("pathx", "quick"): Preset(
        values={"arch.norm": "batch", "arch.dt_min": 0.0001, "optim.lr": 0.001},
        sources={"*": f"{REPO} configs/experiment/lra/s4-pathx.yaml; 1 / dt_min is near the length"},
    ),
}

_MEGALODON = "Ma et al. 2024, Megalodon (arXiv 2404.08801), which prints S4's scores"

REPORTED: tuple[Reported, ...] = tuple(
    Reported(task=task, metric="accuracy", value=value, source=_MEGALODON, table="Table 6, Long Range Arena")
    for task, value in (
        ("listops", 0.5910),
        ("text", 0.8653),
        ("retrieval", 0.9094),
        ("image", 0.8848),
        ("pathfinder", 0.9401),
        ("pathx", 0.9607),
    )
)
