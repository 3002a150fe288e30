"""`zoo extend`: the same text at every length, the methods that positions allow, and what cannot be read."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch

import zoo
import zoo.run.extend
from tests.benchmarks import layouts
from zoo import ConfigError, UserError
from zoo.cli import main
from zoo.run.compose import Experiment, with_settings
from zoo.run.extend import METHODS, extend, method_overrides
from zoo.run.trained import TrainedModel, load_trained

TEXT = {"task.seq_len": 16, "train.max_samples": 32}


class Trained(Protocol):
    def __call__(self, arch: str = "transformer", task: str = "wikitext", **overrides: Any) -> TrainedModel: ...


@pytest.fixture
def trained(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The model of a smoke run, which is made once."""
    shared = tmp_path_factory.getbasetemp() / "extend"
    if not shared.exists():
        layouts.everything(shared / "data")
    monkeypatch.setenv("ZOO_DATA_DIR", str(shared / "data"))

    def load(arch: str = "transformer", task: str = "wikitext", **overrides: Any) -> TrainedModel:
        overrides = (TEXT if task == "wikitext" else {}) | overrides
        folders = {"results": shared / "results", "runs": shared / "runs"}
        record = zoo.bench(arch, task, protocol="smoke", overrides=overrides, **folders)[0].record
        assert record.status == "ok", record.error
        return load_trained(shared / "runs" / record.id)

    return load


def test_every_length_reads_the_same_text(trained: Trained) -> None:
    """A model that looks back on nothing has one loss at every length, by whatever method."""
    model = trained()
    for block in model.model.encoder.backbone.stack.blocks:
        torch.nn.init.zeros_(block.mixer.out.weight)
        torch.nn.init.zeros_(block.mixer.out.bias)
    records = extend(model, lengths=(1, 2, 4), max_tokens=256)
    assert {(r.method, r.seq_len) for r in records} == {(m, n) for m in METHODS for n in (16, 32, 64)}
    assert {r.n for r in records} == {256}
    assert len({round(r.loss, 5) for r in records if r.loss is not None}) == 1
    for record in records:
        assert record.error == ""
        assert record.positions[-1].stop == record.seq_len
        assert [a.stop for a in record.positions[:-1]] == [b.start for b in record.positions[1:]]
        spans = [(span.n, span.loss) for span in record.positions]
        mean = sum(n * loss for n, loss in spans if loss is not None) / sum(n for n, _ in spans)
        assert record.loss == pytest.approx(mean)
        assert record.scores["perplexity"] == pytest.approx(math.exp(record.loss or 0))


def test_the_loss_by_position_is_that_of_each_token_read_after_its_own_piece(trained: Trained) -> None:
    model = trained()
    (record,) = extend(model, ["linear"], [2], max_tokens=64)
    at_length = with_settings(model.experiment, {**record.overrides, "task.seq_len": 32})
    rebuilt = at_length.kind.build_model(at_length.model_spec)
    rebuilt.load_state_dict(model.model.state_dict())
    model.data.prepare()
    text = model.data.text("test")
    first = next(i for i, n in enumerate(text.ends - text.starts) if n >= 32)
    begin, nats = int(text.starts[first]), []
    for start in (begin, begin + 32):
        tokens = text.read(start - 1, start + 32) if start > begin else text.read(start, start + 32)
        read = tokens[:-1] if start > begin else np.append(model.data.specials.end, tokens[:-1])
        with torch.no_grad():
            logits = rebuilt.eval().logits(torch.as_tensor(read.astype(np.int64))[None])[0]
        nats.append(
            torch.nn.functional.cross_entropy(logits, torch.as_tensor(tokens[-32:].astype(np.int64)), reduction="none")
        )
    assert record.loss == pytest.approx(torch.cat(nats).mean().item(), abs=1e-5)
    assert record.positions[0].loss == pytest.approx(
        torch.stack(nats)[:, : record.positions[0].stop].mean().item(), abs=1e-5
    )


