"""What the model `zoo` answers lm-evaluation-harness: the core on token ids, and the harness itself with it."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional as F

import zoo
from tests.benchmarks import lambada_harness
from tests.benchmarks.models import TOKENIZER, Runs, reference, zoo_command
from zoo import UserError
from zoo.run.evaluate import prepare_exam
from zoo.run.scoring import Scorer
from zoo.run.subject import Subject, load_subject

TEXTS = [
    "The quick brown fox jumps",
    " over",
    "It was a dark and stormy night; the rain fell in torrents, except",
    "a b",
]
needs_harness = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lm_eval", "accelerate")),
    reason="NOT RUN: lm-evaluation-harness with the model zoo; pip install '.[harness]'",
)


@pytest.fixture(params=["transformer", "mamba", "checkpoint"])
def subject(request: pytest.FixtureRequest, smoke_run: Runs, tiny_checkpoint: Path) -> Subject:
    """A run without and one with a carried state, and a checkpoint of transformers."""
    return load_subject(tiny_checkpoint if request.param == "checkpoint" else smoke_run(request.param))


def encode(subject: Subject, text: str) -> list[int]:
    assert subject.tokenizer is not None
    return [int(token) + 1 for token in subject.tokenizer.encode(text).ids]


def by_hand(subject: Subject, ids: list[int], n: int) -> tuple[float, bool]:
    """Log likelihood of the last n tokens, and whether each is the most likely one, from one call."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        hidden = subject.model.backbone(subject.model.embed(tokens[:, :-1])).hidden
        logits = subject.model.compute_logits(hidden)[0, -n:].double()
    right = tokens[0, -n:]
    return -F.cross_entropy(logits, right, reduction="sum").item(), bool((logits.argmax(-1) == right).all())


# -- the core ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3])
def test_likelihoods_are_those_of_each_pair_alone(subject: Subject, batch_size: int) -> None:
    scorer = Scorer.of(subject, max_length=128, batch_size=batch_size)
    pairs = [([subject.end, *encode(subject, text)], encode(subject, more)) for text in TEXTS for more in (" and", ".")]
    for (context, answer), found in zip(pairs, scorer.log_likelihoods(pairs), strict=True):
        log, greedy = by_hand(subject, [*context, *answer], len(answer))
        assert found.log == pytest.approx(log, abs=1e-4)
        assert found.greedy == greedy


def test_greedy_is_what_generation_writes(subject: Subject) -> None:
    scorer = Scorer.of(subject, max_length=128, batch_size=2)
    contexts = [[subject.end, *encode(subject, text)] for text in TEXTS]
    written = scorer.continuations(contexts, 5)
    found = scorer.log_likelihoods([(c, w) for c, w in zip(contexts, written, strict=True) if w])
    assert [each.greedy for each in found] == [True] * len(found)
    alone = [zoo.generate(subject.model, torch.tensor([c]), 5, eos=subject.stops)[0].tolist() for c in contexts]
    assert [w == a[: len(w)] for w, a in zip(written, alone, strict=True)] == [True] * len(alone)
    other = [[(token + 1) % 200 + 1 for token in w] for w in written]
    found = scorer.log_likelihoods([(c, w) for c, w in zip(contexts, other, strict=True) if w])
    assert [each.greedy for each in found] == [False] * len(found)


def test_a_row_ends_with_what_stops_it(subject: Subject) -> None:
    scorer = Scorer.of(subject, max_length=128, batch_size=4)
    contexts = [[subject.end, *encode(subject, text)] for text in TEXTS]
    free = scorer.continuations(contexts, 6)
    stopped = scorer.continuations(contexts, 6, stop=lambda tokens: len(tokens) == 2)
    assert stopped == [row[:2] for row in free]


def test_what_is_too_long_loses_its_beginning(subject: Subject) -> None:
    scorer = Scorer.of(subject, max_length=16, batch_size=2)
    context, answer = encode(subject, TEXTS[2] * 2), encode(subject, " and")
    ((found, _),) = scorer.log_likelihoods([(context, answer)])
    log, _ = by_hand(subject, [*context, *answer][-17:], len(answer))
    assert found == pytest.approx(log, abs=1e-4)
    short = scorer.continuations([context], 4)
    assert short == scorer.continuations([context[-12:]], 4)
    with pytest.raises(UserError, match="no room for a prompt"):
        scorer.continuations([context], 16)
    with pytest.raises(UserError, match="a continuation of 17 tokens, and max_length is 16"):
        scorer.log_likelihoods([(context, [1] * 17)])


