"""Checkpoints of transformers wherever a run is taken: generation, analysis, and what lies beyond a length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.benchmarks.models import TOKENIZER, Runs, reference, zoo_command
from zoo import UserError
from zoo.convert import convert
from zoo.run.analysis.induction import draw_repeated
from zoo.run.execute import open_data
from zoo.run.extend import extend
from zoo.run.subject import load_on_task
from zoo.run.trained import load_trained
from zoo.spec.analysis import AnalysisRecord

PROMPT = "The quick brown fox jumps"


def generated(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path, n: int) -> list[int]:
    """What `zoo generate` writes, in the tokenizer's own ids."""
    command = ("generate", "--run", folder, "--prompt", PROMPT, "--max-new-tokens", n, "--json")
    code, out, err = zoo_command(capsys, monkeypatch, *command)
    assert (code, err) == (0, "")
    return [token - 1 for token in json.loads(out)["tokens"]]


def test_a_checkpoint_continues_a_prompt_as_its_own_library_does(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer

    ids = torch.tensor([Tokenizer.from_file(str(TOKENIZER)).encode(PROMPT).ids])
    expected = reference(tiny_checkpoint).generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist()
    assert generated(capsys, monkeypatch, tiny_checkpoint, 12) == expected
    convert("mamba", tiny_checkpoint, tmp_path / "ours")
    assert generated(capsys, monkeypatch, tmp_path / "ours", 12) == expected
    # in Python in the checkpoint's own ids
    assert zoo.generate(zoo.load(tiny_checkpoint), ids, 12)[0].tolist() == expected


def test_an_encoder_decoder_checkpoint_writes_what_its_own_library_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer
    from transformers import LongT5Config, LongT5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"vocab_size": 520, "d_model": 16, "d_kv": 8, "num_heads": 2, "num_layers": 2, "d_ff": 32}
    special = {"pad_token_id": 518, "eos_token_id": 519, "decoder_start_token_id": 518, "tie_word_embeddings": False}
    model = LongT5ForConditionalGeneration(LongT5Config(**sizes, **special, local_radius=4)).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_()
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    ids = torch.tensor([Tokenizer.from_file(str(TOKENIZER)).encode(PROMPT).ids])
    expected = model.generate(ids, max_new_tokens=8, do_sample=False)[0, 1:].tolist()
    assert len(set(expected)) > 1
    assert generated(capsys, monkeypatch, tmp_path, 8) == expected
    code, _, err = zoo_command(capsys, monkeypatch, "eval", tmp_path, "--task", "needle")
    assert code == 2
    assert "predicts no next token" in err


