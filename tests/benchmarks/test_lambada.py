"""LAMBADA and WikiText as tasks: what a model is given, what a score is made of, what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from tests.benchmarks import lambada_harness as fixture
from tests.benchmarks import layouts
from tests.benchmarks.test_smoke_files import REAL, real
from zoo.data.module import LoaderConfig, Totals
from zoo.data.prepare import open_task
from zoo.data.questions import IGNORE, lay_out
from zoo.data.samples import random_sentence
from zoo.data.streams import FILLER
from zoo_lambada.lambada import LambadaData
from zoo_lambada.scoring import score
from zoo_lambada.wikitext import WikitextData

__all__ = ["real"]
BPE = str(fixture.FOLDER / "tokenizer.json")
END, SLOT = 257, 258
FORMS = ("lambada_openai", "lambada_standard")


def opened(task: str, objective: str = "causal_lm", protocol: str = "paper", **options: Any) -> Any:
    """The task's data, prepared."""
    options = {"corpus": "wikitext-2", **options}
    spec = zoo.registry().task(task).record
    overrides = {f"task.{k}": v for k, v in options.items()}
    data = open_task(spec, protocol, overrides, loading=loading(spec, objective))
    data.prepare()
    return data


def loading(spec: zoo.Task, objective: str, **values: Any) -> LoaderConfig:
    """Loaders of four rows, and two steps of training."""
    common: dict[str, Any] = {"batch_size": 4, "eval_batch_size": 4, "max_samples": 8, "objective": objective}
    return LoaderConfig(spec.load_kind(), **(common | values))


def configured(data: Any, objective: str, **values: Any) -> Any:
    """The same data with other loaders."""
    spec = zoo.registry().task(data.name).record
    return type(data)(data.options, data.root, loading(spec, objective, **values))


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    return layouts.everything(tmp_path / "data")


@pytest.fixture
def genuine(tmp_path: Path) -> Path:
    """200 real passages in the published layouts, and a made-up corpus."""
    layouts.articles(tmp_path / "data")
    (tmp_path / "data" / "lambada").mkdir()
    for form, name in zip(FORMS, ("lambada_test.jsonl", "lambada_test_plain_text.txt"), strict=True):
        (tmp_path / "data" / "lambada" / name).write_bytes((fixture.FOLDER / fixture.FORMS[form]).read_bytes())
    return tmp_path / "data"


# -- names -----------------------------------------------------------------------------------------------------------


def test_lambada_means_the_openai_form_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    from zoo.run.request import task_names
    from zoo.spec.registry import discover

    known = discover()
    assert list(task_names(["lambada"], known)) == ["lambada_openai"]
    assert capsys.readouterr().err == "zoo: lambada means lambada_openai\n"
    assert list(task_names(["lambada", "lambada_openai", "lambada_standard"], known)) == list(FORMS)
    assert known.task("lambada").record.name == "lambada_openai"
    assert capsys.readouterr().err == ""  # once is enough
    assert known.suite("lambada") == []
    assert list(task_names(["language"], known)) == [*FORMS, "wikitext"]


# -- passages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_passage_is_read_behind_the_end_symbol(form: str, genuine: Path) -> None:
    data = opened(form)
    texts = fixture.passages(form)
    rows = data.dataset("test")
    assert len(rows) == 200
    for i, text in enumerate(texts):
        question = rows[i]
        context, _, word = text.rpartition(" ")
        assert question.prompt[0] == END
        assert bytes((question.prompt[1:] - 1).astype(np.uint8)).decode() == context
        assert bytes((question.answer - 1).astype(np.uint8)).decode() == f" {word}"


