"""Tasks whose answers are tokens: layouts, models, carried state, records."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.run.conftest import resolve_one
from zoo import bench
from zoo.data.batch import Batch, QuestionCollator
from zoo.data.module import Totals, perplexity
from zoo.data.questions import IGNORE, Continuation, Marked, Piece, Specials, lay_out
from zoo.kinds.metrics import TokenMetrics
from zoo.model.models import LMHeadModel, ModelOutput
from zoo.model.segments import entering_state
from zoo.run.compose import Experiment
from zoo.run.execute import build_module, open_data
from zoo.spec.errors import ConfigError
from zoo.spec.record import Record, comparable
from zoo.spec.registry import registry

SPECIALS = Specials(slot=7, end=6, slots=4)
X = IGNORE


def test_a_continuation_under_each_objective() -> None:
    question = Continuation(np.array([1, 2, 3]), np.array([4, 5]))
    read = lay_out(question, "causal_lm", SPECIALS)
    assert read.inputs.tolist() == [1, 2, 3, 4]
    assert read.labels.tolist() == [X, X, 4, 5]
    filled = lay_out(question, "infilling", SPECIALS)
    assert filled.inputs.tolist() == [1, 2, 3, 7, 7, 7, 7]
    assert filled.labels.tolist() == [X, X, X, 4, 5, 6, X]
    written = lay_out(question, "seq2seq", SPECIALS)
    assert written.target is not None
    assert (written.inputs.tolist(), written.target.tolist(), written.labels.tolist()) == (
        [1, 2, 3],
        [6, 4, 5],
        [4, 5, 6],
    )


def test_the_number_of_slots_does_not_tell_the_length_of_the_answer() -> None:
    for k in (1, 2, 3):
        laid = lay_out(Continuation(np.array([1, 2]), np.arange(k)), "infilling", SPECIALS)
        assert laid.inputs.tolist() == [1, 2, 7, 7, 7, 7]
    with pytest.raises(ValueError, match="4 tokens and its end symbol for 4 slots"):
        lay_out(Continuation(np.array([1]), np.arange(4)), "infilling", SPECIALS)


def test_answers_in_place_are_the_same_for_causal_and_fill_in() -> None:
    question = Marked(np.array([1, 2, 5]), np.array([X, 3, 4]), group=1)
    for objective in ("causal_lm", "infilling"):
        laid = lay_out(question, objective, SPECIALS)  # type: ignore[arg-type]
        assert (laid.inputs.tolist(), laid.labels.tolist(), laid.group) == ([1, 2, 5], [X, 3, 4], 1)
    laid = lay_out(question, "seq2seq", SPECIALS)
    assert laid.target is not None
    assert (laid.inputs.tolist(), laid.target.tolist(), laid.labels.tolist()) == ([1, 2, 5], [6, 3], [3, 4])


def test_running_text_has_one_form() -> None:
    with pytest.raises(ValueError, match="no infilling form"):
        lay_out(Piece(np.array([1]), np.array([2])), "infilling", SPECIALS)


@pytest.mark.parametrize("objective", ["causal_lm", "infilling", "seq2seq"])
def test_every_layout_keeps_the_group_and_where_a_text_begins(objective: Any) -> None:
    asked = [Marked(np.array([1, 2]), np.array([X, 3]), 1), Marked(np.array([4]), np.array([5]), 2)]
    asked_after = [Continuation(np.array([1, 2]), np.array([3]), 2), Continuation(np.array([4]), np.array([5]), 1)]
    for questions in (asked, asked_after):
        batch = QuestionCollator(objective, SPECIALS)(questions)
        assert batch.groups is not None
        assert batch.fresh is not None
        assert batch.groups.tolist() == [question.group for question in questions]
        assert batch.fresh.tolist() == [True, True]
    if objective == "causal_lm":
        pieces = [Piece(np.array([1, 2]), np.array([2, 3]), fresh) for fresh in (True, False)]
        batch = QuestionCollator(objective, SPECIALS)(pieces)
        assert batch.fresh is not None
        assert batch.fresh.tolist() == [True, False]
        assert batch.mask is None  # every token is real


def test_batches_are_padded_on_the_right_and_pads_ask_nothing() -> None:
    batch = QuestionCollator("causal_lm", SPECIALS)(
        [Continuation(np.array([1, 2, 3]), np.array([4])), Continuation(np.array([1]), np.array([4, 5]))]
    )
    assert batch.mask is not None
    assert batch.inputs.tolist() == [[1, 2, 3], [1, 4, 0]]
    assert batch.mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.labels.tolist() == [[X, X, 4], [4, 5, X]]
    batch = QuestionCollator("seq2seq", SPECIALS)(
        [Continuation(np.array([1, 2]), np.array([4])), Continuation(np.array([1]), np.array([4, 5]))]
    )
    assert batch.target is not None
    assert (batch.target.tolist(), batch.labels.tolist()) == ([[6, 4, 6], [6, 4, 5]], [[4, 6, X], [4, 5, 6]])


def test_the_metric_counts_answers_questions_and_groups() -> None:
    def score(split: str, t: Totals) -> dict[str, float]:
        return {"accuracy": t.whole / t.questions, "spread": t.squares}

    def batch(groups: torch.Tensor | None) -> Batch:
        return Batch(torch.zeros(3, 4), None, torch.zeros(3, 4), groups=groups)

    metric = TokenMetrics("test", [{"length": 1}, {"length": 2}, {"length": 3}], score)
    logits = torch.tensor([[0.0, 5.0], [0.0, 5.0], [5.0, 0.0], [0.0, 5.0]])
    none = torch.tensor([], dtype=torch.int64)
    loss = torch.tensor(0.0)
    output = ModelOutput(logits, torch.tensor([1, 0, 0, 1]), torch.tensor([0, 0, 2, 2]), {})
    metric.update(output, batch(torch.tensor([0, 1, 2])), loss)
    metric.update(ModelOutput(logits[:0], none, none, {}), batch(None), loss)
    low, high = math.log(1 + math.exp(-5)), math.log(1 + math.exp(5))
    scores = metric.compute()
    # the row without a label does not count
    assert (scores["scores"]["accuracy"], scores["n"], scores["answers"]) == (0.5, 2, 4)
    assert scores["loss"] == pytest.approx((3 * low + high) / 4, rel=1e-6)
    assert scores["scores"]["spread"] == pytest.approx((low + high) ** 2 + (2 * low) ** 2, rel=1e-6)
    groups = [(g["at"]["length"], g["n"], g["scores"]["accuracy"]) for g in scores["groups"]]
    assert groups == [(1, 1, 0.0), (3, 1, 1.0)]
    metric.reset()
    assert metric.sums.sum() == 0


def run(folder: Path, arch: str, task: str, *, protocol: str = "smoke", **options: Any) -> Record:
    """The record of one run below `folder`."""
    folders = {"results": folder / "results", "runs": folder / "runs"}
    return bench(arch, task, protocol=protocol, **folders, **options)[0].record


def loss_of(record: Record) -> float:
    """The test loss of a run that ended well."""
    assert record.metrics is not None
    assert record.metrics.test.loss is not None
    return record.metrics.test.loss


def experiment(arch: str, task: str, **overrides: Any) -> Experiment:
    if arch == "linformer":
        overrides["arch.k"] = 8
    return resolve_one(arch, task, protocol="smoke", overrides=overrides)


@pytest.mark.usefixtures("toys")
def test_objectives_of_the_architectures() -> None:
    assert experiment("mamba", "toyrecall").objective == "causal_lm"
    assert experiment("transformer", "toyrecall").objective == "causal_lm"
    assert experiment("linformer", "toyrecall").objective == "infilling"
    assert experiment("longt5", "toyrecall").objective == "seq2seq"
    assert experiment("transformer", "toyrecall", **{"model.mode": "bidirectional"}).objective == "infilling"
    assert experiment("transformer", "toytask").objective == "classify"
    assert experiment("longt5", "toytask").mode == "bidirectional"
    with pytest.raises(ConfigError, match="no causal or bidirectional form"):
        experiment("longt5", "toytask", **{"model.mode": "seq2seq"})
    assert experiment("mamba", "toytext").stateful
    assert not experiment("performer", "toytext").stateful  # positions of the frame begin anew with each piece
    assert not experiment("transformer", "toytext").stateful
    assert not experiment("mamba", "toyrecall").stateful
    assert experiment("linformer", "toyrecall").max_len == 12
    assert experiment("mamba", "toyrecall").max_len == 48


@pytest.mark.usefixtures("toys")
def test_a_value_equal_to_its_default_is_not_part_of_the_identity() -> None:
    plain, used = (experiment("mamba", "toyrecall", **{"task.stray": stray}) for stray in (False, True))
    assert plain.hash != used.hash
    # a configuration from before the setting existed
    task = {key: value for key, value in plain.config["task"].items() if key != "stray"}
    assert replace(plain, config={**plain.config, "task": task}).hash == plain.hash


ALL = ["transformer", "transformer_xl", "compressive", "rmt", "memformer", "longformer", "bigbird", "linformer"]
ALL += ["performer", "nystromformer", "perceiver", "s4", "s5", "h3", "hyena", "mamba", "retnet", "mega", "longt5"]


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("form", ["marked", "continuation"])
@pytest.mark.parametrize("arch", ALL)
def test_every_architecture_answers(arch: str, form: str, tmp_path: Path) -> None:
    """The same logits whatever else is in the batch, a gradient for the head, and no look at the answer."""
    made = experiment(arch, "toyrecall", **{"task.form": form, "segments.length": 5})
    module = build_module(made)
    data, model = open_data(made, module.schedule), module.model.double().eval()
    assert isinstance(model, LMHeadModel)
    questions = [data.dataset("test")[i] for i in range(4)]
    collate = QuestionCollator(made.objective, data.specials)
    together = model(collate(questions))
    for i, question in enumerate(questions):
        alone = model(collate([question]))
        order = together.rows == i
        assert alone.labels.tolist() == together.labels[order].tolist()
        torch.testing.assert_close(alone.logits, together.logits[order], rtol=1e-9, atol=1e-9)
    batch = collate(questions)
    if made.objective == "causal_lm":
        # a later token must not change the predictions before it
        changed = batch._replace(inputs=batch.inputs.clone())
        last = batch.labels.ne(IGNORE).int().argmax(1)
        for row in range(4):
            changed.inputs[row, last[row] + 1 :] = 1
        first = [int((together.rows == i).nonzero()[0, 0]) for i in range(4)]
        torch.testing.assert_close(model(changed).logits[first], together.logits[first], rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("arch", ["mamba", "transformer_xl", "s4", "rmt", "retnet", "mega", "compressive", "h3", "s5"])
def test_a_text_in_pieces_is_answered_as_a_whole(arch: str) -> None:
    """Carried state: where an architecture promises that pieces are exact, perplexity does not depend on the cut."""
    made = experiment(arch, "toytext", **{"segments.length": 4})
    model = build_module(made).model.double().eval()
    ids = torch.randint(1, 6, (3, 24))
    whole = QuestionCollator("causal_lm", SPECIALS)([Piece(row[:-1].numpy(), row[1:].numpy()) for row in ids])
    state = None
    pieces = []
    for a, b in ((0, 12), (12, 23)):
        cut = whole._replace(inputs=whole.inputs[:, a:b], labels=whole.labels[:, a:b])
        answered = model(cut, state)
        state = answered.state
        order = torch.argsort(answered.rows, stable=True)
        pieces.append(answered.logits[order].view(3, b - a, -1))
    answered = model(whole)
    order = torch.argsort(answered.rows, stable=True)
    whole_logits = answered.logits[order].view(3, 23, -1)
    if made.arch_spec.capabilities.chunk_exact or made.arch_spec.capabilities.segment:
        torch.testing.assert_close(torch.cat(pieces, 1), whole_logits, rtol=1e-7, atol=1e-7)
    else:
        assert torch.isfinite(torch.cat(pieces, 1)).all()


CARRIED: dict[str, dict[str, Any]] = {
    name: {}
    for name, entry in registry().architectures.items()
    if entry.record.capabilities.state != "none" and "causal" in entry.record.capabilities.modes
} | {"h3, of which a layer's state grows": {"arch.attn_layers": [0]}}


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("arch", CARRIED)
def test_rows_in_which_a_text_begins_carry_nothing(arch: str) -> None:
    made = experiment(arch.partition(",")[0], "toytext", **CARRIED[arch])
    module = build_module(made)
    module.model.double().eval()
    piece = Piece(np.array([6, 1, 2]), np.array([1, 2, 3]))
    first = QuestionCollator("causal_lm", SPECIALS)([piece, piece])
    with torch.no_grad():
        second = first._replace(fresh=torch.tensor([True, False]))
        entering = entering_state(module.model.backbone, module.model(first).state, second.fresh, 2)
        logits = module.model(second, entering).logits.view(2, 3, -1)
        alone = module.model(first).logits.view(2, 3, -1)
    torch.testing.assert_close(logits[0], alone[0])
    assert (logits[1] - alone[1]).abs().max() > 1e-6


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("arch", ["mamba", "transformer_xl", "linformer", "longt5"])
def test_a_recall_run_ends_in_a_valid_record(arch: str, tmp_path: Path) -> None:
    overrides = {"arch.k": 8} if arch == "linformer" else {}
    record = run(tmp_path, arch, "toyrecall", overrides=overrides)
    assert (record.status, record.error) == ("ok", "")
    assert record.metrics is not None
    test, longer = record.metrics.test, record.metrics.length_generalization
    assert (test.n, test.answers) == (40, 40)
    assert [g.at["length"] for g in test.groups] == [6, 12]
    hits = sum(g.n * (g.scores["accuracy"] or 0) for g in test.groups)
    assert hits == pytest.approx(40 * (test.scores["accuracy"] or 0))
    if arch == "linformer":  # it has weights for one length
        assert longer is None
    else:
        assert longer is not None
        assert [g.at["length"] for g in longer.groups] == [24, 48]
    assert record.metric.model_dump() == {"name": "accuracy", "higher_is_better": True}
    assert not record.stateful


@pytest.mark.usefixtures("toys")
def test_a_language_run_carries_its_state_and_learns_what_only_it_can_tell(tmp_path: Path) -> None:
    """The last token of a later piece is the first of the text: only the carried state holds it.

    Whoever sees one piece alone pays, per piece of 12 tokens, for its first token (one of four symbols in a third of
    the pieces, else always the same) and, in two thirds of them, for one of four symbols at the end.
    """
    alone = (-math.log(1 / 3) / 3 - 2 * math.log(2 / 3) / 3 + math.log(4) / 3 + 2 * math.log(4) / 3) / 12
    longer = {"protocol": "quick", "overrides": {"train.max_samples": 2048, "optim.lr": 0.04}}
    record = run(tmp_path, "s4", "toytext", **longer)
    assert record.stateful
    assert record.objective == "causal_lm"
    assert record.metric.model_dump() == {"name": "perplexity", "higher_is_better": False}
    assert record.metrics is not None
    losses = [point.loss for point in record.history if point.split == "val" and point.loss is not None]
    assert record.metrics.val.loss == min(losses)
    assert loss_of(record) < 0.7 * alone
    without = run(tmp_path, "transformer", "toytext", **longer)
    assert not without.stateful
    # the first tokens of 13 texts are not quite as often each as they are likely
    assert loss_of(without) > 0.95 * alone


@pytest.mark.usefixtures("toys")
def test_perplexity_does_not_depend_on_the_batch_of_evaluation(tmp_path: Path) -> None:
    records = [
        run(tmp_path / str(size), "mamba", "toytext", overrides={"train.eval_batch_size": size}) for size in (1, 3, 20)
    ]
    losses = [loss_of(record) for record in records]
    assert max(losses) - min(losses) < 1e-6 * max(losses)
    assert {record.metrics.test.n for record in records if record.metrics} == {39}


@pytest.mark.usefixtures("toys")
def test_a_language_run_that_was_stopped_goes_on_to_the_same_record(tmp_path: Path) -> None:
    whole = run(tmp_path / "a", "mamba", "toytext")
    assert run(tmp_path / "b", "mamba", "toytext", max_time=0.0).status == "timeout"
    again = run(tmp_path / "b", "mamba", "toytext")
    assert comparable(again)["metrics"] == comparable(whole)["metrics"]


@pytest.mark.usefixtures("toys")
def test_two_devices_read_the_texts_of_one(tmp_path: Path) -> None:
    """Each device has half of the rows, and carries the state of its own."""
    exact = {"train.precision": "64-true", "train.accelerator": "cpu", "train.batch_size": 8}
    records = []
    for devices in (1, 2):
        sets = exact | {"train.devices": devices} | ({"train.strategy": "ddp"} if devices > 1 else {})
        folders = ["--results", str(tmp_path / f"{devices}"), "--runs", str(tmp_path / f"r{devices}")]
        command = [sys.executable, "-m", "zoo", "bench", "--arch", "mamba", "--task", "toytext", "--protocol", "smoke"]
        for key, value in sets.items():
            command += ["--set", f"{key}={value}"]
        done = subprocess.run([*command, *folders, "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        records.append(json.loads(done.stdout)[0])
    alone, together = records
    losses = [[p["loss"] for p in record["history"]] for record in records]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert together["metrics"]["test"]["n"] == alone["metrics"]["test"]["n"] == 39
    assert together["metrics"]["test"]["loss"] == pytest.approx(alone["metrics"]["test"]["loss"], rel=1e-6)


def test_a_loss_without_a_perplexity_is_no_error() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(708.5) == pytest.approx(math.exp(708.5))
    assert perplexity(1e4) == math.inf
    assert perplexity(math.nan) == math.inf  # a loss of NaN is no good perplexity