def test_a_whole_text_is_scored_with_the_state_that_its_pieces_carry(subject: Subject) -> None:
    texts = [encode(subject, text * n) for text, n in zip(TEXTS, (3, 1, 2, 9), strict=True)]
    whole = [by_hand(subject, [subject.end, *text], len(text))[0] for text in texts]
    found = Scorer.of(subject, max_length=11, batch_size=3).rolling(texts)
    if subject.carries:
        assert found == pytest.approx(whole, abs=2e-3)
    else:
        assert found != pytest.approx(whole, abs=2e-3)
    assert Scorer.of(subject, max_length=1024, batch_size=3).rolling(texts) == pytest.approx(whole, abs=2e-3)
    assert Scorer.of(subject, max_length=8, batch_size=3).rolling([[]]) == [0.0]


def test_without_a_state_the_last_window_is_full(smoke_run: Runs) -> None:
    """The example of the harness: tokens 0 … 9, windows of 4."""
    subject = load_subject(smoke_run("transformer"))
    scorer, tokens = Scorer.of(subject, max_length=4, batch_size=8), list(range(40, 50))
    windows = [([subject.end, *tokens[:3]], tokens[:4]), (tokens[3:7], tokens[4:8]), (tokens[5:9], tokens[8:])]
    expected = sum(by_hand(subject, [read[0], *read[1:], labels[-1]], len(labels))[0] for read, labels in windows)
    assert scorer.rolling([tokens]) == pytest.approx([expected], abs=1e-4)


def test_what_scores_no_text_says_so(smoke_run: Runs) -> None:
    for record, says in (
        (smoke_run("transformer", "mqar"), "reads no text"),
        (smoke_run("longt5", "lambada_openai"), "seq2seq"),
    ):
        with pytest.raises(UserError, match=says):
            Scorer.of(load_subject(record), max_length=64, batch_size=1)


