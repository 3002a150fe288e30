"""What a model does with its context: models whose answers are known beforehand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.board.analysis import analysis_chart, analysis_tables, attention_chart, best_head, summaries
from zoo.board.charts import to_svg
from zoo.cli import main
from zoo.data.batch import Batch
from zoo.data.module import TaskData
from zoo.data.questions import IGNORE, Continuation, Piece
from zoo.model.models import LMHeadModel, ModelOutput
from zoo.nn import MultiHeadAttention
from zoo.nn.heads import trace_heads
from zoo.run.analysis import analyze, attention_maps
from zoo.run.analysis.context import analyze_context
from zoo.run.analysis.induction import analyze_induction, copying, head_traces, prefix_matching
from zoo.run.compose import Experiment
from zoo.run.execute import open_data
from zoo.run.subject import load_subject
from zoo.spec.analysis import AnalysisRecord, ContextAnalysis
from zoo.spec.errors import UserError
from zoo.spec.registry import registry
from zoo.testing.architectures.subject import ArchitectureSubject

from .conftest import resolve_one

VOCAB, LENGTH = 24, 32


def text(arch: str = "toy", **overrides: Any) -> tuple[Experiment, TaskData]:
    """A language model's experiment, and test data of it in which every token is that of eight places before."""
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    experiment = resolve_one(arch, "toytext", protocol="smoke", overrides={"task.seq_len": LENGTH, **keys})
    data = open_data(experiment, None)
    draws = np.random.default_rng(0)
    rows = [np.resize(draws.integers(1, 20, 8), LENGTH + 1) for _ in range(48)]
    data.dataset = lambda split: [Piece(row[:-1], row[1:]) for row in rows]
    return experiment, data


class Window(nn.Module):
    """A language model that knows the last `window` tokens: `copies` the first of them, or counts all alike."""

    def __init__(self, window: int, *, copies: bool) -> None:
        super().__init__()
        self.window, self.copies = window, copies
        self.encoder = nn.Module()
        self.encoder.embedding = nn.Embedding.from_pretrained(torch.eye(VOCAB), freeze=False)

    def forward(self, batch: Batch, state: Any = None) -> ModelOutput:
        x = self.encoder.embedding(batch.inputs)
        scored = (batch.labels != IGNORE).nonzero()
        logits = []
        for row, last in scored.tolist():
            seen = x[row, max(last + 1 - self.window, 0) : last + 1]
            first = seen[0] if len(seen) == self.window else 0 * seen[0]
            logits.append(9 * first if self.copies else seen.mean(0))
        return ModelOutput(torch.stack(logits), batch.labels[batch.labels != IGNORE], scored[:, 0], {})


def context_of(model: nn.Module) -> ContextAnalysis:
    experiment, data = text()
    return analyze_context(experiment, model, data, max_tokens=48 * LENGTH, seed=0)


@pytest.mark.usefixtures("toys")
def test_the_effective_context_of_a_window_is_the_window() -> None:
    found = context_of(Window(8, copies=True))
    assert (found.longest, found.predictions, found.effective) == (LENGTH, 48, 8)
    losses = {point.tokens: point.loss for point in found.truncated}
    assert losses[1] == losses[2] == losses[4] == pytest.approx(np.log(VOCAB))
    assert losses[8] == losses[16] == losses[32] < 0.01


@pytest.mark.usefixtures("toys")
def test_what_lies_beyond_a_window_has_no_gradient_and_no_effect_shuffled() -> None:
    found = context_of(Window(8, copies=True))
    assert {(span.start, span.stop): span.norm > 0 for span in found.gradient} == {
        (0, 1): False, (1, 2): False, (2, 4): False, (4, 8): True, (8, 16): False, (16, 32): False,
    }  # fmt: skip
    losses = {point.tokens: point.loss for point in found.shuffled}
    assert losses[8] == losses[16] == losses[32]
    assert losses[4] is not None
    assert losses[32] is not None
    assert losses[4] > losses[32] + 1


