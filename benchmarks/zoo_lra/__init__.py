"""Long Range Arena: listops, pathfinder, pathx. Tay et al. 2021, arXiv 2011.04006."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zoo import Paper, Source, Task, hookimpl

LRA = Paper(
    title="Long Range Arena: A Benchmark for Efficient Transformers",
    authors="Yi Tay, Mostafa Dehghani, Samira Abnar, Yikang Shen, Dara Bahri, Philip Pham, Jinfeng Rao, Liu Yang,"
    " Sebastian Ruder, Donald Metzler",
    venue="ICLR",
    year=2021,
    arxiv="2011.04006",
)
RELEASE = "https://storage.googleapis.com/long-range-arena/lra_release.gz"

LISTOPS: dict[str, dict[str, Any]] = {
    "smoke": {
        "task.train_size": 256,
        "task.val_size": 64,
        "task.test_size": 64,
        "task.min_len": 9,
        "task.max_len": 65,
        "task.seq_len": 64,
        "train.samples": 128,
        "train.batch_size": 16,
        "model.d_model": 16,
        "model.n_layers": 1,
        "optim.lr": 1e-3,
    },
    "quick": {
        "task.train_size": 16_000,
        "task.val_size": 1_000,
        "task.test_size": 2_000,
        "task.min_len": 15,
        "task.max_len": 257,
        "task.seq_len": 256,
        "train.samples": 16_000,
        "train.batch_size": 32,
        "train.eval_every": 4_000,
        "model.match": "transformer",
        "model.d_model": 64,
        "model.n_layers": 2,
        "optim.lr": 3e-3,
    },
    "paper": {
        "train.samples": 5_000 * 32,
        "train.batch_size": 32,
        "model.d_model": 128,
        "model.n_layers": 4,
        "optim.lr": 1e-3,
    },
}


def pictures(**quick: Any) -> dict[str, dict[str, Any]]:
    """Protocols of a Pathfinder task. quick keeps the real length and saves on pictures; smoke is 32x32 always."""
    return {
        "smoke": {
            "task.train_size": 128,
            "task.val_size": 32,
            "task.test_size": 32,
            "task.seq_len": 1024,
            "train.samples": 32,
            "train.batch_size": 8,
            "model.d_model": 16,
            "model.n_layers": 1,
            "optim.lr": 1e-3,
        },
        "quick": {"model.match": "transformer", "model.d_model": 32, "optim.lr": 3e-3, **quick},
        "paper": {
            "train.samples": 200 * 160_000,
            "train.batch_size": 64,
            "model.d_model": 128,
            "model.n_layers": 6,
            "optim.lr": 1e-3,
        },
    }


# The slowest architecture of the zoo takes three minutes on two cores with these.
PATHFINDER_QUICK = {
    "task.train_size": 2_400,
    "task.val_size": 400,
    "task.test_size": 800,
    "train.samples": 2_400,
    "train.batch_size": 32,
    "train.eval_every": 1_200,
    "model.n_layers": 2,
}
PATHX_QUICK = {
    "task.train_size": 64,
    "task.val_size": 24,
    "task.test_size": 64,
    "train.samples": 64,
    "train.batch_size": 8,
    "train.micro_batch_size": 1,
    "train.eval_every": 32,
    "model.n_layers": 1,
}


@hookimpl
def zoo_tasks() -> Iterable[Task]:
    """The tasks of the suite that can be generated in full on any machine."""
    yield Task(
        name="listops",
        suite="lra",
        title="ListOps",
        version="1",
        kind="classification",
        vocab_size=17,
        classes=10,
        length=2_000,
        metrics=("accuracy",),
        chance=0.1,
        licence="Apache-2.0 (generator)",
        source=Source(
            paper=LRA,
            identifiers={"release": RELEASE, "files": "listops-1000/basic_{train,val,test}.tsv"},
            note="Regenerated from the published law unless task.path names the published files.",
        ),
        data="zoo_lra.listops:ListOpsData",
        options="zoo_lra.options:ListOpsOptions",
        protocols=LISTOPS,
        description="Evaluate a nested expression of MIN, MAX, MED and SM over digits.",
    )
    for name, title, length, side, protocols in (
        ("pathfinder", "Pathfinder", 1_024, 32, pictures(**PATHFINDER_QUICK)),
        ("pathx", "Path-X", 16_384, 128, pictures(**PATHX_QUICK)),
    ):
        yield Task(
            name=name,
            suite="lra",
            title=title,
            version="1",
            kind="classification",
            vocab_size=256,
            classes=2,
            length=length,
            metrics=("accuracy",),
            chance=0.5,
            licence="MIT (generator)",
            source=Source(
                paper=LRA,
                identifiers={"release": RELEASE, "files": "pathfinder{32,128}/curv_contour_length_14"},
                note="Regenerated with the published parameters unless task.path names the published pictures.",
            ),
            data=f"zoo_lra.pathfinder:{'PathXData' if name == 'pathx' else 'PathfinderData'}",
            options="zoo_lra.options:PathfinderOptions",
            protocols=protocols,
            description=f"Are the two discs on the ends of one dashed contour? {side}x{side} pixels.",
        )