@pytest.mark.parametrize("tokenizer", ["bytes", BPE])
@pytest.mark.parametrize("form", FORMS)
def test_what_a_model_is_given_scores_as_the_harness_would(form: str, tokenizer: str, genuine: Path) -> None:
    """Through the questions of the task and through the score of any model: the same sums."""
    data = opened(form, tokenizer=tokenizer, seq_len=128)
    vocabulary, end = data.options.vocab_size, data.specials.end
    torch.manual_seed(0)
    table = torch.randn(vocabulary, vocabulary) * 3

    def logits_of(ids: Tensor, mask: Tensor | None = None) -> Tensor:
        return table[ids] + 0.5 * table[ids.roll(1, 1)] * (torch.arange(ids.shape[1]) > 0)[:, None]

    nats, whole, n, answers, hits = 0.0, 0, 0, 0, 0
    squares = 0.0
    for batch in data.eval_dataloader("test"):
        told = logits_of(batch.inputs).double().log_softmax(-1)
        for row in range(len(batch.inputs)):
            asked = batch.labels[row] != IGNORE
            labels = batch.labels[row][asked]
            own = -float(told[row][asked].gather(1, labels[:, None]).sum())
            right = told[row][asked].argmax(-1) == labels
            nats, squares, whole, n = nats + own, squares + own**2, whole + int(right.all()), n + 1
            answers, hits = answers + len(labels), hits + int(right.sum())
    metrics = data.score("test", Totals(n, answers, hits, whole, nats, squares))
    tokens = data.tokenizer
    expected = score(
        logits_of,
        lambda text: (tokens.encode(text).ids.astype(np.int64) + 1).tolist(),
        fixture.passages(form),
        max_len=128,
        begin=[end],
    )
    assert n == 200
    assert metrics["accuracy"] == expected.accuracy
    assert metrics["perplexity"] == pytest.approx(expected.perplexity, rel=1e-6)
    spread = float(expected.nats.std()) / math.sqrt(200)
    assert metrics["stderr"] == pytest.approx(spread, rel=1e-6)


@pytest.mark.parametrize("objective", ["causal_lm", "infilling", "seq2seq"])
def test_a_long_passage_loses_its_beginning(objective: Any, genuine: Path) -> None:
    data = opened("lambada_openai", objective, seq_len=280)
    longest, cut = 0, 0
    for i in range(200):
        whole, question = data.passages().untruncated(i), data.dataset("test")[i]
        laid = lay_out(question, objective, data.specials)
        longest = max(longest, len(laid.inputs))
        n = len(question.prompt)
        assert (question.prompt == whole.prompt[-n:]).all()
        assert (question.answer == whole.answer).all()
        if n < len(whole.prompt):
            cut += 1
            assert len(laid.inputs) == 280
    assert longest == 280
    assert cut == int((data.lengths("test") > 280).sum())
    assert 20 < cut < 190
    assert ("‖cut here‖" in data.view("test", int(data.lengths("test").argmax()))) is True


def test_an_answer_that_has_no_room_in_the_slots_is_refused(genuine: Path) -> None:
    with pytest.raises(zoo.DataError, match=r"a last word of \d+ tokens and its end symbol need task.slots \d+"):
        opened("lambada_openai", "infilling", slots=5)
    assert len(opened("lambada_openai", "causal_lm", slots=5).dataset("test")) == 200


def test_fewer_passages_are_the_first_ones(genuine: Path) -> None:
    every, few = opened("lambada_openai"), opened("lambada_openai", test_size=7)
    assert len(few.dataset("test")) == few.provenance()["counts"]["test"] == 7
    assert (few.dataset("test")[6].prompt == every.dataset("test")[6].prompt).all()


def test_no_constant_answer_is_right_more_often_than_majority_says(genuine: Path) -> None:
    words = [text.rpartition(" ")[2] for text in fixture.passages("lambada_standard")]
    expected = max(words.count(word) for word in words) / 200
    assert opened("lambada_standard").majority() == expected > 0


def test_by_perplexity_the_trivial_answer_is_the_frequency_of_tokens_in_the_training_text(genuine: Path) -> None:
    """No test passage tells it anything: each byte of a word, and of the blank before it, has the share that it has in
    the training text, where every byte is counted once more than it occurs."""
    data = opened("lambada_standard", rank_by="perplexity")
    train = bytes((data.text("train").read(0, len(data.text("train"))) - 1).tolist())
    words = [" " + text.rpartition(" ")[2] for text in fixture.passages("lambada_standard")]
    shares = {byte: (train.count(byte) + 1) / (len(train) + 256) for byte in "".join(words).encode()}
    nats = -sum(math.log(shares[byte]) for word in words for byte in word.encode()) / len(words)
    assert data.majority() == pytest.approx(math.exp(nats))


