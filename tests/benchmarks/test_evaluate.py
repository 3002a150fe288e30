"""`zoo eval`: runs and checkpoints on tasks that need no training, what they cannot be asked, and the board."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from tests.benchmarks import layouts
from tests.benchmarks.models import TOKENIZER, Runs, reference, zoo_command
from zoo import UserError
from zoo.board.build import build
from zoo.board.statistics import wilson
from zoo.convert import convert, load
from zoo.run.evaluate import needs_no_training
from zoo.run.trained import TrainedModel, load_trained
from zoo.spec.evaluation import EvaluationRecord
from zoo.spec.store import dumps
from zoo_lambada.passages import read_passages
from zoo_lambada.scoring import score

NEEDLE = {"task.seq_len": 640, "task.depths": 3, "task.group_size": 2}
PAIRS = {"task.train_pairs": [3], "task.test_pairs": [3], "task.generalization_pairs": [], "task.group_size": 2}


# -- what is measured ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "task"),
    [("mamba", "wikitext"), ("longt5", "lambada_openai"), ("transformer", "needle"), ("mamba", "kv_retrieval"),
     ("linformer", "mqar"), ("s5", "listops")],
)  # fmt: skip
def test_a_run_on_its_own_task_has_the_test_scores_of_its_record(arch: str, task: str, smoke_run: Runs) -> None:
    record = smoke_run(arch, task, **({"arch.k": 8} if arch == "linformer" else {}))
    assert record.metrics is not None
    (again,) = zoo.evaluate(record, task)
    expected = record.metrics.test
    assert (again.n, again.answers) == (expected.n, expected.answers)
    assert again.scores == pytest.approx(expected.scores, rel=1e-5)
    assert again.loss == pytest.approx(expected.loss, rel=1e-5)
    assert [(group.at, group.n) for group in again.groups] == [(group.at, group.n) for group in expected.groups]
    for group, same in zip(again.groups, expected.groups, strict=True):
        assert group.scores == pytest.approx(same.scores)
    assert again.checkpoint == record.id
    assert again.overrides == {}


def test_a_model_of_text_answers_every_task_that_needs_no_training(smoke_run: Runs) -> None:
    record = smoke_run()
    tasks = [name for name, entry in zoo.registry().tasks.items() if needs_no_training(entry.record)]
    assert tasks == ["needle", "kv_retrieval", "lambada_openai", "lambada_standard", "wikitext"]
    found = zoo.evaluate(record, ["lambada_openai", "lambada_standard", "wikitext"])
    found += zoo.evaluate(record, "needle", overrides=NEEDLE)
    found += zoo.evaluate(record, "kv_retrieval", overrides=PAIRS)
    by_task = {each.task: each for each in found}
    # texts are read as long as in training, questions have their own length
    assert by_task["lambada_openai"].options["seq_len"] == by_task["lambada_openai"].trained_len == 128
    assert by_task["needle"].options["seq_len"] == 640
    assert all(each.options["tokenizer"] == "bytes" for each in found)
    for name, key, n in (("needle", "depth", 3), ("kv_retrieval", "position", 3)):
        groups = by_task[name].groups
        assert len(groups) == n
        for group in groups:
            assert list(group.at)[-1] == key
            share = group.scores["accuracy"]
            assert share is not None
            assert group.interval is not None
            expected = wilson(share, group.n)
            assert (group.interval.low, group.interval.high) == (expected.low, expected.high)
    for each in found:
        assert EvaluationRecord.model_validate_json(dumps(each)) == each


def test_a_question_stands_behind_the_symbol_that_begins_a_text(smoke_run: Runs) -> None:
    """The nats of the needle's number, by hand: what the model was trained on begins behind the end symbol."""
    record = smoke_run()
    (found,) = zoo.evaluate(record, "needle", overrides={**NEEDLE, "task.group_size": 1, "task.depths": 2})
    trained: TrainedModel = load_trained(record)
    task = zoo.registry().task("needle").record
    options = task.load_options()(seq_len=640, depths=2, group_size=1, train_size=1)
    questions = task.load_data()(options, Path("/nowhere")).dataset("test")
    nats = []
    for question in (questions[0], questions[1]):
        ids = torch.tensor([257, *question.prompt, *question.answer])
        with torch.no_grad():
            logits = trained.model.logits(ids[None, :-1])[0, -len(question.answer) :]
        nats.append(torch.nn.functional.cross_entropy(logits, ids[-len(question.answer) :]).item())
    assert found.loss == pytest.approx(sum(nats) / 2, rel=1e-5)


