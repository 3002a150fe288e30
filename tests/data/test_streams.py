"""Pieces of running text, which row reads which, and words that are asked for."""

from __future__ import annotations

import itertools
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import zoo
from tests.benchmarks import layouts
from zoo.data.batch import QuestionCollator as Collate
from zoo.data.corpus import find_corpus, scan_corpus
from zoo.data.questions import IGNORE, Specials
from zoo.data.store import StoredSplit, build
from zoo.data.streams import FILLER, Pieces, RowSampler, Words, document_order
from zoo.data.tokenized import CorpusRecipe, TokenStream
from zoo.data.tokens import load_tokenizer

END = 257


@pytest.fixture
def text(tmp_path: Path) -> TokenStream:
    found = find_corpus(layouts.articles(tmp_path))
    assert found is not None
    scanned = scan_corpus(found, 0, lambda done, total: None)
    build(tmp_path / "out", CorpusRecipe(scanned, load_tokenizer("bytes"), {}), lambda done, total: None)
    return TokenStream(StoredSplit(tmp_path / "out", "train"), 256)


# -- pieces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq_len", [1, 7, 100, 5_000])
def test_every_token_is_predicted_once_from_the_one_before_it(text: TokenStream, seq_len: int) -> None:
    pieces = Pieces(text, seq_len, END)
    labels, ids = [], []
    for i in range(len(pieces)):
        piece = pieces[i]
        assert len(piece.ids) == len(piece.labels) <= seq_len
        assert piece.fresh == (piece.ids[0] == END)
        labels.append(piece.labels)
        ids.append(piece.ids)
    whole = text.read(0, len(text))
    assert (np.concatenate(labels) == whole).all()
    before = np.append(END, whole[:-1])
    before[text.starts] = END
    assert (np.concatenate(ids) == before).all()
    assert sum(pieces[i].fresh for i in range(len(pieces))) == len(text.starts)


def test_no_piece_crosses_a_document(text: TokenStream) -> None:
    pieces = Pieces(text, 128, END)
    for i in range(len(pieces)):
        start, stop, begin = pieces.span(i)
        document = int(np.searchsorted(text.starts, start, "right")) - 1
        assert text.starts[document] <= start < stop <= text.ends[document]
        assert begin == text.starts[document]
        assert pieces[i].fresh == (start == begin)


def test_a_piece_read_as_if_nothing_had_been_before_it(text: TokenStream) -> None:
    pieces = Pieces(text, 100, END)
    n = len(pieces)
    for i in (0, 1, 5, n - 1):
        once, anew = pieces[i], pieces[i + n]
        assert (once.ids == anew.ids).all()
        assert (once.labels == anew.labels).all()
        assert anew.fresh
    assert not pieces[1].fresh
    for i in (-2, 2 * n):
        with pytest.raises(IndexError, match=f"piece {i} of {n}"):
            pieces[i]


def test_a_row_that_has_run_out_is_asked_nothing(text: TokenStream) -> None:
    piece = Pieces(text, 100, END)[FILLER]
    assert piece.labels.tolist() == [IGNORE]
    assert piece.fresh


def test_some_documents_only(text: TokenStream) -> None:
    pieces = Pieces(text, 100, END, [4, 1])
    found = np.concatenate([pieces[i].labels for i in range(len(pieces))])
    parts = [text.read(int(text.starts[d]), int(text.ends[d])) for d in (4, 1)]
    assert (found == np.concatenate(parts)).all()
    assert len(Pieces(text, 100, END, [])) == 0


def test_windows_that_overlap_ask_every_token_once(text: TokenStream) -> None:
    plain, pieces = Pieces(text, 40, END), Pieces(text, 40, END, context=60)
    assert len(pieces) == len(plain)
    longest = 0
    for i in range(len(pieces)):
        piece, alone = pieces[i], plain[i]
        n = len(alone.labels)
        assert piece.fresh
        assert (piece.labels[-n:] == alone.labels).all()
        assert (piece.ids[-n:] == alone.ids).all()
        assert (piece.labels[:-n] == IGNORE).all()
        longest = max(longest, len(piece.ids))
        start, _, begin = pieces.span(i)
        assert len(piece.ids) == n + min(60, start - begin)
        assert (piece.ids[0] == END) == (start - begin <= 60)
    assert longest == 100