def test_ranked_by_perplexity_less_is_better_and_the_trial_of_least_validation_loss_wins(
    made_up: Path, tmp_path: Path
) -> None:
    stored = zoo.bench(
        "transformer",
        "lambada",
        protocol="smoke",
        seeds=2,
        overrides={"task.rank_by": "perplexity", "task.seq_len": 48},
        sweep=["optim.lr=0.000001,0.01"],
        results=tmp_path / "results",
        runs=tmp_path / "runs",
    )
    slow, fast, further = (record for _, record in stored)
    for record in (slow, fast, further):
        assert record.status == "ok", record.error
        assert (record.metric.name, record.metric.higher_is_better) == ("perplexity", False)
        assert record.metrics is not None
        assert list(record.metrics.test.scores) == ["perplexity", "accuracy"]
        assert record.baselines.chance == pytest.approx(256 ** (34_423 / 5_153))
    assert fast.metrics.val.loss < slow.metrics.val.loss
    assert further.config_hash == fast.config_hash


@pytest.mark.parametrize("form", FORMS)
def test_the_word_list_is_split_at_single_blanks(form: str, genuine: Path) -> None:
    """`split(" ")`, not `split()`: words that an end of line joins are one."""
    data = opened(form)
    joined = [data.dataset("test")[i].answer for i in range(200)]
    newlines = sum(ord("\n") + 1 in answer for answer in joined)
    assert newlines == (2 if form == "lambada_openai" else 0)


# -- training --------------------------------------------------------------------------------------------------------


def test_under_next_token_a_batch_is_running_text(made_up: Path) -> None:
    data = opened("lambada_openai", seq_len=100)
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs.shape == batch.labels.shape
    assert batch.fresh.all()
    assert int(batch.inputs.max()) < 259
    assert data.score("val", Totals(3, 300, 30, 0, 9.0, 9.0)) == {"accuracy": 0.1}


@pytest.mark.parametrize("objective", ["infilling", "seq2seq"])
def test_under_the_other_objectives_words_are_asked(objective: Any, made_up: Path) -> None:
    data = opened("lambada_openai", objective, seq_len=100, val_size=9)
    batch = next(iter(data.train_dataloader()))
    assert len(batch.inputs) == 4
    assert batch.inputs.shape[1] <= 100
    assert (batch.target is not None) == (objective == "seq2seq")
    if objective == "infilling":
        assert ((batch.inputs == SLOT).sum(1) == 32).all()
    assert (batch.labels == END).sum() == 4
    assert len(data.dataset("val")) == sum(len(b.inputs) for b in data.val_dataloader()) == 9
    assert data.score("val", Totals(4, 30, 20, 2, 9.0, 9.0)) == {"accuracy": 0.5}
    first = [data.dataset("train")[k].prompt.tolist() for k in range(4)]
    val = data.dataset("val")[0].prompt.tolist()
    data = configured(data, objective, seed=1)
    assert [data.dataset("train")[k].prompt.tolist() for k in range(4)] != first
    assert data.dataset("val")[0].prompt.tolist() == val  # what chooses does not change with the run's seed


def test_words_of_a_resumed_run_are_those_of_the_unbroken_one(made_up: Path) -> None:
    data = opened("lambada_openai", "infilling", seq_len=64)
    whole = list(data.train_order(0, 12, 0, 1))
    assert list(data.train_order(8, 12, 0, 1)) == whole[8:]
    assert sorted([*data.train_order(0, 12, 0, 2), *data.train_order(0, 12, 1, 2)]) == whole


@pytest.mark.parametrize("eval_batch_size", [1, 3])
def test_validation_looks_at_the_first_pieces(eval_batch_size: int, made_up: Path) -> None:
    data = opened("lambada_openai", seq_len=64, val_size=11)
    data = configured(data, "causal_lm", eval_batch_size=eval_batch_size)
    for limit, n in ((None, 11), (5, 5), (40, 11)):
        order = [i for i in data.eval_order("val", limit) if i != FILLER]
        assert sorted(order) == list(range(n))