@pytest.mark.usefixtures("toys")
def test_shuffling_does_nothing_to_a_bag_of_words() -> None:
    found = context_of(Window(LENGTH, copies=False))
    assert len({round(point.loss or 0, 5) for point in found.shuffled}) == 1
    assert len({round(point.loss or 0, 5) for point in found.truncated}) > 2


@pytest.mark.usefixtures("toys")
def test_a_window_attention_reads_nothing_beyond_its_window() -> None:
    window = {"arch.window": [16], "arch.counts_self": True, "arch.n_heads": 2, "model.n_layers": 1}  # 7 keys before
    window["model.positions"] = "none"  # absolute ones would move with the beginning of the text
    experiment, data = text("longformer", **window)
    model = experiment.kind.build_model(experiment.model_spec).eval()
    found = analyze_context(experiment, model, data, max_tokens=LENGTH * 16, seed=0)
    losses = {point.tokens: point.loss for point in found.truncated}
    assert losses[8] == pytest.approx(losses[16], abs=1e-6) == pytest.approx(losses[32], abs=1e-6)
    assert losses[4] != pytest.approx(losses[8], abs=1e-4)
    assert [span.norm for span in found.gradient if span.start >= 8] == [0.0, 0.0]
    assert all(span.norm > 0 for span in found.gradient if span.start < 8)


@pytest.mark.usefixtures("toys")
def test_a_context_without_gain_has_no_effective_length() -> None:
    assert context_of(Window(LENGTH + 1, copies=True)).effective is None