def test_a_checkpoint_has_the_lambada_scores_of_its_own_library(
    tiny_checkpoint: Path, smoke_run: Runs, sample_data: Path
) -> None:
    from tokenizers import Tokenizer

    (found,) = zoo.evaluate(tiny_checkpoint, "lambada_openai")
    library, passages = Tokenizer.from_file(str(TOKENIZER)), sample_data / "data/lambada/lambada_test.jsonl"
    model = reference(tiny_checkpoint)
    expected = score(
        lambda ids, mask: model(input_ids=ids).logits,
        lambda text: library.encode(text).ids,
        read_passages(passages),
        max_len=1024,
        begin=[0],
    )
    assert found.scores["perplexity"] == pytest.approx(expected.perplexity, rel=1e-4)
    assert found.scores["accuracy"] == pytest.approx(expected.accuracy)
    assert found.n == len(expected.right)
    assert found.data.counts == {"test": found.n}
    assert (found.form, found.checkpoint, found.trained_len) == ("huggingface", "tiny-mamba", None)


def test_a_state_is_carried_through_a_text_that_is_longer_than_a_piece(tiny_checkpoint: Path, smoke_run: Runs) -> None:
    whole, pieces = (zoo.evaluate(tiny_checkpoint, "wikitext", overrides={"task.seq_len": n})[0] for n in (1 << 20, 48))
    assert pieces.stateful
    assert pieces.n > whole.n
    assert pieces.loss == pytest.approx(whole.loss, rel=1e-5)
    (apart,) = zoo.evaluate(tiny_checkpoint, "wikitext", overrides={"task.seq_len": 48, "task.stride": 24})
    assert apart.loss != pytest.approx(whole.loss, rel=1e-4)


def test_a_module_in_python_is_evaluated_by_its_own_ids(tiny_checkpoint: Path, smoke_run: Runs) -> None:
    overrides = {"task.seq_len": 320, "task.depths": 2, "task.group_size": 2}
    (folder,) = zoo.evaluate(tiny_checkpoint, "needle", overrides=overrides)
    (module,) = zoo.evaluate(load(tiny_checkpoint), "needle", overrides=overrides, tokenizer=str(TOKENIZER))
    assert (module.form, module.architecture) == ("module", "mamba")
    assert (module.scores, module.loss) == (folder.scores, folder.loss)
    for arch in ("transformer_xl", "retnet"):  # by segments, and in one call
        model = zoo.LanguageModel(arch, vocab_size=256, d_model=16, n_layers=1, max_len=64, segment_len=32).eval()
        (found,) = zoo.evaluate(model.train(), "lambada_openai", begin=10)
        assert model.training
        assert found.trained_len == found.options["seq_len"] == 64
        assert found.loss == pytest.approx(math.log(256), rel=0.5)
    classifier = zoo.Classifier("mamba", n_classes=2, vocab_size=9, d_model=8, n_layers=1, max_len=8)
    with pytest.raises(UserError, match=r"ids up to 511 by tokenizer.json, and the model has 256"):
        zoo.evaluate(model, "needle", tokenizer=str(TOKENIZER))
    with pytest.raises(UserError, match="Classifier is no run, checkpoint or model that predicts"):
        zoo.evaluate(classifier, "needle")


def test_a_converted_checkpoint_takes_its_tokenizer_along_and_scores_the_same(
    tiny_checkpoint: Path, smoke_run: Runs, tmp_path: Path
) -> None:
    convert("mamba", tiny_checkpoint, tmp_path / "ours")
    overrides = {"task.seq_len": 320, "task.depths": 2, "task.group_size": 2}
    theirs, ours = (
        zoo.evaluate(place, "needle", overrides=overrides)[0] for place in (tiny_checkpoint, tmp_path / "ours")
    )
    assert ours.form == "zoo"
    assert (ours.scores, ours.loss) == (theirs.scores, theirs.loss)
    assert ours.tokenizer == theirs.tokenizer
    assert ours.tokenizer is not None
    assert ours.tokenizer.sha256 != ""
    convert("mamba", tmp_path / "ours", tmp_path / "back")
    assert (tmp_path / "back/tokenizer.json").read_bytes() == TOKENIZER.read_bytes()


def test_a_run_that_learnt_the_needle_is_measured_by_depth_beyond_its_length(smoke_run: Runs) -> None:
    """Trained until it answers: what is measured is then not a guess."""
    learnt = {
        "task.seq_len": 32, "task.train_lengths": [32], "task.digits": 1, "task.hay": 4, "task.keys": 4,
        "task.train_size": 2400,
        "task.generalization_factors": [2], "task.group_size": 40, "train.max_samples": 2400, "train.batch_size": 16,
        "model.d_model": 32, "model.n_layers": 1, "optim.lr": 2e-2,
    }  # fmt: skip
    record = smoke_run("mamba", "needle", **learnt)
    (own,) = zoo.evaluate(record, "needle")
    assert (own.scores["accuracy"] or 0) > 0.5
    (longer,) = zoo.evaluate(record, "needle", overrides={"task.seq_len": 64, "task.depths": 5})
    assert [group.at for group in longer.groups] == [{"length": 64, "depth": k / 4} for k in range(5)]
    assert longer.overrides == {"task.seq_len": 64, "task.depths": 5}