@pytest.mark.parametrize(
    ("arch", "overrides", "allowed"),
    [
        ("transformer", {}, set(METHODS)),
        ("transformer", {"arch.positions": "alibi"}, {"none"}),
        ("s5", {}, {"none"}),
    ],
)
def test_all_means_what_the_positions_allow(
    arch: str, overrides: dict[str, Any], allowed: set[str], trained: Trained
) -> None:
    model = trained(arch, **overrides)
    assert {record.method for record in extend(model, lengths=[2], max_tokens=32)} == allowed
    for name in sorted(set(METHODS) - allowed):
        with pytest.raises(ConfigError, match=f"{name}: .*(no rotary positions|needs rope)"):
            extend(model, [name], [2])


def test_learned_positions_end_with_the_trained_length(trained: Trained) -> None:
    model = trained(**{"arch.positions": "learned"})
    within, beyond = extend(model, lengths=(1, 2), max_tokens=32)
    assert within.error == ""
    assert within.scores["perplexity"] > 1
    assert "weights for its length: encoder.backbone.table has the shape (16, " in beyond.error
    assert beyond.scores == {}


def test_at_the_trained_length_every_method_is_the_model_as_trained(trained: Trained) -> None:
    losses = {record.loss for record in extend(trained(), lengths=[1], max_tokens=64)}
    assert len(losses) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: limits of memory are Linux's")
def test_a_length_that_memory_cannot_hold_is_said(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(task="needle")
    monkeypatch.setattr("zoo.run.machine.available_bytes", lambda: 64 << 20)
    within, beyond = extend(model, ["none"], [1, 1 << 13])
    assert within.error == ""
    assert beyond.error.startswith("memory ran out at ")


def test_fine_tuning_changes_a_copy(trained: Trained) -> None:
    model = trained()
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    plain, tuned = (extend(model, ["yarn"], [2], finetune_steps=n, max_tokens=64)[0] for n in (0, 4))
    assert tuned.loss != plain.loss
    assert tuned.finetune_steps == 4
    again = extend(model, ["yarn"], [2], finetune_steps=4, max_tokens=64)[0]
    assert again.loss == tuned.loss
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.model.state_dict().items())


