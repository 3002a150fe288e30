"""The recall suite: its laws, its answers (found again by solvers that share nothing with the package), its layouts."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.data.batch import QuestionCollator as Collate
from zoo.data.module import Split, TaskData, Totals
from zoo.data.prepare import compose_options, open_task
from zoo.data.questions import IGNORE, Continuation, Marked, lay_out
from zoo.data.rng import key
from zoo.data.stats import answer_of
from zoo_recall import draw
from zoo_recall.generated import ALL, BlockSampler, digest

TASKS = ("mqar", "selective_copying", "induction_heads", "needle", "kv_retrieval")
NEEDLE_TEXT = {"task.form": "text", "task.seq_len": 1024, "task.digits": 7, "task.train_lengths": []}
NEEDLE_TEXT |= {"task.test_lengths": [], "task.generalization_factors": [2]}
KV_TEXT: dict[str, Any] = {"task.form": "text", "task.seq_len": 900, "task.train_pairs": [5], "task.test_pairs": [5]}
KV_TEXT |= {"task.generalization_pairs": [9]}


def opened(name: str, protocol: str = "smoke", /, **options: Any) -> TaskData:
    return open_task(zoo.registry().task(name).record, protocol, {f"task.{k}": v for k, v in options.items()})


def some(data: TaskData, split: Split, n: int = 40) -> list[Marked | Continuation]:
    rows = data.dataset(split)
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, n).astype(int))]  # type: ignore[arg-type]


# -- answers, found by reading ------------------------------


def by_hand(name: str, data: TaskData, question: Marked | Continuation) -> list[int]:
    """The answer as a person would find it. Knows the layout that the card describes, nothing of the package."""
    o = data.options
    ids = question[0].tolist()
    if name == "mqar":
        places = [i for i, label in enumerate(question[1]) if label != IGNORE]
        memory = {}
        for i in range(0, 2 * len(places), 2):
            assert ids[i] <= o.vocab // 2 < ids[i + 1]  # a key, a value
            memory[ids[i]] = ids[i + 1]
        assert len(memory) == len(set(memory.values())) == len(places)
        assert sorted(ids[i] for i in places) == sorted(memory)
        assert all((i - 2 * len(places)) % 2 == 0 for i in places)
        return [memory[ids[i]] for i in places]
    if name == "selective_copying":
        marker = max(ids)
        assert ids[-o.tokens :] == [marker] * o.tokens
        assert np.flatnonzero(question[1] != IGNORE).tolist() == list(range(len(ids) - o.tokens, len(ids)))
        return [token for token in ids if token not in (1, marker)]
    if name == "induction_heads":
        first, last = (i for i, token in enumerate(ids) if token == o.vocab)
        assert last == len(ids) - 1
        assert np.flatnonzero(question[1] != IGNORE).tolist() == [last]
        return [ids[first + 1]]
    text = "".join(chr(token - 1) for token in ids) if o.form == "text" else ""
    if name == "needle" and text:
        asked = re.search(r"What is the special magic number for (\S+) mentioned", text)
        assert asked
        found = re.findall(r"One of the special magic numbers for (\S+) is: (\d+)\.", text)
        assert len(found) == 1 + o.distractors
        return [ord(c) + 1 for c in dict(found)[asked[1]]]
    if name == "needle":
        magic, is_, what = o.hay + o.keys + 11, o.hay + o.keys + 12, o.hay + o.keys + 13
        assert (ids[-3], ids[-1]) == (what, is_)
        at = [i for i in range(len(ids)) if ids[i : i + 3] == [magic, ids[-2], is_]]
        assert len(at) == 1
        assert ids.count(magic) == 1 + o.distractors
        return ids[at[0] + 3 : at[0] + 3 + o.digits]
    if text:
        pairs = dict(re.findall(r'"([0-9a-f-]{36})": "([0-9a-f-]{36})"', text))
        asked = re.search(r'\n\nKey: "([0-9a-f-]{36})"\nCorresponding value:$', text)
        assert asked
        return [ord(c) + 1 for c in pairs[asked[1]]]
    words = " ".join(map(str, ids)).split(f" {o.alphabet + 2} ")  # at the commas
    pairs = dict(word.split(f" {o.alphabet + 1} ") for word in words[:-1])
    assert len(pairs) == len(words) - 1
    sign, *asked_for, colon = map(int, words[-1].split())
    assert (sign, colon) == (o.alphabet + 3, o.alphabet + 1)
    return [int(c) for c in pairs[" ".join(map(str, asked_for))].split()]


@pytest.mark.parametrize("protocol", ["smoke", "quick", "paper"])
@pytest.mark.parametrize("name", TASKS)
def test_every_answer_can_be_found_by_reading(name: str, protocol: str) -> None:
    data = opened(name, protocol)
    for split in ALL:
        groups = data.groups(split)
        seen = set()
        for question in some(data, split):
            assert by_hand(name, data, question) == answer_of(question).tolist()
            group = groups[question.group]
            answer = len(question.answer) + 1 if isinstance(question, Continuation) else 0
            length = len(question[0]) + answer
            assert length <= group["length"]
            if name != "needle" or data.options.form == "symbols":
                assert length == group["length"]
            if "pairs" in group and name == "mqar":
                assert len(answer_of(question)) == group["pairs"]
            seen.add(question.group)
        assert len(seen) == min(len(groups), 40) or len(groups) > 20
    assert data.verify() == []


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.integers(1, 8),
    extra=st.integers(0, 20),
    vocab=st.integers(512, 700),
    power=st.floats(0.01, 1.0),
    fillers=st.sampled_from([(True, True), (True, False), (False, True)]),
)
def test_mqar_under_any_settings(pairs: int, extra: int, vocab: int, power: float, fillers: tuple[bool, bool]) -> None:
    cell = f"{4 * pairs + 2 * extra}x{pairs}"
    data = opened(
        "mqar",
        vocab=vocab,
        mixture=[cell],
        test_cells=[cell],
        generalization_cells=[],
        seq_len=72,
        power_a=power,
        random_non_queries=fillers[0],
        filler_keys=fillers[1],
        train_size=20,
        val_size=1,
        group_size=1,
        data_seed=pairs,
    )
    for question in some(data, "train", 20):
        assert by_hand("mqar", data, question) == answer_of(question).tolist()
        rest = question[0][2 * pairs :][question[1][2 * pairs :] == IGNORE]
        keys = question[0][: 2 * pairs : 2]
        if not fillers[0]:
            assert (rest == 1).all()
        elif not fillers[1]:
            assert not np.isin(rest, keys).any()


def test_mqar_gaps_follow_the_published_law() -> None:
    """np.random.choice(places, n, replace=False, p=p), as the published code has it, on the same p."""
    places, pairs, n = 14, 2, 6_000
    p = 0.01 * np.arange(1, places + 1) ** (0.01 - 1)
    ours, theirs = np.zeros((2, places)), np.zeros((2, places))
    rng = np.random.default_rng(0)
    ids, labels = np.empty((2, 2 * pairs + 2 * places), np.int64)
    for i in range(n):
        draw.mqar(key("gaps"), i, pairs, 64, p, False, True, ids, labels)
        for j in range(pairs):
            ours[j, (np.flatnonzero(ids[2 * pairs :] == ids[2 * j])[0]) // 2] += 1
        gaps = rng.choice(places, pairs, replace=False, p=p / p.sum())
        theirs[[0, 1], gaps] += 1
    # twice the standard deviation of a difference of two frequencies, five times over
    assert (np.abs(ours - theirs) < 5 * np.sqrt(ours + theirs + 1)).all()
    assert ours[0, 0] / n == pytest.approx(p[0] / p.sum(), abs=0.03)


def test_mqar_fillers_may_equal_a_key_as_published_and_are_not_asked() -> None:
    data = opened("mqar", vocab=512, mixture=["256x8"], test_cells=["256x8"], generalization_cells=[], seq_len=256)
    twice = 0
    for question in some(data, "train", 100):
        keys = question[0][:16:2]
        twice += int(np.isin(question[0][16:], keys).sum()) - 8
        assert by_hand("mqar", data, question) == answer_of(question).tolist()
    assert twice > 100  # 100 x 232 fillers, 8 of 512 symbols: 362 expected


def test_choosing_is_uniform_without_return() -> None:
    stream = np.full(1, key("choose"))
    seen = Counter(tuple(draw.choose(stream, 4, 2).tolist()) for _ in range(12_000))
    assert len(seen) == 12
    assert all(abs(count - 1_000) < 160 for count in seen.values())


@settings(max_examples=25, deadline=None)
@given(tokens=st.integers(4, 10), noise=st.integers(20, 60), vocab=st.integers(10, 40))
def test_selective_copying_under_any_settings(tokens: int, noise: int, vocab: int) -> None:
    length = 2 * tokens + noise
    data = opened("selective_copying", seq_len=length, tokens=tokens, vocab=vocab, train_size=20, group_size=3)
    for split in ALL:
        for question in some(data, split, 10):
            assert by_hand("selective_copying", data, question) == answer_of(question).tolist()
            assert len(answer_of(question)) == tokens
            assert set(answer_of(question).tolist()) <= set(range(2, vocab))


def test_places_and_tokens_are_uniform() -> None:
    ids, labels = np.empty((2, 20), np.int64)
    places, tokens = np.zeros(16), np.zeros(16)
    for i in range(4_000):
        draw.selective_copying(key("places"), i, 4, 16, ids, labels)
        places += (ids[:16] > 1)[:16]
        np.add.at(tokens, labels[16:], 1)
    assert np.abs(places - 1_000).max() < 140
    assert tokens[[0, 1]].sum() == 0
    assert np.abs(tokens[2:] - 16_000 / 14).max() < 170


@settings(max_examples=25, deadline=None)
@given(length=st.integers(20, 90), vocab=st.integers(8, 40))
def test_induction_heads_under_any_settings(length: int, vocab: int) -> None:
    sizes = {"train_size": 30, "group_size": 5, "val_size": 1}
    data = opened(
        "induction_heads", seq_len=length, test_lengths=[length], vocab=vocab, generalization_factors=[2], **sizes
    )
    for question in [*some(data, "train"), *some(data, "length_generalization")]:
        assert by_hand("induction_heads", data, question) == answer_of(question).tolist()


def test_the_trigger_is_anywhere_before_its_token_and_the_end() -> None:
    ids, labels = np.empty((2, 8), np.int64)
    seen: Counter[int] = Counter()
    for i in range(6_000):
        draw.induction_heads(key("trigger"), i, 5, ids, labels)
        seen[int(np.argmax(ids == 5))] += 1
    assert sorted(seen) == list(range(6))
    assert all(abs(count - 1_000) < 160 for count in seen.values())


@settings(max_examples=25, deadline=None)
@given(
    depths=st.integers(2, 7),
    digits=st.integers(1, 6),
    others=st.integers(0, 4),
    hay=st.integers(8, 50),
    straws=st.integers(20, 60),
)
def test_needles_under_any_settings(depths: int, digits: int, others: int, hay: int, straws: int) -> None:
    length = (1 + others) * (3 + digits) + 3 + digits + 1 + straws
    law = {"depths": depths, "digits": digits, "distractors": others, "hay": hay}
    sizes = {"train_size": 30, "group_size": 3, "val_size": 1}
    data = opened("needle", seq_len=length, generalization_factors=[2], **law, **sizes)
    for split in ("train", "test", "length_generalization"):
        for question in some(data, split):
            assert by_hand("needle", data, question) == answer_of(question).tolist()
            ids = question[0]
            assert ((ids >= 1) & (ids < data.specials.slot)).all()
            assert int((ids <= hay).sum()) == data.groups(split)[question.group]["length"] - (length - straws)


def test_a_needle_stands_at_its_depth_and_at_depth_one_right_before_the_question() -> None:
    data = opened("needle", seq_len=100, depths=5, digits=2, distractors=2, generalization_factors=[])
    straws = data.options.hay
    for question in some(data, "test", 40):
        depth = data.groups("test")[question.group]["depth"]
        ids = question[0].tolist()
        (at,) = (i for i in range(len(ids) - 3) if ids[i] == straws + 32 + 11 and ids[i + 1] == ids[-2])
        before = sum(token <= straws for token in ids[:at])
        total = sum(token <= straws for token in ids)
        assert before == int(total * depth)
        if depth == 1:
            assert at == len(ids) - 3 - 5
    # the same hay and numbers at every depth
    rows = data.dataset("test")
    same = [sorted(rows[i * data.options.group_size][0].tolist()) for i in range(5)]
    assert all(one == same[0] for one in same)


@pytest.mark.parametrize("distractors", [0, 3])
def test_needles_in_the_published_words(distractors: int) -> None:
    data = opened("needle", **{k[5:]: v for k, v in NEEDLE_TEXT.items()}, distractors=distractors, group_size=4)
    longest = 0
    for split in ("train", "test", "length_generalization"):
        for question in some(data, split, 30):
            assert by_hand("needle", data, question) == answer_of(question).tolist()
            group = data.groups(split)[question.group]
            length = len(question.prompt) + len(question.answer) + 1
            assert group["length"] - 90 < length <= group["length"]
            longest = max(longest, length)
            if group.get("depth") == 1:
                text = bytes((question.prompt - 1).tolist()).decode()
                assert re.search(r"is: \d{7}\.\nWhat is the special magic number for \S+ mentioned", text)
    assert longest <= data.options.longest


@settings(max_examples=25, deadline=None)
@given(pairs=st.integers(3, 12), alphabet=st.integers(6, 20), n_key=st.integers(2, 4), n_value=st.integers(2, 4))
def test_pairs_under_any_settings(pairs: int, alphabet: int, n_key: int, n_value: int) -> None:
    length = pairs * (n_key + n_value + 2) + n_key + n_value + 3
    law = {"alphabet": alphabet, "key_len": n_key, "value_len": n_value, "seq_len": length, "positions": 4}
    sizes = {
        "train_pairs": [pairs],
        "test_pairs": [pairs],
        "generalization_pairs": [pairs + 1],
        "train_size": 9,
        "group_size": 4,
    }
    data = opened("kv_retrieval", **law, **sizes, val_size=1)
    for split in ALL:
        for question in some(data, split):
            assert by_hand("kv_retrieval", data, question) == answer_of(question).tolist()


@pytest.mark.parametrize("text", [False, True])
def test_the_pair_is_moved_and_nothing_else(text: bool) -> None:
    data = opened("kv_retrieval", **({k[5:]: v for k, v in KV_TEXT.items()} if text else {}), positions=6)
    groups, rows, each = data.groups("test"), data.dataset("test"), data.options.group_size
    pairs = groups[0]["pairs"]
    assert [g["position"] for g in groups] == list(range(pairs))
    width = 81 if text else data.options.key_len + data.options.value_len + 2
    head = len("Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n{")
    for i in range(each):
        told = [rows[g * each + i] for g in range(pairs)]
        body = [q.prompt[head if text else 0 :] for q in told]
        cut = [[tuple(b[width * k : width * k + width - 3]) for k in range(pairs)] for b in body]
        asked = cut[0][0]
        for g, listed in enumerate(cut):
            assert listed[g] == asked
            assert [p for p in listed if p != asked] == cut[0][1:]
        assert all(np.array_equal(q.answer, told[0].answer) for q in told)


def test_positions_are_those_of_the_published_evaluation() -> None:
    """75 pairs at 0, 24, 49, 74; 140 at 0, 34, 69, 104, 139."""
    for positions, pairs, expected in ((4, 75, [0, 24, 49, 74]), (5, 140, [0, 34, 69, 104, 139])):
        data = opened("kv_retrieval", "paper", positions=positions)
        found = [
            g["position"] for s in ("test", "length_generalization") for g in data.groups(s) if g["pairs"] == pairs
        ]
        assert found == expected


def test_uuids_are_of_version_four() -> None:
    data = opened("kv_retrieval", **{k[5:]: v for k, v in KV_TEXT.items()})
    for question in some(data, "train", 20):
        text = bytes((question.prompt - 1).tolist()).decode()
        found = re.findall(r'"([^"]{36})"', text)
        assert len(found) == 11
        assert all(
            re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", w) for w in found
        )


# -- what is promised of every task ------------------------------

GOLDEN: list[tuple[str, Split, int, list[int], list[int]]] = [
    ("mqar", "train", 17, [126, 296, 239, 355, 126, 120, 508, 265, 239, 5, 157, 466], [296, 355]),
    ("mqar", "test", 0, [94, 391, 216, 266, 94, 188, 216, 298, 402, 305, 193, 227], [391, 266]),
    ("selective_copying", "train", 17, [1, 1, 1, 1, 13, 1, 1, 12, 1, 1, 1, 1], [13, 12, 3, 9]),
    ("selective_copying", "test", 0, [1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [9, 12, 4, 11]),
    ("induction_heads", "train", 17, [13, 14, 12, 11, 6, 13, 12, 3, 7, 8, 16, 7], [7]),
    ("induction_heads", "test", 0, [14, 3, 5, 11, 16, 8, 1, 13, 8, 13, 6, 14], [8]),
    ("needle", "train", 17, [42, 10, 14, 46, 11, 27, 51, 13, 31, 59, 34, 27], [101, 97]),
    ("needle", "test", 0, [107, 86, 108, 99, 105, 14, 27, 40, 45, 45, 11, 62], [99, 105]),
    ("kv_retrieval", "train", 17, [10, 1, 17, 13, 13, 18, 12, 10, 17, 11, 12, 18], [1, 5]),
    ("kv_retrieval", "test", 0, [3, 11, 17, 10, 1, 18, 9, 6, 17, 10, 16, 18], [10, 1]),
]
GOLDEN_TEXT: list[tuple[str, Split, int, str, str]] = [
    ("needle", "train", 17, "magic number for icy-harbor mentioned in the provided text is ", "5061831"),
    ("needle", "test", 0, "magic number for crisp-island mentioned in the provided text is ", "6858296"),
    (
        *("kv_retrieval", "train", 17, 'Key: "0d3bbcd9-65aa-40c6-b543-6dffe063d389"\nCorresponding value:'),
        "3e819538-4352-4e3b-a424-793c27702469",
    ),
    (
        *("kv_retrieval", "test", 0, 'Key: "eef018d1-1c0b-4c70-9403-0a5ed166ab25"\nCorresponding value:'),
        "24da5264-2eb9-4638-af3b-4439c3584de4",
    ),
]


@pytest.mark.parametrize(("name", "split", "index", "begins", "answer"), GOLDEN)
def test_golden_rows(name: str, split: Split, index: int, begins: list[int], answer: list[int]) -> None:
    question = opened(name).dataset(split)[index]
    assert question[0][: len(begins)].tolist() == begins
    assert answer_of(question).tolist() == answer


@pytest.mark.parametrize(("name", "split", "index", "ends", "answer"), GOLDEN_TEXT)
def test_golden_texts(name: str, split: Split, index: int, ends: str, answer: str) -> None:
    text = NEEDLE_TEXT if name == "needle" else KV_TEXT
    question = opened(name, **{k[5:]: v for k, v in text.items()}).dataset(split)[index]
    assert bytes((question.prompt - 1).tolist()).decode().endswith(ends)
    assert bytes((question.answer - 1).tolist()).decode() == answer


@pytest.mark.parametrize("name", TASKS)
def test_digests_of_the_version(name: str) -> None:
    data = opened(name)
    assert digest(data.generator_class, type(data.options)) == data.generator.golden


@pytest.mark.parametrize("name", TASKS)
def test_examples_depend_on_seed_split_and_index_alone(name: str) -> None:
    data = opened(name)
    for split in ALL:
        rows, again = data.dataset(split), pickle.loads(pickle.dumps(opened(name).dataset(split)))
        assert len(rows) == len(again)
        for i in range(min(len(rows), 20)):
            for a, b in zip(rows[i], again[i], strict=True):
                assert np.array_equal(a, b)
    smaller = opened(name, train_size=64, val_size=8)
    other = opened(name, data_seed=1)
    for i in range(5):
        assert np.array_equal(data.dataset("test")[i][0], smaller.dataset("test")[i][0])
        assert not np.array_equal(data.dataset("test")[i][0], other.dataset("test")[i][0])
    with pytest.raises(IndexError, match="examples 0 to"):
        data.dataset("val")[len(data.dataset("val"))]


@pytest.mark.parametrize("protocol", ["smoke", "quick"])
@pytest.mark.parametrize("name", TASKS)
def test_no_example_is_in_two_splits(name: str, protocol: str) -> None:
    data = opened(name, protocol)
    seen: set[bytes] = set()
    for split in ("train", "val", "test"):
        own = {q[0].tobytes() for q in some(data, split, 5_000)}
        assert not own & seen
        seen |= own


@pytest.mark.parametrize("objective", ["causal_lm", "infilling", "seq2seq"])
@pytest.mark.parametrize("name", TASKS)
def test_layouts_fit_the_longest_and_ask_for_every_answer(name: str, objective: Any) -> None:
    data = opened(name)
    for split in ALL:
        questions = some(data, split, 12)
        for question in questions:
            laid = lay_out(question, objective, data.specials)
            assert len(laid.inputs) <= data.options.longest
            assert laid.inputs.min() >= 1
            assert max(laid.inputs.max(), laid.labels.max()) < data.options.vocab_size
            asked = laid.labels[laid.labels != IGNORE]
            answer = answer_of(question)
            assert np.array_equal(asked[: len(answer)], answer)
            if objective == "infilling" and isinstance(question, Continuation):
                assert asked[-1] == data.specials.end
                assert (laid.inputs == data.specials.slot).sum() == data.specials.slots
        batch = Collate(objective, data.specials)(questions)
        assert batch.groups is not None
        assert batch.groups.tolist() == [question.group for question in questions]


@pytest.mark.parametrize("name", TASKS)
def test_what_a_record_says_of_the_data(name: str) -> None:
    data = opened(name)
    data.prepare()
    told = data.provenance()
    assert told["kind"] == "regenerated"
    assert told["version"] == zoo.registry().task(name).record.version
    assert told["counts"] == {split: len(data.dataset(split)) for split in ALL}
    assert "data_seed" not in told["settings"]
    assert all(len({len(g) for g in data.groups(split)}) == 1 for split in ALL)
    assert all(g["length"] > data.options.seq_len for g in data.groups("length_generalization"))
    assert max(g["length"] for g in data.groups("test")) <= data.options.seq_len
    assert max(g["length"] for g in data.groups("length_generalization")) == data.options.longest


@pytest.mark.parametrize("name", TASKS)
def test_what_a_person_is_shown(name: str) -> None:
    data = opened(name)
    assert "[" in data.view("test", 0)
    labels = data.labels("test")
    assert labels.ndim == 1
    assert labels.min() >= 1
    majority = data.majority()
    assert majority is not None
    assert 0 <= majority < 0.5
    assert data.lengths("train").max() <= data.options.seq_len


def test_accuracy_counts_tokens_in_place_and_whole_answers_else() -> None:
    totals = Totals(questions=10, answers=40, hits=30, whole=5, nats=1.0, squares=1.0)
    assert opened("mqar").score("test", totals) == {"accuracy": 0.75, "exact": 0.5}
    assert opened("kv_retrieval").score("test", totals) == {"accuracy": 0.5}
    single = totals._replace(answers=10, hits=5)
    assert opened("induction_heads").score("test", single) == {"accuracy": 0.5}


def test_a_break_of_the_law_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened("mqar")
    true_draw = data.generator.draw

    def wrong(split: Split, group: Any, index: int) -> Marked:
        question = true_draw(split, group, index)
        labels = np.where(question.labels == IGNORE, IGNORE, 1 + question.labels % data.options.vocab)
        return question._replace(labels=labels)

    monkeypatch.setattr(data.generator, "draw", wrong)
    assert any("the answer is" in fault for fault in data.verify())
    monkeypatch.undo()
    monkeypatch.setattr(data.generator_class, "golden", "0" * 64)
    assert data.verify() == ["mqar: version 1 draws other examples on this machine"]


# -- the order of training ------------------------------


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    rows=st.integers(1, 9),
    seed=st.integers(0, 5),
    cut=st.integers(0, 150),
)
def test_order_in_blocks(counts: list[int], rows: int, seed: int, cut: int) -> None:
    whole = list(BlockSampler(counts, rows, seed, 200))
    assert len(whole) == 200 == len(BlockSampler(counts, rows, seed, 200))
    assert all(0 <= i < sum(counts) for i in whole)
    assert list(BlockSampler(counts, rows, seed, 200, cut)) == whole[cut:]  # a resumed run
    devices = [list(BlockSampler(counts, rows, seed, 200, rank=r, world=3)) for r in range(3)]
    assert [devices[k % 3][k // 3] for k in range(200)] == whole
    ends = np.cumsum(counts)
    group = np.searchsorted(ends, whole, side="right")
    for start in range(0, 200 - rows, rows):
        assert len(set(group[start : start + rows].tolist())) == 1
    epoch = sum(max(1, count // rows) for count in counts) * rows
    if epoch <= 200 and min(counts) >= rows:
        assert len(set(whole[:epoch])) == epoch  # nothing twice in an epoch


def test_epochs_and_seeds_differ() -> None:
    first = list(BlockSampler([64], 4, 0, 128))
    assert sorted(first[:64]) == sorted(first[64:]) == list(range(64))
    assert first[:64] != first[64:]
    assert list(BlockSampler([64], 4, 1, 64)) != first[:64]


# -- settings that cannot be ------------------------------


@pytest.mark.parametrize(
    ("name", "options", "key", "says"),
    [
        ("mqar", {"mixture": ["64-4"]}, "mixture", "LENGTHxPAIRS"),
        ("mqar", {"mixture": ["32x9"]}, "mixture", "4 tokens per pair"),
        ("mqar", {"mixture": ["128x4"]}, "mixture", "longer than task.seq_len 32"),
        ("mqar", {"test_cells": ["64x4"]}, "test_cells", "longer than task.seq_len"),
        ("mqar", {"generalization_cells": ["32x4"]}, "generalization_cells", "no longer than task.seq_len"),
        ("mqar", {"vocab": 8}, "vocab", "3 keys, too few"),
        ("mqar", {"mixture": ["16x1"], "vocab": 128, "random_non_queries": False}, "vocab", "would occur in training"),
        ("mqar", {"mixture": ["16x2", "16x2*3"]}, "mixture", "twice"),
        ("mqar", {"mixture": []}, "mixture", "no cells"),
        ("mqar", {"power_a": 0.0}, "power_a", "number > 0"),
        ("mqar", {"train_size": 0}, "train_size", "integer > 0"),
        ("selective_copying", {"seq_len": 7}, "seq_len", "too short for 4 tokens"),
        ("selective_copying", {"tokens": 1}, "tokens", "would occur in training"),
        ("selective_copying", {"generalization_factors": [4, 2]}, "generalization_factors", "ascending"),
        ("induction_heads", {"test_lengths": [64]}, "test_lengths", "task.seq_len 32"),
        ("induction_heads", {"test_lengths": [4]}, "test_lengths", "would occur in training"),
        ("needle", {"form": "prose"}, "form", "text | symbols"),
        ("needle", {"seq_len": 20}, "seq_len", "for these needles"),
        ("needle", {"distractors": 32, "seq_len": 512}, "distractors", "need more than 32 keys"),
        ("needle", {"train_lengths": [32]}, "train_lengths", "is the longest of them"),
        ("needle", {"digits": 2, "form": "text", "seq_len": 1024}, "digits", "would occur in training"),
        ("kv_retrieval", {"seq_len": 30}, "seq_len", "6 pairs have 43 tokens"),
        ("kv_retrieval", {"test_pairs": [7]}, "test_pairs", "above the 6 pairs"),
        ("kv_retrieval", {"generalization_pairs": [6]}, "generalization_pairs", "not above"),
        ("kv_retrieval", {"key_len": 1}, "key_len", "16 different keys are too few"),
    ],
)
def test_settings_that_cannot_be(name: str, options: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(zoo.ConfigError, match=re.escape(says)) as caught:
        opened(name, **options)
    assert caught.value.key == f"task.{key}"


def test_a_plugin_without_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, zoo_recall, zoo_recall.options, zoo_recall.text_options; "
    code += "print(*(m for m in ('torch', 'numpy') if m in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("name", TASKS)
def test_chance_follows_from_the_options(name: str) -> None:
    task = zoo.registry().task(name).record
    assert task.load_options()().chance == pytest.approx(task.chance)
    quick = compose_options(task, "quick", {})
    assert task.chance <= quick.chance <= 0.1