def test_a_run_is_asked_with_the_tokenizer_that_it_was_trained_with(smoke_run: Runs, tmp_path: Path) -> None:
    own = tmp_path / "bpe.json"
    own.write_bytes(TOKENIZER.read_bytes())
    record = smoke_run("transformer", **{"task.tokenizer": str(own)})
    (found,) = zoo.evaluate(record, "lambada_openai")
    assert found.tokenizer is not None
    assert found.tokenizer.sha256 == hashlib.sha256(own.read_bytes()).hexdigest()
    tree = json.loads(own.read_text())
    first, second, *others = tree["model"]["merges"]
    tree["model"]["merges"] = [second, first, *others]
    own.write_text(json.dumps(tree))
    with pytest.raises(UserError, match="not the file that the model was trained with"):
        zoo.evaluate(record, "lambada_openai")


# -- what cannot be asked ------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_one_line_before_anything_is_computed(
    smoke_run: Runs,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, symbols = smoke_run(), smoke_run("transformer", "mqar")
    runs = load_trained(text).folder.parents[3]
    seq2seq = load_trained(smoke_run("longt5", "lambada_openai")).folder

    def folder(name: str, *files: str, config: dict[str, Any] | None = None) -> Path:
        made = tmp_path / name
        made.mkdir()
        for file in files:
            (made / file).write_bytes(
                (tiny_checkpoint / file).read_bytes() if (tiny_checkpoint / file).exists() else b"x"
            )
        if config is not None:
            (made / "config.json").write_text(json.dumps(config))
        return made

    config = json.loads((tiny_checkpoint / "config.json").read_text())
    bare = folder("bare", "config.json", "model.safetensors")
    pickled = folder("pickled", "config.json", "tokenizer.json", "pytorch_model.bin")
    only_pickle = folder("only_pickle", "model.pt")
    other = folder("other", "model.safetensors", "tokenizer.json", config={"model_type": "gpt2"})
    headless = folder("headless", "tokenizer.json", config=config | {"architectures": ["MambaModel"]})
    unbegun = folder(
        "unbegun", "model.safetensors", "tokenizer.json", config=config | {"bos_token_id": None, "eos_token_id": None}
    )
    for place, arguments, says in (
        (runs / text.id, ("--task", "listops"), "listops has to be trained for (zoo bench --task listops); without"),
        (runs / text.id, ("--task", "mqar"), "evaluated on needle, kv_retrieval, lambada_openai"),
        (runs / text.id, ("--task", "neddle"), "did you mean 'needle'"),
        (runs / text.id, ("--task", "language"), "a suite; name its tasks: lambada_openai, "),
        (runs / text.id, ("--task", "needle", "--set", "task.form=symbols"), "artificial language, not text"),
        (runs / text.id, ("--task", "needle", "--set", "task.sep_len=9"), "did you mean 'task.seq_len'"),
        (runs / text.id, ("--task", "needle", "--set", "task.seq_len=64"), "task.seq_len: expected at least"),
        (runs / text.id, ("--task", "wikitext", "--set", "task.corpus=/nowhere"), "task.corpus /nowhere: no corpus"),
        (runs / text.id, ("--task", "wikitext", "--output", tmp_path, "--results", tmp_path), "one of the two"),
        (runs / symbols.id, ("--task", "lambada_openai"), "reads the symbols of mqar, and lambada_openai asks in text"),
        (runs / symbols.id, ("--task", "mqar", "--set", "task.vocab=64"), "questions in 67 token ids"),
        (seq2seq, ("--task", "needle"), "was trained for seq2seq and predicts no next token"),
        (bare, ("--task", "needle"), "no tokenizer.json"),
        (pickled, ("--task", "needle"), "pytorch_model.bin may run code when read; save it as safetensors"),
        (only_pickle, ("--task", "needle"), "model.pt may run code when read"),
        (other, ("--task", "needle"), "model_type 'gpt2' does not convert; valid: longformer, "),
        (headless, ("--task", "needle"), "no model.safetensors"),
        (unbegun, ("--task", "needle"), "no symbol begins a text"),
        (tmp_path / "nothing", ("--task", "needle"), "no such run"),
    ):  # fmt: skip
        before = set(place.rglob("*")) if place.exists() else set()
        code, out, err = zoo_command(capsys, monkeypatch, "eval", place, *arguments)
        assert (code, out) == (2, ""), (place, err)
        assert says in err
        assert len(err.strip().splitlines()) == 1
        after = set(place.rglob("*")) if place.exists() else set()
        assert after == before