def test_the_corpus_is_prepared_once_for_all_tasks(made_up: Path) -> None:
    folders = {opened(task).folder for task in (*FORMS, "wikitext")}
    assert len(folders) == 1
    assert opened("lambada_openai", tokenizer=BPE).folder not in folders


@pytest.mark.parametrize("place", ["pg19", "pg19/train", "pg19/train/50001.txt", "wikitext-2"])
def test_any_corpus_by_path(place: str, made_up: Path) -> None:
    path = made_up / place
    if path.is_file():
        path.write_text("\n\n".join(random_sentence(i, 90) for i in range(90)))
    data = opened("lambada_standard", corpus=str(path), seq_len=64)
    assert data.provenance()["corpus"]["form"] == {"pg19": "books", "wikitext-2": "wikitext"}.get(
        place, "file" if path.is_file() else "books"
    )
    assert len(data.dataset("train")) > 10


def test_auto_takes_the_first_that_is_there_and_the_record_says_which(made_up: Path) -> None:
    assert opened("lambada_openai", corpus="auto").provenance()["corpus"]["name"] == "wikitext-2"
    (made_up / "wikitext-2" / "wiki.valid.tokens").unlink()  # what is left is no WikiText
    assert opened("lambada_openai", corpus="auto").provenance()["corpus"]["name"] == "pg19"
    with pytest.raises(zoo.MissingFiles, match="no corpus wikitext-2 on this machine"):
        opened("lambada_openai", corpus="wikitext-2")


def test_files_named_with_from_are_found_again(made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "other"))
    command = [sys.executable, "-m", "zoo", "data", "prepare", "lambada", "--protocol", "smoke", "--json"]
    said = subprocess.run([*command, "--from", str(made_up)], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout)[0]["counts"]["test"] == 32
    assert "lambada means lambada_openai" in said.stderr
    assert len(opened("lambada_openai").dataset("test")) == 40


def test_a_path_is_where_the_passages_are_and_the_corpus_may_be(made_up: Path, tmp_path: Path) -> None:
    layouts.passages(tmp_path / "mine", 9)
    data = opened("lambada_openai", path=str(tmp_path / "mine"))
    assert len(data.dataset("test")) == 9
    assert data.corpus_files().folder == made_up / "wikitext-2"
    layouts.articles(tmp_path / "mine", (3, 1, 1))
    assert opened("lambada_openai", path=str(tmp_path / "mine")).corpus_files().folder.parent == tmp_path / "mine"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no book")
    for task in (*FORMS, "wikitext"):
        with pytest.raises(zoo.MissingFiles, match="empty"):
            opened(task, path=str(tmp_path / "empty"))
        with pytest.raises(zoo.MissingFiles, match="empty"):
            opened(task, path=str(tmp_path / "empty"), corpus="auto")


# -- WikiText ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["bytes", BPE])
def test_perplexity_is_per_published_word_and_per_byte(tokenizer: str, made_up: Path) -> None:
    data = opened("wikitext", seq_len=64, tokenizer=tokenizer)
    text = (made_up / "wikitext-2" / "wiki.test.tokens").read_text()
    words, size = len(text.split()) + text.count("\n"), len(text.encode())
    answers = sum(int((batch.labels != IGNORE).sum()) for batch in data.eval_dataloader("test"))
    nats = 3.0 * words
    found = data.score("test", Totals(100, answers, 0, 0, nats, 0.0))
    assert found["word_perplexity"] == pytest.approx(math.exp(3.0))
    assert found["byte_perplexity"] == pytest.approx(math.exp(nats / size))
    assert found["bits_per_byte"] == pytest.approx(nats / size / math.log(2))
    if tokenizer == "bytes":
        assert answers == size
    assert set(data.score("val", Totals(1, 10, 0, 0, 10.0, 0.0))) == {"word_perplexity"}


