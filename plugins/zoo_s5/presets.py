"""Published recipes of S5 on the Long Range Arena, and the scores that go with them."""

from typing import Any

from zoo import Preset, Reported

REPO = "lindermanlab/S5@3c18fdb"
LISTED = "Smith et al. 2023 (arXiv 2208.04933), as Papers with Code lists the paper's results"
SCORES = {
    "listops": 0.6215,
    "text": 0.8931,
    "retrieval": 0.9140,
    "image": 0.8800,
    "pathfinder": 0.9533,
    "pathx": 0.9858,
}


def _lra(task: str, script: str, *, epochs: int, examples: int, warm_epochs: int = 1, **own: Any) -> Preset:
    """One line of the LRA table: what all six recipes share, and what this one sets. `__` stands for a dot."""
    common = {
        "model.mode": "bidirectional",
        "model.pool": "mean",
        "arch.conj_sym": True,
        "arch.clip_eigs": False,
        "arch.disc": "zoh",
        "arch.prenorm": True,
        "arch.norm": "batch",
        "arch.dt_min": 0.001,
        "arch.dt_max": 0.1,
        "arch.dt_global": False,
        "optim.betas": [0.9, 0.999],
        "optim.lr_scheduler": "cosine",
        "optim.warmup_ratio": warm_epochs / epochs,
        "optim.gradient_clip_val": 0.0,
        "train.max_samples": epochs * examples,
    }
    source = f"{REPO} bin/run_experiments/run_lra_{script}.sh and the defaults of run_train.py"
    return Preset(
        values=common | {key.replace("__", "."): value for key, value in own.items()},
        sources={
            "*": source,
            "train.max_samples": f"{source}: {epochs} epochs of {examples:,} examples",
            "optim.warmup_ratio": f"{source}: {warm_epochs} of {epochs} epochs",
            "optim.lr": f"{source}: lr_factor x ssm_lr_base",
        },
        expected=SCORES[task],  # the scripts name no score; the paper reports these for them
    )


PRESETS: dict[tuple[str, str], Preset] = {
    ("listops", "paper"): _lra(
        "listops",
        "listops",
        epochs=40,
        examples=96_000,
        model__d_model=128,
        model__n_layers=8,
        arch__d_state=16,
        arch__blocks=8,
        arch__gate="half_glu2",
        arch__c_init="lecun_normal",
        arch__groups="BfastandCdecay",
        arch__bn_momentum=0.95,
        arch__dropout=0.0,
        arch__ssm_lr=0.001,
        optim__lr=0.003,
        optim__weight_decay=0.04,
        train__batch_size=50,
    ),
    ("text", "paper"): _lra(
        "text",
        "imdb",
        epochs=35,
        examples=25_000,
        warm_epochs=0,
        model__d_model=256,
        model__n_layers=6,
        arch__d_state=192,
        arch__blocks=12,
        arch__gate="half_glu2",
        arch__c_init="lecun_normal",
        arch__groups="standard",
        arch__dt_global=True,
        arch__bn_momentum=0.95,
        arch__dropout=0.1,
        arch__ssm_lr=0.001,
        optim__lr=0.004,
        optim__weight_decay=0.07,
        train__batch_size=50,
    ),
    ("retrieval", "paper"): _lra(
        "retrieval",
        "aan",
        epochs=20,
        examples=147_086,
        model__d_model=128,
        model__n_layers=6,
        arch__d_state=256,
        arch__blocks=16,
        arch__gate="half_glu1",
        arch__c_init="trunc_standard_normal",
        arch__groups="standard",
        arch__dt_global=True,
        arch__bn_momentum=0.95,
        arch__dropout=0.0,
        arch__ssm_lr=0.001,
        optim__lr=0.002,
        optim__weight_decay=0.05,
        train__batch_size=32,
    ),
    ("image", "paper"): _lra(
        "image",
        "cifar",
        epochs=250,
        examples=45_000,
        model__d_model=512,
        model__n_layers=6,
        arch__d_state=384,
        arch__blocks=3,
        arch__clip_eigs=True,
        arch__gate="half_glu1",
        arch__c_init="lecun_normal",
        arch__groups="BfastandCdecay",
        arch__bn_momentum=0.95,
        arch__dropout=0.1,
        arch__ssm_lr=0.001,
        optim__lr=0.0045,
        optim__weight_decay=0.07,
        train__batch_size=50,
        task__input="values",
    ),
    ("pathfinder", "paper"): _lra(
        "pathfinder",
        "pathfinder",
        epochs=200,
        examples=160_000,
        model__d_model=192,
        model__n_layers=6,
        arch__d_state=256,
        arch__blocks=8,
        arch__gate="half_glu1",
        arch__c_init="trunc_standard_normal",
        arch__groups="standard",
        arch__bn_momentum=0.9,
        arch__dropout=0.05,
        arch__ssm_lr=0.0009,
        optim__lr=0.0045,
        optim__weight_decay=0.03,
        train__batch_size=64,
        task__input="values",
    ),
    ("pathx", "paper"): _lra(
        "pathx",
        "pathx",
        epochs=75,
        examples=160_000,
        model__d_model=128,
        model__n_layers=6,
        arch__d_state=256,
        arch__blocks=16,
        arch__dt_min=0.0001,
        arch__gate="half_glu1",
        arch__c_init="complex_normal",
        arch__groups="BandCdecay",
        arch__bn_momentum=0.9,
        arch__dropout=0.0,
        arch__ssm_lr=0.0006,
        optim__lr=0.0018,
        optim__weight_decay=0.06,
        train__batch_size=32,
        task__input="values",
    ),
    ("listops", "quick"): Preset(
        values={
            "arch.d_state": 16,
            "arch.blocks": 8,
            "arch.gate": "half_glu2",
            "arch.c_init": "lecun_normal",
            "arch.groups": "BfastandCdecay",
            "arch.norm": "batch",
        },
        sources={"*": f"{REPO} bin/run_experiments/run_lra_listops.sh"},
    ),
    ("pathfinder", "quick"): Preset(
        values={"arch.blocks": 8, "arch.norm": "batch", "arch.bn_momentum": 0.9, "arch.ssm_lr": 0.0009},
        sources={"*": f"{REPO} bin/run_experiments/run_lra_pathfinder.sh"},
    ),
    ("pathx", "quick"): Preset(
        values={
            "arch.blocks": 16,
            "arch.c_init": "complex_normal",
            "arch.groups": "BandCdecay",
            "arch.norm": "batch",
            "arch.bn_momentum": 0.9,
            "arch.dt_min": 0.0001,
            "arch.ssm_lr": 0.0006,
            "optim.lr": 0.0018,
        },
        sources={"*": f"{REPO} bin/run_experiments/run_lra_pathx.sh; 1 / dt_min is near the length"},
    ),
}

REPORTED: tuple[Reported, ...] = tuple(
    Reported(task=task, metric="accuracy", value=value, source=LISTED, table="Long-range modeling on LRA")
    for task, value in SCORES.items()
)
