"""The score of LAMBADA is lm-evaluation-harness's: by the numbers it gave for a small model, and by running it."""

from __future__ import annotations

import importlib.util
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.benchmarks import lambada_harness as fixture
from zoo_lambada.passages import encode_parts, split_passage
from zoo_lambada.scoring import LambadaScore, score

TOLD = json.loads((fixture.FOLDER / "harness.json").read_text())
FORMS = list(fixture.FORMS)


def ours(form: str, max_len: int, model: Any) -> LambadaScore:
    tokens = fixture.tokenizer()

    def logits(ids: Tensor, mask: Tensor) -> Tensor:
        return model(input_ids=ids, attention_mask=mask.long()).logits

    return score(logits, lambda text: tokens.encode(text).ids, fixture.passages(form), max_len=max_len)


def same(found: LambadaScore, told: dict[str, Any]) -> None:
    assert found.accuracy == pytest.approx(told["accuracy"], abs=1e-4)
    assert found.perplexity == pytest.approx(told["perplexity"], rel=1e-4)
    assert (-found.nats).tolist() == pytest.approx(told["log_likelihood"], abs=1e-4)
    assert found.right.tolist() == told["greedy"]


@pytest.mark.parametrize("form", FORMS)
def test_two_hundred_passages_score_as_the_harness_scored_them(form: str) -> None:
    found = ours(form, TOLD[form]["max_len"], fixture.model())
    same(found, TOLD[form])
    assert len(found.nats) == 200
    assert 0.02 < found.accuracy < 0.9  # right and wrong answers both occur


@pytest.mark.parametrize(("form", "max_len"), [("lambada_openai", fixture.MAX_LEN), ("lambada_standard", 60)])
def test_the_harness_itself_gives_the_same_numbers(form: str, max_len: int) -> None:
    missing = [name for name in ("lm_eval", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"NOT RUN: lm-evaluation-harness itself; {' and '.join(missing)} missing: pip install '.[harness]'")
    torch.manual_seed(1)
    model = fixture.model() if form == "lambada_openai" else fixture.blank_model()  # which is random
    same(ours(form, max_len, model), fixture.run_harness(form, max_len, model))


def test_some_passages_of_the_fixture_lose_their_beginning_and_some_do_not() -> None:
    tokens = fixture.tokenizer()
    lengths = [len(tokens.encode(text).ids) for text in fixture.passages("lambada_openai")]
    assert sum(n > fixture.MAX_LEN for n in lengths) > 50
    assert sum(n <= fixture.MAX_LEN for n in lengths) > 20


def test_a_passage_is_split_at_its_last_blank_only() -> None:
    assert split_passage("a  b") == ("a", "  b")
    assert split_passage('he said "no"\n\n"Nadia') == ("he said", ' "no"\n\n"Nadia')
    assert split_passage("one\n two") == ("one", "\n two")
    for bad in ("word", "word ", " word", "", "a  "):
        with pytest.raises(ValueError, match="a context, a blank and a last word"):
            split_passage(bad)


def test_the_words_tokens_are_those_behind_the_contexts() -> None:
    def merge(text: str) -> list[str]:  # joins the last letter before a blank with it
        return text.replace("b c", "b_c").replace("_", "+").split("+")

    assert encode_parts(merge, "a+b", " c d") == (["a", "b"], ["c d"])
    with pytest.raises(ValueError, match="leaves nothing of ' c'"):
        encode_parts(lambda text: ["x"], "a", " c")


def test_perplexity_is_per_word_and_right_means_every_token() -> None:
    def uniform(ids: Tensor, mask: Tensor) -> Tensor:
        logits = torch.zeros(*ids.shape, 128)
        logits[:, :, ord("a")] = 1e-3
        return logits

    def encode(text: str) -> list[int]:
        return list(text.encode())

    # " aa": the blank is never the most likely; nats = 3 tokens' worth
    found = score(uniform, encode, ["x aa", "y b"], max_len=10)
    assert found.right.tolist() == [False, False]
    assert found.perplexity == pytest.approx(math.exp(math.log(128) * (3 + 2) / 2), rel=1e-3)


def test_what_stands_before_a_passage_and_what_is_cut() -> None:
    seen: list[list[int]] = []

    def logits(ids: Tensor, mask: Tensor) -> Tensor:
        seen.extend(row[real].tolist() for row, real in zip(ids, mask, strict=True))
        return torch.zeros(*ids.shape, 300)

    def encode(text: str) -> list[int]:
        return list(text.encode())

    score(logits, encode, ["abc de"], max_len=100, begin=[299])
    score(logits, encode, ["abc de"], max_len=4, begin=[299])
    assert seen == [[299, *b"abc d"], [*b"bc d"]]
    with pytest.raises(ValueError, match="a last word of 3 tokens for a model of 2"):
        score(logits, encode, ["abc de"], max_len=2)
    with pytest.raises(ValueError, match="passage 1: expected a context"):
        score(logits, encode, ["abc de", "f"], max_len=9)
    with pytest.raises(ValueError, match="no passages"):
        score(logits, encode, [], max_len=9)


def test_batches_do_not_change_the_score() -> None:
    model, tokens = fixture.model(), fixture.tokenizer()

    def scored(n: int) -> LambadaScore:
        return score(
            lambda ids, mask: model(input_ids=ids, attention_mask=mask.long()).logits,
            lambda text: tokens.encode(text).ids,
            fixture.passages("lambada_openai")[:30],
            max_len=fixture.MAX_LEN,
            batch_size=n,
        )

    assert scored(1).nats.tolist() == pytest.approx(scored(7).nats.tolist(), abs=1e-5)