def test_a_part_of_the_articles_is_evenly_spaced(made_up: Path) -> None:
    layouts.articles(made_up, (3, 2, 10), "wikitext-103")
    data = opened("wikitext", corpus="wikitext-103", test_size=3, val_size=1)
    assert isinstance(data, WikitextData)
    assert data.selected_articles("test") == [1, 5, 8]
    assert data.selected_articles("val") == [1]
    assert data.selected_articles("train") == [0, 1, 2]
    seen = np.concatenate([data.dataset("test")[i].labels for i in range(len(data.dataset("test")))])
    running = data.text("test")
    expected = [running.read(int(running.starts[d]), int(running.ends[d])) for d in (1, 5, 8)]
    assert (seen == np.concatenate(expected)).all()
    words, size, tokens = data.amounts("test")
    assert size == tokens == len(seen)
    assert words == sum(data.documents("test")[d][0] for d in (1, 5, 8))


def test_windows_by_stride_ask_the_same_tokens(made_up: Path) -> None:
    plain, windows = opened("wikitext", seq_len=64), opened("wikitext", seq_len=64, stride=16)

    def asked(data: Any) -> int:
        return sum(int((batch.labels != IGNORE).sum()) for batch in data.eval_dataloader("test"))

    assert asked(plain) == asked(windows)
    batch = next(iter(windows.eval_dataloader("test")))
    assert batch.inputs.shape[1] <= 64
    assert batch.fresh.all()
    assert len(windows.dataset("train")) == len(plain.dataset("train"))
    with pytest.raises(zoo.ConfigError, match=r"stride: expected at most task\.seq_len 64, got 65"):
        opened("wikitext", seq_len=64, stride=65)


def test_running_text_needs_a_causal_form() -> None:
    for arch in ("linformer", "nystromformer", "longt5"):
        with pytest.raises(zoo.ConfigError, match=f"wikitext offers causal_lm.*{arch}"):
            zoo.bench(arch, "wikitext", protocol="smoke")


def test_another_corpus_is_read_in_the_same_way(made_up: Path, tmp_path: Path) -> None:
    data = opened("wikitext", corpus=str(made_up / "pg19"))
    texts = [path.read_text() for path in (made_up / "pg19" / "test").glob("*.txt")]
    words, size, _ = data.amounts("test")
    assert (words, size) == (sum(len(t.split()) for t in texts), sum(len(t.encode()) for t in texts))
    record = zoo.bench(
        "mamba",
        "wikitext",
        protocol="smoke",
        overrides={"task.corpus": str(made_up / "pg19"), "train.batch_size": 2, "train.max_samples": 2},
        results=tmp_path / "results",
        runs=tmp_path / "runs",
    )[0].record
    assert record.status == "ok", record.error
    assert str(record.overrides["task.corpus"]).endswith("pg19")  # never among the rows of WikiText
    assert record.data.model_dump()["corpus"]["name"] == "pg19"


@pytest.mark.parametrize("arch", ["transformer_xl", "mamba"])
def test_the_result_of_a_run_does_not_depend_on_the_evaluation_batch(arch: str, made_up: Path, tmp_path: Path) -> None:
    perplexities = []
    for n in (1, 5):
        record = zoo.bench(
            arch,
            "wikitext",
            protocol="smoke",
            overrides={"train.eval_batch_size": n, "task.seq_len": 32, "task.test_size": 0, "task.val_size": 1}
            | {"train.precision": "64-true", "train.max_samples": 16, "train.val_every": 16},
            results=tmp_path / f"results{n}",
            runs=tmp_path / f"runs{n}",
        )[0].record
        assert record.status == "ok", record.error
        assert record.metrics is not None
        perplexities.append(record.metrics.test.scores["word_perplexity"])
    assert perplexities[1] == pytest.approx(perplexities[0], rel=1e-9)


def test_a_run_with_a_tokenizer_json_records_its_sha256(made_up: Path, tmp_path: Path) -> None:
    record = zoo.bench(
        "transformer",
        "lambada",
        protocol="smoke",
        overrides={"task.tokenizer": BPE, "task.seq_len": 48},
        results=tmp_path / "results",
        runs=tmp_path / "runs",
    )[0].record
    assert record.status == "ok", record.error
    assert record.task.name == "lambada_openai"
    tokenizer = record.data.model_dump()["tokenizer"]
    assert (tokenizer["name"], tokenizer["size"], len(tokenizer["sha256"])) == ("tokenizer.json", 512, 64)
    assert record.metrics is not None
    assert set(record.metrics.test.scores) >= {"accuracy", "perplexity"}


