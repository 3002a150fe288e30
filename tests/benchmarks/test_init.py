"""`zoo bench --init`: runs that begin with the weights of another run, or of a checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from tests.benchmarks.models import Runs, zoo_command
from zoo.board.checks import record_faults
from zoo.convert import convert, load
from zoo.data.files import sha256
from zoo.run.submission import rebuild_faults
from zoo.spec.record import Record, comparable
from zoo.spec.registry import registry
from zoo.spec.store import StoredRecord

STILL = {"optim.lr": 1e-30, "train.max_samples": 8, "train.batch_size": 8}
"""Next to no training: what is measured are the weights that the run began with."""


def folder_of(record: Record) -> Path:
    return Path(os.environ["ZOO_RUNS_DIR"]) / record.id


def begin(arch: str, task: str, init: Path | str, force: bool = False, **overrides: Any) -> Record:
    settings = {**STILL, **overrides}
    (stored,) = zoo.bench(arch, task, protocol="smoke", init=init, overrides=settings, force=force)
    assert (stored.record.status, stored.record.error) == ("ok", "")
    assert record_faults(StoredRecord(f"{stored.record.id}.json", stored.record)) == []
    return stored.record


def test_a_run_begins_with_a_checkpoints_embedding_backbone_and_head(
    tiny_checkpoint: Path, smoke_run: Runs, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ids = torch.randint(0, 512, (2, 50), generator=torch.Generator().manual_seed(0))
    expected = load(tiny_checkpoint)(torch.cat([torch.zeros(2, 1, dtype=torch.int64), ids], 1)).logits[..., :512]
    convert("mamba", tiny_checkpoint, tmp_path / "zoo")
    for place in (tiny_checkpoint, tmp_path / "zoo"):
        record = begin("mamba", "wikitext", place)
        # our ids: 0 pads, the tokenizer's are shifted by one, behind them the symbol that begins a text (theirs: id 0)
        logits = zoo.load(record).logits(torch.cat([torch.full((2, 1), 513), ids + 1], 1))
        torch.testing.assert_close(logits[..., 1:513], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits[..., 513], expected[..., 0], rtol=1e-4, atol=1e-4)
        assert (logits.softmax(-1)[..., [0, 514]] == 0).all()
        assert "begins with the backbone, embedding, head of " in capsys.readouterr().err
        assert record.init is not None
        assert record.init.weights == sha256(place / "model.safetensors")
        assert record.init.source == place.name
        assert record.overrides["init"] == place.name


def test_a_run_begins_with_all_of_a_run_of_its_own_task(smoke_run: Runs) -> None:
    first = smoke_run("transformer", "wikitext", **{"model.d_model": 24, "arch.n_heads": 2})
    again = begin("transformer", "wikitext", folder_of(first))
    assert first.metrics is not None
    assert again.metrics is not None
    assert again.metrics.test.scores == pytest.approx(first.metrics.test.scores, rel=1e-5)
    assert again.config["model"]["d_model"] == 24
    assert again.init is not None
    assert (again.init.form, again.init.source) == ("run", first.id)
    assert rebuild_faults(again) == []


def test_what_the_tasks_do_not_share_begins_anew(smoke_run: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    first = folder_of(smoke_run("transformer", "wikitext"))
    begin("transformer", "listops", first, **{"model.mode": "bidirectional"})
    assert "begins with the backbone of smoke/wikitext/" in (err := capsys.readouterr().err)
    assert "; anew: embedding, head" in err
    # the same bytes, and both predict the next one
    begin("transformer", "lambada_openai", first)
    assert "begins with the backbone, embedding, head of smoke/wikitext/" in capsys.readouterr().err


def test_the_weights_are_part_of_the_identity_and_not_where_they_lie(smoke_run: Runs, tmp_path: Path) -> None:
    first = smoke_run("transformer", "wikitext")
    anew = begin("transformer", "wikitext", "")
    begun = begin("transformer", "wikitext", folder_of(first))
    assert begun.config_hash != anew.config_hash
    assert anew.init is None
    copy = shutil.copytree(folder_of(first), tmp_path / "elsewhere")
    repeated = begin("transformer", "wikitext", copy, force=True)
    assert comparable(repeated) == comparable(begun)
    tensors = load_file(copy / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, copy / "model.safetensors")
    assert begin("transformer", "wikitext", copy).config_hash not in (begun.config_hash, anew.config_hash)


def test_a_sweep_from_weights_is_ranked_by_its_best(smoke_run: Runs) -> None:
    first = folder_of(smoke_run("transformer", "wikitext"))
    swept = {"optim.lr": [1e-4, 1e-3]}
    stored = zoo.bench("transformer", "wikitext", protocol="smoke", init=first, sweep=swept, seeds=2)
    assert [record.seed for _, record in stored] == [0, 0, 1]
    assert len({record.init for _, record in stored}) == 1


def test_what_cannot_begin_a_run_is_named_before_anything_is_trained(
    smoke_run: Runs,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = folder_of(smoke_run("transformer", "wikitext"))
    pickled, pickle = tmp_path / "pickled", tmp_path / "best.ckpt"
    shutil.copytree(tiny_checkpoint, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    pickle.write_bytes(b"")
    cases: list[tuple[str, Path, tuple[str, ...], str]] = [
        ("s4", run, (), "holds transformer, not s4: --arch transformer"),
        ("transformer", tiny_checkpoint, (), "holds mamba, not transformer: --arch mamba"),
        ("transformer", run, ("--set", "model.d_model=64"), "it was built with model.d_model="),
        ("mamba", tiny_checkpoint, ("--set", "arch.d_state=8"), "it was built with arch.d_state=4"),
        ("mamba", pickled, (), "(pytorch_model.bin may run code when read; save it as safetensors)"),
        ("transformer", pickle, (), "a pickle may run code when read; the folder of a finished run has"),
        ("transformer", tmp_path / "nowhere", (), "no such folder; expected that of a finished run"),
    ]
    for arch, place, options, message in cases:
        command = ("bench", arch, "wikitext", "--protocol", "smoke", "--init", place, *options)
        code, _, err = zoo_command(capsys, monkeypatch, *command)
        assert code == 2, (place, err)
        (line,) = err.splitlines()
        assert message in line
    assert not list(Path(os.environ["ZOO_RESULTS_DIR"]).rglob("*.json"))


@pytest.fixture
def own_tasks() -> Iterator[None]:
    """Tasks of one's own data stay registered in the process."""
    yield
    registry.cache_clear()


@pytest.mark.usefixtures("own_tasks")
def test_labels_of_other_data_of_the_same_name_begin_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train(folder: str, labels: str, **options: Any) -> str:
        (place := tmp_path / folder / "marks").mkdir(parents=True)
        rows = [{"tokens": [k % 7, k % 5, 1], "label": labels[k % 2]} for k in range(40)]
        (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (stored,) = zoo.bench("s5", data=place, protocol="smoke", overrides=STILL, **options)
        assert stored.record.status == "ok", stored.record.error
        return stored.record.id

    first = train("a", "xy")
    capsys.readouterr()
    train("b", "xy", init=tmp_path / "runs" / first)
    assert "begins with the backbone, embedding, head of" in capsys.readouterr().err
    train("c", "pq", init=tmp_path / "runs" / first)
    assert "; anew: embedding, head" in capsys.readouterr().err