@pytest.mark.parametrize("times", [2, 3, 8, 16])
def test_no_distance_under_self_extend_is_beyond_the_trained_ones(times: int, trained: Trained) -> None:
    model = trained()
    for trained_len in (16, 17, 256, 1000):
        experiment = with_settings(model.experiment, {"task.seq_len": trained_len})
        if times >= 8 and trained_len < 20:
            with pytest.raises(ConfigError, match=f"no groups reach {times * trained_len} tokens from {trained_len}"):
                method_overrides(experiment, "self_extend", times * trained_len)
            continue
        settings = method_overrides(experiment, "self_extend", times * trained_len)
        G, W = settings["arch.self_extend.group_size"], settings["arch.self_extend.window"]
        assert W % G == 0
        lag = torch.arange(times * trained_len)
        distance = torch.where(lag < W, lag, (times * trained_len - 1) // G + W - W // G - (lag.flip(0)) // G)
        assert distance.max() < trained_len, (G, W)


def test_a_recall_task_is_scored_at_the_length(trained: Trained) -> None:
    model = trained(task="needle")
    within, beyond = extend(model, ["none"], [1, 2])
    assert set(within.scores) == set(beyond.scores)
    assert within.positions == ()
    assert within.n > 0


def test_the_command_writes_records_a_table_and_a_chart(
    trained: Trained, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained()

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["zoo", "extend", str(model.folder), *map(str, arguments)])
        capsys.readouterr()
        with contextlib.suppress(SystemExit):
            main()
        out = capsys.readouterr()
        return out.out or out.err

    printed = run("--methods", "none,yarn", "--lengths", "1,2", "--max-tokens", 64)
    assert "yarn" in printed
    assert "perplexity" in printed
    records = json.loads((model.folder / "extend.json").read_text())
    assert [(r["method"], r["seq_len"]) for r in records] == [("none", 16), ("none", 32), ("yarn", 16), ("yarn", 32)]
    chart = (model.folder / "extend.svg").read_text()
    assert "loss by position" in chart
    assert json.loads(run("--methods", "none", "--lengths", "1", "--max-tokens", 64, "--json"))[0]["method"] == "none"
    assert "--methods 'yarm': unknown; did you mean 'yarn'" in run("--methods", "yarm")
    assert "expected whole numbers from 1" in run("--lengths", "0,2")
    lines = run("--lengths", "1,50000", "--methods", "none,yarn").splitlines()
    assert lines[-1] == "zoo: --lengths: no document of the test split has 800,000 tokens"
    assert not any(line.startswith(("none", "yarn")) for line in lines)
    assert "expected 3 to 1,048,576, got 1600000" in run("--lengths", "100000", "--methods", "none")


def test_a_study_that_was_stopped_keeps_what_it_had_and_goes_on_from_there(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, measured = trained(), list[int]()
    evaluate = zoo.run.extend._evaluate

    def interrupted(experiment: Experiment, *rest: Any) -> dict[str, Any]:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(experiment.seq_len)
        return evaluate(experiment, *rest)

    monkeypatch.setattr("zoo.run.extend._evaluate", interrupted)

    def run(*arguments: object) -> list[dict[str, Any]]:
        command = ["zoo", "extend", str(model.folder), "--output", str(tmp_path), "--max-tokens", "64", *arguments]
        monkeypatch.setattr(sys, "argv", [*map(str, command)])
        with contextlib.suppress(SystemExit):
            main()
        return json.loads((tmp_path / "extend.json").read_text())

    study = ("--methods", "none,yarn", "--lengths", "1,2")
    before = run(*study)
    assert [(r["method"], r["seq_len"]) for r in before] == [("none", 16), ("none", 32), ("yarn", 16)]
    measured.clear()
    after = run(*study)
    assert measured == [32]
    assert after[:3] == before
    assert capsys.readouterr().out.count("(measured before)") == 3
    measured.clear()
    both = run("--methods", "yarn", "--lengths", "2", "--finetune-steps", 1)  # stands beside them
    assert measured == [32]
    assert [(r["method"], r["seq_len"], r["finetune_steps"]) for r in both[-2:]] == [("yarn", 32, 0), ("yarn", 32, 1)]
    measured.clear()
    other = run("--methods", "none", "--lengths", "1,2", "--max-tokens", 32)  # of other text
    assert measured == [16, 32]
    assert [(r["method"], r["seq_len"], r["n"]) for r in other] == [("none", 16, 32), ("none", 32, 32)]
    assert json.loads((tmp_path / "extend-1.json").read_text()) == both
    assert (tmp_path / "extend-1.svg").exists()
    assert (
        "extend.json was measured on other text or with other settings, and is extend-1.json" in capsys.readouterr().err
    )


def test_lists_of_lengths_follow_the_length_and_questions_that_do_not_are_refused(trained: Trained) -> None:
    lengths = {"task.train_lengths": [200, 400], "task.test_lengths": [200, 400], "task.seq_len": 400}
    model = trained(task="needle", **lengths)
    o = model.experiment.task_options
    (record,) = extend(model, ["none"], [2])
    assert (record.error, record.n) == ("", o.depths * o.group_size)
    assert record.settings == {key: list(value) if isinstance(value, list) else value for key, value in lengths.items()}
    (record,) = extend(trained(task="kv_retrieval"), ["none"], [2])
    assert record.scores == {}
    assert "its test questions have" in record.error


def test_a_task_of_one_length_says_so(trained: Trained) -> None:
    model = trained()
    plain = {key: value for key, value in model.experiment.config["task"].items() if key != "seq_len"}
    experiment = replace(model.experiment, config={**model.experiment.config, "task": plain})
    with pytest.raises(UserError, match="has no option seq_len"):
        extend(replace(model, experiment=experiment))