def test_pieces_and_words_go_to_other_processes(text: TokenStream) -> None:
    for data in (Pieces(text, 64, END), Words(text, 50, 64, 31, END, ("v", 0))):
        sent = pickle.loads(pickle.dumps(data))
        for i in (0, 3, 17):
            for ours, theirs in zip(data[i][:2], sent[i][:2], strict=True):
                assert (np.asarray(ours) == np.asarray(theirs)).all()


# -- which row reads which --------------------------------------------------------------------------------------------


def rows_of(order: list[int], pieces: int, rows: int, start: int = 0) -> list[list[tuple[int, bool]]]:
    out: list[list[tuple[int, bool]]] = [[] for _ in range(rows)]
    for k, i in enumerate(order, start):
        out[k % rows].append((i % pieces, i >= pieces))
    return out


@pytest.mark.parametrize(("pieces", "rows"), [(103, 8), (5, 8), (1, 3), (64, 64)])
def test_each_row_reads_on_round_and_round(pieces: int, rows: int) -> None:
    order = list(RowSampler(pieces, rows, 3, 0, 5 * rows, 0, 1))
    for row in rows_of(order, pieces, rows):
        assert [anew for _, anew in row] == [True] + [False] * 4
        for (before, _), (after, _) in itertools.pairwise(row):
            assert after == (before + 1) % pieces
    starts = [i % pieces for i in order[:rows]]
    gaps = np.diff(sorted(starts))
    assert len(gaps) == 0 or gaps.max() <= pieces // rows + 1


def test_the_seed_shifts_the_places() -> None:
    first = [list(RowSampler(1_000, 8, seed, 0, 8, 0, 1)) for seed in range(4)]
    assert len({tuple(order) for order in first}) == 4
    assert first[1] == list(RowSampler(1_000, 8, 1, 0, 8, 0, 1))


def test_a_later_round_goes_on_where_the_earlier_stopped() -> None:
    whole = [i % 103 for i in RowSampler(103, 8, 0, 0, 80, 0, 1)]
    again = list(RowSampler(103, 8, 0, 32, 80, 0, 1))
    assert [i % 103 for i in again] == whole[32:]
    assert [i >= 103 for i in again] == [True] * 8 + [False] * 40