def test_learned_positions_end_with_their_table(smoke_run: Runs) -> None:
    record = smoke_run("transformer", "wikitext", **{"arch.positions": "learned"})
    with pytest.raises(UserError, match=r"weights for its length: encoder.*table has the shape"):
        zoo.evaluate(record, "needle", overrides=NEEDLE)


def test_a_task_without_data_names_what_to_bring(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="lambada_openai cannot be generated: bring"):
        zoo.evaluate(tiny_checkpoint, "needle,lambada_openai", overrides={"task.seq_len": 320})


def test_lambada_needs_its_passages_only(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.passages(tmp_path)
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path))
    (found,) = zoo.evaluate(tiny_checkpoint, "lambada_openai")
    assert found.n > 0


@pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: limits of memory are Linux's")
def test_a_length_that_memory_cannot_hold_is_said(smoke_run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    record = smoke_run()
    monkeypatch.setattr("zoo.run.machine.available_bytes", lambda: 64 << 20)
    overrides = {"task.seq_len": 1 << 18, "task.depths": 2, "task.group_size": 1}
    with pytest.raises(UserError, match=r"needle: memory ran out at 262,145 tokens; --set task.seq_len=131072"):
        zoo.evaluate(record, "needle", overrides=overrides)
    monkeypatch.undo()
    assert torch.zeros(64 << 20).sum() == 0  # the limit is gone


# -- records and the board -----------------------------------------------------------------------------------------


def test_records_and_charts_lie_in_the_folder_of_the_model(
    smoke_run: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = load_trained(smoke_run()).folder
    settings = [part for key, value in NEEDLE.items() for part in ("--set", f"{key}={value}")]
    code, out, err = zoo_command(capsys, monkeypatch, "eval", folder, "--task", "lambada_openai,needle", *settings)
    assert (code, err) == (0, "")
    records = [EvaluationRecord.model_validate_json(path.read_text()) for path in folder.glob("eval/*.json")]
    assert {record.task for record in records} == {"lambada_openai", "needle"}
    # an option goes to the tasks that have it
    assert {record.task: len(record.overrides) for record in records} == {"lambada_openai": 1, "needle": 3}
    (chart,) = folder.glob("eval/*.svg")
    assert "accuracy by depth, 95 % intervals" in chart.read_text()
    assert "accuracy by depth" in out
    assert "0.5" in out
    assert str(folder / "eval" / "needle-") in out
    code, out, _ = zoo_command(capsys, monkeypatch, "eval", folder, "--task", "needle", *settings, "--json")
    assert json.loads(out)[0]["kind"] == "evaluated"
    assert len(list(folder.glob("eval/*.json"))) == 2  # the same evaluation replaces its record


def test_evaluations_have_a_section_of_their_own_on_the_board(
    smoke_run: Runs,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = tmp_path / "leaderboard/results"
    results.mkdir(parents=True)
    settings = ("--set", "task.seq_len=640", "--set", "task.depths=3", "--set", "task.group_size=2")
    for place in (load_trained(smoke_run()).folder, tiny_checkpoint):
        assert (
            zoo_command(capsys, monkeypatch, "eval", place, "--task", "needle", *settings, "--results", results)[0] == 0
        )
    records, problems = EvaluationRecord.read_all(results)
    assert problems == []
    assert {record.checkpoint for record in records} == {"tiny-mamba", smoke_run().id}
    (tmp_path / "leaderboard/evaluations/broken.json").write_text("{}")
    build(results, page=True)
    readme = (tmp_path / "leaderboard/README.md").read_text()
    page = (tmp_path / "leaderboard/index.html").read_text()
    section = readme[readme.index("## Evaluated checkpoints") :]
    for text in (section, page[page.index('id="evaluated"') :]):
        assert "tiny-mamba" in text
        assert records[0].weights[:12] in text
        assert "accuracy by depth" in text
    assert "evaluations/broken.json" in readme
    assert "No records yet." in readme  # nothing of it is ranked
    assert (tmp_path / "leaderboard/board.csv").read_text().count("\n") == 1
    assert (tmp_path / "leaderboard/evaluated-needle.svg").exists()


def test_perplexities_have_the_interval_of_their_standard_error(smoke_run: Runs) -> None:
    (found,) = zoo.evaluate(smoke_run(), "wikitext")
    assert found.stderr is not None
    assert found.interval is not None
    word = found.scores["word_perplexity"]
    assert word is not None
    assert found.interval.high == pytest.approx(word * math.exp(1.959964 * found.stderr), rel=1e-4)