def test_evaluation_likelihoods_and_generation_agree_where_they_measure_the_same(
    smoke_run: Runs, sample_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A language model with a tokenizer: `zoo eval`, the harness's questions to the core, and `zoo generate`."""
    record = smoke_run("transformer", **{"task.tokenizer": str(TOKENIZER), "task.seq_len": 400})
    subject = load_subject(record)
    lines = (sample_data / "data/lambada/lambada_test.jsonl").read_text().splitlines()
    pairs, texts = [], []
    for line in lines:  # the harness's split of a passage
        context, _, word = json.loads(line)["text"].rpartition(" ")
        before, whole = encode(subject, context), encode(subject, f"{context} {word}")
        pairs.append(([subject.end, *before], whole[len(before) :]))
        texts.append((context, f" {word}"))
    found = Scorer.of(subject, max_length=400, batch_size=4).log_likelihoods(pairs)
    (evaluated,) = zoo.evaluate(record, "lambada_openai")
    assert evaluated.loss is not None
    assert evaluated.answers == sum(len(answer) for _, answer in pairs)
    assert -sum(each.log for each in found) == pytest.approx(evaluated.loss * evaluated.answers, rel=1e-5)
    assert sum(each.greedy for each in found) == pytest.approx((evaluated.scores["accuracy"] or 0) * len(found))
    for (context, word), (_, answer), each in list(zip(texts, pairs, found, strict=True))[:3]:
        run = ("--run", sample_data / "runs" / record.id, "--prompt", context, "--max-new-tokens", len(answer))
        _, out, _ = zoo_command(capsys, monkeypatch, "generate", *run, "--json")
        assert (json.loads(out)["tokens"] == answer) == each.greedy
        assert (json.loads(out)["text"] == word) == each.greedy
    overrides = {"task.seq_len": 350, "task.depths": 2, "task.group_size": 2}
    (needle,) = zoo.evaluate(record, "needle", overrides=overrides)
    exam = prepare_exam(subject, "needle", overrides)
    questions = [exam.data.dataset("test")[i] for i in range(needle.n)]
    asked = [([subject.end, *question.prompt], question.answer.tolist()) for question in questions]
    found = Scorer.of(subject, max_length=400, batch_size=4).log_likelihoods(asked)
    assert needle.loss is not None
    assert needle.answers is not None
    assert -sum(each.log for each in found) == pytest.approx(needle.loss * needle.answers, rel=1e-5)


# -- the harness ---------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key in ("HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(key, str(tmp_path / "hf"))
    for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(key, "1")
    for name, attribute in (("jieba", "cut"), ("fuzzywuzzy", "fuzz"), ("rouge", "Rouge")):
        if importlib.util.find_spec(name) is None:  # of metrics of LongBench's other tasks
            stub = types.ModuleType(name)
            setattr(stub, attribute, None)
            monkeypatch.setitem(sys.modules, name, stub)
    return tmp_path


def local_task(name: str, rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The harness's own task over rows in a local file."""
    import lm_eval
    from lm_eval.tasks._yaml_loader import load_yaml

    place = Path(lm_eval.__file__).parent / "tasks"
    (file,) = (path for path in place.rglob(f"{name.removeprefix('longbench_')}.yaml") if "__" not in path.name)
    task = load_yaml(file, resolve_func=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for key in ("dataset_name", "validation_split", "training_split", "tag"):
        task.pop(key, None)
    return task | {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}


def tasks(folder: Path) -> list[dict[str, Any]]:
    """LAMBADA, WikiText, and of LongBench what asks for a phrase, a class and a number."""
    passages = lambada_harness.passages("lambada_openai")[:24]
    long = [
        {"context": text * 2, "question": "Who was it?", "answers": ["Mary"], "all_classes": ["Person", "Place"]}
        for text in passages[:4]
    ]
    names = ("hotpotqa", "trec", "passage_count")
    return [
        local_task("lambada_openai", [{"text": text} for text in passages], folder),
        local_task("wikitext", [{"page": "\n ".join(passages[i : i + 2])} for i in (0, 2)], folder),
        *(local_task(f"longbench_{name}", long, folder) for name in names),
    ]


def answers(found: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        name: [each["resps"] for each in sorted(samples, key=lambda sample: sample["doc_id"])]
        for name, samples in found["samples"].items()
    }


@needs_harness
def test_the_harness_gives_zoo_what_it_gives_its_own_backend(tiny_checkpoint: Path, offline: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    importlib.import_module("zoo.run.harness")  # which registers the model

    own = PreTrainedTokenizerFast(tokenizer_object=lambada_harness.tokenizer())
    first = own.convert_ids_to_tokens(0)
    own.add_special_tokens({"bos_token": first, "eos_token": first, "pad_token": first})
    settings: dict[str, Any] = {"bootstrap_iters": 0, "batch_size": 4}
    theirs = HFLM(pretrained=reference(tiny_checkpoint), tokenizer=own, max_length=2048, batch_size=4, device="cpu")
    expected = simple_evaluate(model=theirs, tasks=tasks(offline), **settings)
    found = simple_evaluate(model="zoo", model_args=f"run={tiny_checkpoint}", tasks=tasks(offline), **settings)
    assert set(found["results"]) == set(expected["results"])
    for name, scores in expected["results"].items():
        for metric, value in scores.items():
            if isinstance(value, float):
                assert found["results"][name][metric] == pytest.approx(value, rel=1e-4, abs=1e-4), (name, metric)
    for name, responses in answers(expected).items():
        for ours, one in zip(answers(found)[name], responses, strict=True):
            if name == "lambada_openai":
                assert float(ours[0][0][0]) == pytest.approx(float(one[0][0][0]), rel=1e-4, abs=1e-4)
                assert ours[0][0][1] == one[0][0][1]
            elif name == "wikitext":
                assert float(ours[0][0]) == pytest.approx(float(one[0][0]), rel=1e-4)
            else:
                assert ours == one  # the same text, token by token
    assert found["config"]["model_num_parameters"] == sum(p.numel() for p in reference(tiny_checkpoint).parameters())


@needs_harness
def test_the_command_gives_a_run_the_scores_of_zoo_eval(
    smoke_run: Runs,
    sample_data: Path,
    offline: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = smoke_run("transformer")
    passages = [json.loads(line) for line in (sample_data / "data/lambada/lambada_test.jsonl").read_text().splitlines()]
    task = local_task("lambada_openai", passages, offline)
    (offline / "tasks").mkdir()
    (offline / "tasks/local.yaml").write_text(yaml.safe_dump({**task, "task": "local_lambada"}))
    arguments = ("run", "--model", "zoo", "--model_args", f"run={sample_data / 'runs' / record.id}", "--tasks")
    outcome = zoo_command(
        capsys, monkeypatch, "lm-eval", *arguments, "local_lambada", "--include_path", offline / "tasks",
        "--batch_size", 4, "--output_path", offline / "out",
    )  # fmt: skip
    assert outcome[0] == 0, outcome[2]
    (written,) = (offline / "out").glob("**/results_*.json")
    scores = json.loads(written.read_text())["results"]["local_lambada"]
    (found,) = zoo.evaluate(record, "lambada_openai")
    assert scores["perplexity,none"] == pytest.approx(found.scores["perplexity"], rel=1e-4)
    assert scores["acc,none"] == pytest.approx(found.scores["accuracy"], abs=1e-6)


@needs_harness
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("run=/nowhere", "/nowhere: no such run"),
        ("pretrained=gpt2", "unknown: pretrained; run=RUN is needed"),
    ],
)
def test_mistakes_in_the_arguments_are_one_line(
    arguments: str, says: str, offline: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = ("--tasks", "lambada_openai")
    code, _, err = zoo_command(
        capsys, monkeypatch, "lm-eval", "run", "--model", "zoo", "--model_args", arguments, *task
    )
    assert code == 2
    assert says in err.splitlines()[-1]
    assert "a bug in zoo" not in err


def test_without_the_harness_the_command_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.__main__", None)
    code, _, err = zoo_command(capsys, monkeypatch, "lm-eval", "run", "--help")
    assert (code, "pip install 'seqzoo[harness]'" in err) == (2, True)