# -- what is refused -------------------------------------------------------------------------------------------------


BAD = {
    "not json": (b'{"text": "a b"}\n{"text": "a b"\n', r":2: expected \{\"text\""),
    "no text": (b'{"text": "a b"}\n{"txt": "a b"}\n', r":2: expected \{\"text\".*KeyError"),
    "a number": (b'{"text": 3}\n', ":1: the text is int, expected a string"),
    "one word": (b'{"text": "a b"}\n{"text": "word"}\n', ":2: expected a context, a blank and a last word, got 'word'"),
    "an empty line": (b'{"text": "a b"}\n\n{"text": "a b"}\n', r":2: expected \{\"text\""),
    "not UTF-8": (b'{"text": "a b"}\n{"text": "caf\xe9 b"}\n', ":2: byte 29 is not UTF-8"),
    "a long line": (b'{"text": "' + b"a " * 40_000 + b'b"}\n', r":1: a line of 80,013 bytes, expected at most 65,536"),
    "nothing": (b"", "lambada_test.jsonl: empty"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_damaged_file_is_named_with_its_line(kind: str, made_up: Path, tmp_path: Path) -> None:
    contents, message = BAD[kind]
    (made_up / "lambada" / "lambada_test.jsonl").write_bytes(contents)
    with pytest.raises(zoo.DataError, match=message):
        opened("lambada_openai")
    assert not [p for p in (tmp_path / "data" / "language").rglob("*") if p.name == "manifest.json"]


def test_files_that_are_not_the_published_ones_are_told(made_up: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = opened("lambada_openai")
    assert "lambada_test.jsonl: 40 passages, the published set has 5,153" in capsys.readouterr().err
    assert any("40 passages" in note for note in data.provenance()["notes"])
    assert data.provenance()["kind"] == data.test_provenance()["kind"] == "part"
    path = made_up / "lambada" / "lambada_test.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] * 5_153)
    assert opened("lambada_openai").provenance()["kind"] == "published"
    assert "the published file has 4aa8d02c" in capsys.readouterr().err


def test_missing_files_are_said_in_one_line(tmp_path: Path) -> None:
    for task in (*FORMS, "wikitext"):
        with pytest.raises(zoo.MissingFiles) as caught:
            opened(task)
        assert "\n" not in str(caught.value)
        assert zoo.registry().task(task).record.needs in str(caught.value)
        assert "--from DIR" in str(caught.value)
    layouts.passages(tmp_path / "data")
    with pytest.raises(zoo.MissingFiles, match="no corpus wikitext-2 on this machine"):
        opened("lambada_openai")
    with pytest.raises(zoo.MissingFiles, match=r"task.corpus wikitex: no corpus there; did you mean 'wikitext-2'"):
        opened("lambada_openai", corpus="wikitex")


def test_the_published_archive_is_read_in_place(made_up: Path, tmp_path: Path) -> None:
    plain = opened("lambada_standard").dataset("test")
    expected = [plain[i].prompt.tolist() for i in range(len(plain))]
    folder, archive = made_up / "lambada", made_up / "lambada" / "lambada-dataset.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder / "lambada_test_plain_text.txt", "lambada-dataset/lambada_test_plain_text.txt")
    (folder / "lambada_test_plain_text.txt").unlink()
    packed = opened("lambada_standard").dataset("test")
    assert [packed[i].prompt.tolist() for i in range(len(packed))] == expected
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(zoo.DataError, match=r"lambada-dataset.tar.gz: cut short"):
        opened("lambada_standard")
    with tarfile.open(archive, "w:gz") as file:
        file.add(Path(__file__), "../lambada_test_plain_text.txt")
    with pytest.raises(zoo.DataError, match=r"not a safe archive"):
        opened("lambada_standard")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seq_len", 10, "seq_len: expected 34 to 1,048,576, got 10"),
        ("slots", 1, "slots: expected integer >= 2, got 1"),
        ("val_size", -1, "val_size: expected integer >= 0, got -1"),
        ("data_seed", -1, "data_seed: expected integer >= 0, got -1"),
        ("corpus", " ", "corpus: empty; valid: auto"),
        ("tokenizer", "gone.json", "tokenizer: gone.json: No such file"),
    ],
)
def test_impossible_options_are_named(key: str, value: Any, message: str, made_up: Path) -> None:
    with pytest.raises(zoo.ConfigError, match=message):
        opened("lambada_openai", **{key: value})


def test_changed_damaged_and_deleted_data(made_up: Path) -> None:
    data = opened("lambada_openai")
    assert data.verify() == []
    file = data.passages_folder / "test.data"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    assert any("test.data: contents differ" in line for line in data.verify())
    with pytest.raises(zoo.DataError, match="contents differ"):
        data.prepare()
    data.discard()
    assert not data.prepared()
    data.prepare()
    assert data.verify() == []
    path = made_up / "lambada" / "lambada_test.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert not data.prepared()  # other files, another folder


@pytest.mark.parametrize("stride", [0, 16])
def test_the_trivial_answer_of_running_text_is_the_frequency_of_its_tokens(made_up: Path, stride: int) -> None:
    """Each byte of the training text is counted once more than it occurs; every byte of the test is predicted once."""
    data = opened("wikitext", seq_len=64, stride=stride, test_size=2)
    text = {split: bytes((data.text(split).read(0, len(data.text(split))) - 1).tolist()) for split in ("train", "test")}
    chosen = data.selected_articles("test")
    read = b"".join(text["test"][data.text("test").starts[i] : data.text("test").ends[i]] for i in chosen)
    nats = -sum(math.log((text["train"].count(byte) + 1) / (len(text["train"]) + 256)) for byte in read)
    assert data.majority() == pytest.approx(math.exp(nats / data.amounts("test")[0]))


# -- the user's own files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [*FORMS, "wikitext"])
def test_golden_rows_of_the_published_files(task: str, real: Path) -> None:
    try:
        data = opened(task)
    except zoo.MissingFiles as error:
        pytest.skip(f"NOT RUN: golden rows of {task}: {error}")
    told = data.provenance()
    sums = dict(told["files"])
    if "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f" not in sums.values():
        pytest.skip(f"NOT RUN: golden rows of {task}, because the corpus is not the published WikiText-2")
    assert told["corpus"]["words"] == {"train": 2_088_628, "val": 217_646, "test": 245_569}
    assert told["corpus"]["documents"] == {"train": 600, "val": 60, "test": 60}
    if isinstance(data, LambadaData):
        if any("published" in note for note in told["notes"]):
            pytest.skip(f"NOT RUN: golden passages of {task}, because the files are others: {told['notes']}")
        assert told["counts"]["test"] == 5_153
        found = [data.view("test", i)[-24:] for i in (0, 2_000, 5_152)]
        assert found == GOLDEN[task]
        assert int(data.lengths("test").max()) <= 1_024  # in bytes nothing is cut
        words = [data.decode(data.passages().untruncated(i).answer)[1:].lower() for i in range(5_153)]
        plain = (REAL / "lambada" / "lambada_test_plain_text.txt").read_text(encoding="utf-8").split("\n")[:-1]
        same = sum(word == text.rpartition(" ")[2] for word, text in zip(words, plain, strict=True))
        assert same == (5_112 if task == "lambada_openai" else 5_153)  # quotes glued on, words joined by line ends
    else:
        piece = data.dataset("test")[1]
        assert bytes((piece.labels[:24] - 1).astype(np.uint8)) == GOLDEN_PIECE
    again = open_task(zoo.registry().task(task).record, "paper", {"task.corpus": "wikitext-2"})
    again = configured(again, "causal_lm")
    next(iter(again.train_dataloader()))


GOLDEN = {
    "lambada_openai": [" don't care about‖ signs", "e was looking at‖ Martha", " the rules,‖ Grandmother"],
    "lambada_standard": ["do n't care about‖ signs", "e was looking at‖ martha", "the rules ,‖ grandmother"],
}
GOLDEN_PIECE = b"lowed by a role in the 2"