@pytest.mark.parametrize("world", [2, 4])
def test_devices_share_the_rows(world: int) -> None:
    whole = list(RowSampler(103, 8, 0, 16, 80, 0, 1))
    parts = [list(RowSampler(103, 8, 0, 16, 80, rank, world)) for rank in range(world)]
    assert [len(RowSampler(103, 8, 0, 16, 80, rank, world)) for rank in range(world)] == [len(p) for p in parts]
    assert [parts[i % world][i // world] for i in range(64)] == whole
    # sample j of a device belongs to one row of its own batch of 8 / world, in every batch
    for part in parts:
        size = 8 // world
        for j in range(size, len(part)):
            assert part[j] % 103 == (part[j - size] % 103 + 1) % 103


def test_whole_documents_go_to_rows() -> None:
    counts = [5, 1, 3, 2, 4]
    for rows in (1, 2, 3, 7):
        order = document_order(counts, rows, None)
        assert len(order) % rows == 0
        assert sorted(i for i in order if i != FILLER) == list(range(15))
        for row in (order[r::rows] for r in range(rows)):
            read = [i for i in row if i != FILLER]
            assert row[: len(read)] == read  # fillers come last
            for before, after in itertools.pairwise(read):
                assert after == before + 1 or after in (0, 5, 6, 9, 11)
    assert document_order(counts, 1, None) == list(range(15))
    order = document_order(counts, 2, None)  # each to the row that is free first
    assert order[::2] == [0, 1, 2, 3, 4, 11, 12, 13, 14]
    assert order[1::2] == [5, 6, 7, 8, 9, 10, FILLER, FILLER, FILLER]


@pytest.mark.parametrize("limit", [1, 5, 7, 14, 15, 99])
def test_a_limit_takes_the_same_pieces_whatever_the_rows(limit: int) -> None:
    for rows in (1, 2, 4):
        found = [i for i in document_order([5, 1, 3, 2, 4], rows, limit) if i != FILLER]
        assert sorted(found) == list(range(min(limit, 15)))


@pytest.mark.parametrize("limit", [None, 20])
def test_a_carried_state_gives_the_same_whatever_the_batch(text: TokenStream, limit: int | None) -> None:
    """A toy whose surprise at a token depends on all of the document before it."""
    pieces = Pieces(text, 64, END)

    def surprise(batch_size: int) -> tuple[float, int]:
        order = document_order(pieces.counts.tolist(), batch_size, limit)
        loader = DataLoader(
            pieces, batch_size, sampler=order, collate_fn=Collate("causal_lm", Specials(END + 1, END, 1))
        )
        state, total, n = torch.zeros(batch_size, dtype=torch.float64), 0.0, 0
        for batch in loader:
            state = torch.where(batch.fresh, 0.0, state)
            for ids, labels in zip(batch.inputs.T, batch.labels.T, strict=True):
                real = ids != 0
                state = torch.where(real, 0.9 * state + ids, state)
                asked = labels != IGNORE
                total += float(((state - labels) ** 2)[asked].sum())
                n += int(asked.sum())
        return total, n

    alone = surprise(1)
    for batch_size in (2, 3, 16):
        total, n = surprise(batch_size)
        assert n == alone[1]
        assert total == pytest.approx(alone[0], rel=1e-12)


# -- words -----------------------------------------------------------------------------------------------------------


def test_a_word_is_asked_with_what_precedes_it(text: TokenStream) -> None:
    whole = text.read(0, len(text))
    words = Words(text, 200, 50, 31, END, ("1", "train", 0))
    assert len(words) == 200
    cut = 0
    for k in range(200):
        prompt, answer, _ = words[k]
        assert re.fullmatch(rb" [A-Za-z]+", bytes((answer - 1).astype(np.uint8)))
        assert 1 <= len(prompt) <= 50
        inner = prompt[1:] if prompt[0] == END else prompt
        cut += prompt[0] != END
        joined = np.concatenate([inner, answer])
        where = [
            p
            for p in range(len(whole) - len(joined) + 1)
            if whole[p] == joined[0] and (whole[p : p + len(joined)] == joined).all()
        ]
        assert where
        if prompt[0] == END:
            assert any(p in text.starts for p in where)
    assert 100 < cut < 200


def test_words_are_drawn_uniformly(text: TokenStream) -> None:
    every = [p for p in range(len(text)) if text.word_length(p)]
    words = Words(text, 1, 8, 31, END, ("k",))
    drawn = [len(words[k].answer) for k in range(3_000)]
    lengths = [text.word_length(p) for p in every]
    assert np.mean(drawn) == pytest.approx(np.mean(lengths), abs=0.15)


def test_an_example_depends_on_key_and_number_alone(text: TokenStream) -> None:
    def first(key: tuple[object, ...]) -> list[tuple[int, ...]]:
        words = Words(text, 10, 20, 31, END, key)
        return [(*words[k].prompt.tolist(), -1, *words[k].answer.tolist()) for k in (7, 0, 3)]

    assert first(("a", 0)) == first(("a", 0))
    assert first(("a", 0)) != first(("a", 1))


def test_answers_that_are_too_long_are_not_asked(text: TokenStream) -> None:
    words = Words(text, 50, 20, 4, END, ("a",))
    assert max(len(words[k].answer) for k in range(50)) <= 4
    with pytest.raises(zoo.DataError, match="no word in 100,000 random places"):
        Words(text, 1, 20, 0, END, ("a",))[0]


def test_golden_order_and_words(text: TokenStream) -> None:
    assert list(RowSampler(1_000, 4, 0, 0, 8, 0, 1)) == GOLDEN_ORDER
    words = Words(text, 3, 24, 31, END, ("1", "train", 0))
    found = [tuple(bytes((ids[ids < END] - 1).astype(np.uint8)) for ids in words[k][:2]) for k in range(3)]
    assert found == GOLDEN_WORDS


GOLDEN_ORDER = [1529, 1779, 1029, 1279, 530, 780, 30, 280]
GOLDEN_WORDS = [
    (b"wo and again long bright", b" about"),
    (b"t about two slow and who", b" film"),
    (b" a bright long and never", b" was"),
]