def test_a_checkpoint_is_read_beyond_the_length_of_a_task(
    tiny_checkpoint: Path,
    smoke_run: Runs,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = ("--task", "wikitext", "--set", "task.seq_len=16", "--max-tokens", 32, "--output", tmp_path)
    code, out, err = zoo_command(capsys, monkeypatch, "extend", tiny_checkpoint, *task, "--lengths", "1,2")
    assert code == 0, err
    assert "perplexity" in out
    short, long = json.loads((tmp_path / "extend.json").read_text())
    assert (short["run"], short["trained_len"], long["seq_len"]) == ("tiny-mamba", 16, 32)
    # by hand: the first 32 tokens of the test split behind the symbol that begins a text, which is id 0
    trained = load_on_task(tiny_checkpoint, "wikitext", {"task.seq_len": 16})
    trained.data.prepare()
    text = trained.data.text("test")
    first = next(i for i, n in enumerate(text.ends - text.starts) if n >= 32)
    begin = int(text.starts[first])
    ids = torch.cat([torch.zeros(1, dtype=torch.int64), torch.as_tensor(text.read(begin, begin + 32).astype("i8")) - 1])
    with torch.no_grad():
        nats = F.cross_entropy(reference(tiny_checkpoint)(ids[None, :-1]).logits[0], ids[1:])
    assert long["loss"] == pytest.approx(nats.item(), rel=1e-3)  # a pad and a slot are ids of ours, never predicted
    again = extend(trained, ["none"], [2], max_tokens=32)
    assert again[0].loss == pytest.approx(long["loss"])
    code, out, _ = zoo_command(capsys, monkeypatch, "extend", tiny_checkpoint, *task, "--lengths", "1,2")
    assert out.count("(measured before)") == 2
    other = ("--set", "task.seq_len=8", "--lengths", "1,2")
    code, out, _ = zoo_command(capsys, monkeypatch, "extend", tiny_checkpoint, *task, *other)
    assert "(measured before)" not in out


def test_the_context_of_a_checkpoint_and_of_a_run_on_another_task_is_analysed(
    tiny_checkpoint: Path, smoke_run: Runs, tmp_path: Path
) -> None:
    settings = {"task.seq_len": 16}
    found = zoo.analyze(tiny_checkpoint, task="wikitext", overrides=settings, max_tokens=64)
    assert AnalysisRecord.model_validate_json(found.model_dump_json()) == found
    assert (found.run, found.trained_len) == ("tiny-mamba", 16)
    assert found.context is not None
    assert found.context.longest == 16
    assert found.induction[-1].in_context is not None
    assert found.induction[-1].heads == ()
    run = Path(tmp_path.parent, "unused")  # a run's own folder is named, not its record
    with pytest.raises(UserError, match="no such folder"):
        zoo.analyze(run, task="wikitext")


def test_what_a_checkpoint_cannot_be_asked_is_one_line(
    tiny_checkpoint: Path,
    smoke_run: Runs,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    before = sorted(tiny_checkpoint.rglob("*"))
    for command, says in (
        (("extend", tiny_checkpoint), "a checkpoint, not a run; zoo eval and zoo generate read it, zoo extend and"),
        (("analyze", tiny_checkpoint), "analyze with --task"),
        (("predict", tiny_checkpoint, "--input", "x", "--output", tmp_path / "y.csv"), "a checkpoint, not a run"),
        (("extend", tiny_checkpoint, "--task", "mqar"), "no embedding and no head for mqar"),
        (("analyze", tiny_checkpoint, "--task", "listops"), "listops"),
        (("extend", tiny_checkpoint, "--task", "wikitext", "--methods", "yarn"), "no rotary positions to extend"),
        (("extend", tiny_checkpoint, "--task", "wikitext", "--results", tmp_path), "of runs on their own tasks"),
        (("extend", tiny_checkpoint, "--set", "task.seq_len=16"), "--set: the settings of --task"),
        (("analyze", tiny_checkpoint, "--prompt", "a b"), "mamba has no attention heads over its whole input"),
        (("generate", "--run", tiny_checkpoint, "--prompt", " "), "--prompt"),
        (("generate", "--run", pickled, "--prompt", "a"), "may run code when read"),
        (("extend", pickled, "--task", "wikitext"), "may run code when read"),
        (("generate", "--run", tmp_path / "nowhere", "--prompt", "a"), "no such run"),
    ):
        code, out, err = zoo_command(capsys, monkeypatch, *command)
        assert (code, out) == (2, ""), (command, err)
        assert says in err, command
        assert len(err.strip().splitlines()) == 1, err
    assert sorted(tiny_checkpoint.rglob("*")) == before


def test_repeated_tokens_of_a_text_stand_behind_the_symbol_that_begins_it(smoke_run: Runs) -> None:
    text, symbols = (load_trained(smoke_run("transformer", task)) for task in ("wikitext", "mqar"))
    for trained, begins in ((text, 1), (symbols, 0)):
        tokens, block = draw_repeated(trained.experiment, open_data(trained.experiment, None), seed=0)
        assert tokens.shape == (16, begins + 4 * block)
        assert (tokens[:, :begins] == trained.data.specials.end).all()
        assert torch.equal(tokens[:, begins : begins + block], tokens[:, -block:])
        assert not (tokens[:, begins:] == trained.data.specials.end).any()