class HandBuilt(nn.Module):
    """Two layers of attention only: a head that sees the token before, and an induction head that looks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.backbone = self
        self.attention = MultiHeadAttention(2 * VOCAB, 2, d_qkv=2 * VOCAB, causal=True, bias=False)
        own, before, none = torch.eye(2 * VOCAB)[:VOCAB], torch.eye(2 * VOCAB)[VOCAB:], torch.zeros(VOCAB, 2 * VOCAB)
        with torch.no_grad():  # the first head does all of it, the second sees all alike and copies nothing
            self.attention.q.weight.copy_(torch.cat([400 * own, none]))
            self.attention.k.weight.copy_(torch.cat([before, none]))
            self.attention.v.weight.copy_(torch.cat([own, none]))
            self.attention.out.weight.copy_(torch.cat([torch.eye(VOCAB, 2 * VOCAB), none]))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x)[0]

    def next_logits(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        own = F.one_hot(tokens, VOCAB).float()
        return self.compute_logits(self(torch.cat([own, F.pad(own, (0, 0, 1, 0))[:, :-1]], -1))[:, -1])

    def compute_logits(self, hidden: Tensor) -> Tensor:
        return hidden[..., :VOCAB]


@pytest.mark.parametrize("first", [0, 1])
def test_a_hand_built_induction_head_scores_one_and_an_even_head_does_not(first: int) -> None:
    """Without and behind a symbol that begins the text."""
    block = torch.stack([torch.randperm(VOCAB - 1)[:10] + 1 for _ in range(3)])
    tokens, model = F.pad(block.repeat(1, 4), (first, 0)), HandBuilt()
    with torch.no_grad():
        (trace,) = head_traces(model, tokens)
        matching, copied = prefix_matching(trace, 10, first), copying(model, trace, tokens, 10, first)
    assert matching[0] == pytest.approx(1)
    assert copied[0] == pytest.approx(1)
    i = torch.arange(10, 40, dtype=torch.float64)
    assert matching[1] == pytest.approx(float(((i // 10) / (i + 1 + first)).mean()))
    assert copied[1] == 0


CASES = [
    (name, mode)
    for name, entry in registry().architectures.items()
    for mode in sorted(entry.record.capabilities.modes - {"seq2seq"})
]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_weights_and_what_heads_move_are_what_an_attention_layer_computes(name: str, mode: Any) -> None:
    """Whatever its positions, windows and kernels; and no layer with heads over its input is left out."""
    subject = next(case for case in ArchitectureSubject.find(name).cases() if case.mode == mode)
    dims = subject.dims(max_len=64, d_model=32)
    torch.manual_seed(0)
    model = subject.architecture.build(subject.config(), dims).eval()
    outputs: dict[str, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Any, layer: str) -> None:
        outputs[layer] = output[0] if isinstance(output, tuple) else output

    for layer, module in model.named_modules():
        if isinstance(module, MultiHeadAttention):
            module.register_forward_hook(lambda *call, layer=layer: keep(*call, layer))
    with torch.no_grad(), trace_heads(model) as traces:
        model(torch.randn(2, 48, dims.d_model))
    own_values = {("longformer", "bidirectional"), ("longt5", "bidirectional")}  # global tokens
    assert {trace.name for trace in traces} == (set() if (name, mode) in own_values else set(outputs))
    for trace in traces:
        bias = model.get_submodule(trace.name).out.bias
        y = (trace.weights @ trace.moved).sum(1) + (0 if bias is None else bias)
        torch.testing.assert_close(y, outputs[trace.name], rtol=1e-4, atol=1e-5)
        if mode == "causal":
            assert trace.weights.triu(1).abs().max() == 0
            torch.testing.assert_close(trace.weights.sum(-1), torch.ones(trace.weights.shape[:-1]))


@pytest.mark.usefixtures("toys")
def test_random_weights_have_no_induction_head_and_the_same_scores_twice() -> None:
    experiment, data = text("transformer")
    model = experiment.kind.build_model(experiment.model_spec).eval()
    once, twice = (analyze_induction(experiment, model, data, max_tokens=512, seed=seed) for seed in (0, 0))
    assert once == twice
    head = best_head(once)
    assert head is not None
    assert head.prefix_matching < 0.5
    assert (once.repeats, once.in_context) == (4, None)
    assert analyze_induction(experiment, model, data, max_tokens=512, seed=1) != once


# -- of runs -------------------------------------------------------------------------------------------------------


def bench(tmp_path: Path, task: str, arch: str = "toy", **overrides: Any) -> Path:
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    (stored,) = zoo.bench(arch, task, protocol="smoke", overrides=overrides, **folders)
    assert (stored.record.status, stored.record.error) == ("ok", "")
    return tmp_path / "runs" / stored.record.id


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("task", ["toytext", "toyrecall", "toytask"])
def test_a_run_is_analysed_and_its_record_reads_back(tmp_path: Path, task: str) -> None:
    folder = bench(tmp_path, task)
    record = zoo.analyze(folder, max_tokens=256)
    assert AnalysisRecord.model_validate_json(record.model_dump_json()) == record
    assert record.context is not None
    assert (record.trained_len, record.context.longest) == (12, 12)
    assert bool(record.induction) == (task != "toytask")
    assert record.run == folder.relative_to(tmp_path / "runs").as_posix()
    assert to_svg(analysis_chart(record)).startswith("<svg")
    assert next(name for name, _ in summaries(record)) == "effective context"
    assert len(analysis_tables(record)) == 1  # no attention heads
    again = zoo.analyze(folder, ["context"], max_tokens=256)
    assert (again.context, again.induction) == (record.context, ())


@pytest.mark.usefixtures("toys")
def test_heads_are_followed_through_the_checkpoints_that_were_kept(tmp_path: Path) -> None:
    folder = bench(tmp_path, "toytext", "transformer", **{"train.keep_checkpoints": True, "arch.n_heads": 2})
    steps = sorted(int(path.stem) for path in (folder / "checkpoints").iterdir())
    assert steps == [2, 4]
    record = zoo.analyze(folder, ["induction"], max_tokens=256)
    assert [each.step for each in record.induction] == [*steps, None]
    assert record.induction[-1].heads in [each.heads for each in record.induction[:-1]]
    assert record.induction[0].heads != record.induction[1].heads
    assert "over training" in to_svg(analysis_chart(record))
    words, layers = attention_maps(load_subject(folder), "3 1 4 1 5")
    assert words == ["3", "1", "4", "1", "5"]
    (weights,) = layers
    np.testing.assert_allclose(weights.sum(-1), np.ones((2, 5)), rtol=1e-5)
    assert "layer 0, head 1" in to_svg(attention_chart(words, layers))


def test_accuracy_by_the_place_of_the_answer_has_wilsons_interval(tmp_path: Path) -> None:
    sizes = {
        "task.group_size": 8,
        "task.val_size": 8,
        "task.train_size": 64,
        "task.seq_len": 64,
        "task.form": "symbols",
    }
    folder = bench(tmp_path, "needle", "transformer", **{**sizes, "task.depths": 3})
    record = zoo.analyze(folder, ["positions"])
    assert record.score == "accuracy"
    assert [point.at["depth"] for point in record.positions] == [0.0, 0.5, 1.0]
    for point in record.positions:
        assert point.n == 8
        assert point.low <= point.accuracy <= point.high < 1
    stored = json.loads(next((tmp_path / "results").rglob("*.json")).read_text())
    groups = stored["metrics"]["test"]["groups"]
    assert [point.accuracy for point in record.positions] == [group["scores"]["accuracy"] for group in groups]
    assert "where the answer stands" in to_svg(analysis_chart(record))


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("task", "only", "says"),
    [
        ("toytext", ["contxt"], "--only 'contxt': unknown; did you mean 'context'"),
        ("toytext", ["positions"], "no place of the answer is known of the test questions of"),
        ("toytask", ["induction"], "induction: defined for models that predict the next token; toytask is classify"),
        ("toypairs", ["context"], "context: defined where a model predicts the next token or the class of one input"),
        ("toypairs", [], "context: defined where"),
    ],
)
def test_what_is_not_defined_for_a_run_is_refused_in_one_line(
    tmp_path: Path, task: str, only: list[str], says: str
) -> None:
    folder = bench(tmp_path, task)
    with pytest.raises(UserError, match=says) as caught:
        analyze(folder, only)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("toys")
def test_the_command_writes_a_record_and_a_chart_or_one_line_and_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bench(tmp_path, "toytext")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zoo", "analyze", str(folder), *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as ending:
            code = int(ending.code or 0)
        return code, *capsys.readouterr()

    for bad in (["--only", "positions"], ["--prompt", "1 2 3"], ["--only", "context,heads"]):
        code, out, err = run(*bad)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert not list(folder.glob("*.svg"))
        assert not (folder / "analysis.json").exists()
    code, out, _ = run("--json", "--max-tokens", "64", "--results", str(tmp_path / "results"))
    assert code == 0
    assert json.loads(out) == json.loads((folder / "analysis.json").read_text())
    assert (folder / "analysis.svg").read_text().startswith("<svg")
    (shown,), problems = AnalysisRecord.read_all(tmp_path / "results")
    assert (shown.model_dump(mode="json"), problems) == (json.loads(out), [])
    _, out, _ = run("--only", "induction")
    assert "induction heads: no attention heads over the whole input" in out
    assert "effective context" not in out


def test_the_answer_of_a_question_is_its_last_token() -> None:
    question = Continuation(np.arange(1, 9), np.array([9, 10]))
    experiment = resolve_one("transformer", "mqar", protocol="smoke")
    data = open_data(experiment, None)
    data.dataset = lambda split: [question]
    model = experiment.kind.build_model(experiment.model_spec).eval()
    assert isinstance(model, LMHeadModel)
    found = analyze_context(experiment, model, data, max_tokens=1, seed=0)
    with torch.no_grad():
        logits = model.logits(torch.arange(1, 10)[None])[0, -1]
    assert found.longest == 9
    assert found.truncated[-1].loss == pytest.approx(float(F.cross_entropy(logits, torch.tensor(10))), rel=1e-5)
