"""Corpora: what is found, what a document is, what is held out, what is refused, and that nothing is held whole."""

from __future__ import annotations

import re
import tracemalloc
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from tests.benchmarks import layouts
from zoo.data import corpus
from zoo.data.corpus import CorpusScan, find_corpus, scan_corpus
from zoo.data.module import SPLITS
from zoo.data.samples import WORDS, random_sentence
from zoo.data.store import StoredSplit, build
from zoo.data.tokenized import READER, CorpusRecipe, TokenStream, find_words
from zoo.data.tokens import Encoding, load_tokenizer

BPE = str(Path(__file__).parents[1] / "benchmarks" / "lambada" / "tokenizer.json")
ARTICLES = """ \n = One = \n \n Text of one . \n = no heading = \n more text \n \n = = Part = = \n \n a b \n
 = Two = \n \n x = 1 = \n \n = of no line = then \n"""


def read(place: Path, seed: int = 0) -> CorpusScan:
    found = find_corpus(place)
    assert found is not None
    return scan_corpus(found, seed, lambda done, total: None)


def texts(scanned: CorpusScan, split: str) -> list[str]:
    out = []
    for document in scanned.documents[split]:  # type: ignore[index]
        parts = []
        for block in document.blocks:
            parts.append(block.path.read_bytes()[block.start : block.stop])
        assert [block.begins for block in document.blocks] == [True] + [False] * (len(document.blocks) - 1)
        out.append(b"".join(parts).decode())
    return out


def prepared(scanned: CorpusScan, folder: Path, name: str = "bytes") -> dict[str, TokenStream]:
    tokens = load_tokenizer(name)
    build(folder, CorpusRecipe(scanned, tokens, {}), lambda done, total: None)
    return {split: TokenStream(StoredSplit(folder, split), tokens.size) for split in SPLITS}


# -- what is found ---------------------------------------------------------------------------------------------------


def test_layouts_are_told_by_their_form(tmp_path: Path) -> None:
    layouts.everything(tmp_path)
    found = find_corpus(tmp_path / "wikitext-2")
    assert found is not None
    assert (found.form, found.has_splits) == ("wikitext", True)
    found = find_corpus(tmp_path / "pg19")
    assert found is not None
    assert (found.form, found.has_splits, len(found.files["train"])) == ("books", True, 4)
    found = find_corpus(tmp_path / "pg19" / "train")
    assert found is not None
    assert (found.form, found.has_splits, len(found.files["train"])) == ("books", False, 4)
    found = find_corpus(tmp_path / "pg19" / "train" / "50001.txt")
    assert found is not None
    assert found.form == "file"
    assert find_corpus(tmp_path / "lambada", exclude=["lambada*"]) is None  # the test passages are no books
    assert find_corpus(tmp_path / "lambada") is not None
    assert find_corpus(tmp_path / "gone") is None
    assert find_corpus(tmp_path) is None


@pytest.mark.parametrize("form", ["{}.txt", "wiki.{}.raw"])
def test_wikitext_under_its_other_names(form: str, tmp_path: Path) -> None:
    names = [form.format(split) for split in ("train", "valid", "test")]
    for name in names:
        (tmp_path / name).write_text(f" \n = {name} = \n \n a b c \n")
    found = find_corpus(tmp_path)
    assert found is not None
    assert [found.files[split][0].name for split in SPLITS] == names


def test_an_article_begins_at_a_heading_between_empty_lines(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(ARTICLES + name)
    found = read(tmp_path)
    one, two = texts(found, "test")
    assert one.startswith(" \n = One = \n")
    assert " = no heading = " in one
    assert two.startswith(" = Two = \n")
    assert one + two == ARTICLES + "test"


def test_words_of_articles_count_the_ends_of_lines(tmp_path: Path) -> None:
    layouts.articles(tmp_path)
    found = read(tmp_path / "wikitext-2")
    text = (tmp_path / "wikitext-2" / "wiki.test.tokens").read_text()
    assert sum(d.words for d in found.documents["test"]) == len(text.split()) + text.count("\n")
    assert sum(d.bytes for d in found.documents["test"]) == len(text.encode())
    assert len(found.documents["test"]) == 3
    books = read(layouts.books(tmp_path))
    text = next((tmp_path / "pg19" / "test").glob("*.txt")).read_text()
    assert books.documents["test"][0].words == len(text.split())


# -- what is held out ------------------------------------------------------------------------------------------------


def paragraphs(folder: Path, n: int = 300) -> Path:
    path = folder / "text.txt"
    path.write_text("".join(f"{random_sentence(i, 40)} {i}.\n\n" for i in range(n)))
    return path


def test_a_file_is_divided_at_paragraphs_and_what_is_left_runs_on(tmp_path: Path) -> None:
    path = paragraphs(tmp_path)
    found = read(path)
    every = {split: texts(found, split) for split in SPLITS}
    assert all(text.endswith(".\n\n") for part in every.values() for text in part)
    whole = path.read_text()
    assert sorted("".join("".join(part) for part in every.values())) == sorted(whole)
    size = len(whole)
    assert 0.02 < len("".join(every["test"])) / size < 0.1
    assert 0.02 < len("".join(every["val"])) / size < 0.1
    # a document of train reaches from one hole to the next
    assert len(every["train"]) <= len(every["test"]) + len(every["val"]) + 1
    assert all(text in whole for text in every["train"])
    assert read(path).documents == found.documents
    assert texts(read(path, seed=1), "test") != every["test"]
    assert found.notes


def test_a_file_of_articles_is_divided_by_article(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    layouts.articles(tmp_path, (40, 1, 1))
    path.write_bytes((tmp_path / "wikitext-2" / "wiki.train.tokens").read_bytes())
    found = read(path)
    assert [len(found.documents[split]) for split in SPLITS] == [36, 2, 2]


def test_loose_books_are_divided(tmp_path: Path) -> None:
    layouts.books(tmp_path, (20, 0, 0))
    for path in (tmp_path / "pg19" / "train").glob("*.txt"):
        path.rename(tmp_path / "pg19" / path.name)
    found = read(tmp_path / "pg19")
    assert [len(found.documents[split]) for split in SPLITS] == [16, 2, 2]
    few = tmp_path / "few"
    few.mkdir()
    (few / "a.txt").write_text("a b c")
    (few / "b.txt").write_text("d e f")
    with pytest.raises(zoo.DataError, match="2 books, expected three at least"):
        read(few)


def test_a_text_of_two_splits_is_left_out_of_the_later_one(tmp_path: Path) -> None:
    layouts.books(tmp_path)
    test = next((tmp_path / "pg19" / "test").glob("*.txt"))
    (tmp_path / "pg19" / "train" / "copy.txt").write_bytes(test.read_bytes())
    found = read(tmp_path / "pg19")
    assert [len(found.documents[split]) for split in SPLITS] == [4, 2, 2]
    assert len(found.left_out) == 1
    assert "copy.txt (train): the same as" in found.left_out[0]


# -- what is refused -------------------------------------------------------------------------------------------------


def test_what_is_wrong_is_named_with_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.books(tmp_path)
    path = tmp_path / "pg19" / "train" / "50001.txt"
    good = path.read_bytes()
    path.write_bytes(good + b"\nsecond to last\n caf\xe9\n")
    line = path.read_bytes().count(b"\n")
    with pytest.raises(zoo.DataError, match=rf"50001.txt:{line}: byte {len(good) + 20} is not UTF-8; if it is Latin-1"):
        read(tmp_path / "pg19")
    path.write_bytes(b" \n\n")
    with pytest.raises(zoo.DataError, match=r"50001.txt: empty"):
        read(tmp_path / "pg19")
    path.write_bytes(b"")
    with pytest.raises(zoo.DataError, match=r"50001.txt: empty"):
        read(tmp_path / "pg19")
    monkeypatch.setattr(corpus, "LINE_LIMIT", 5_000)
    path.write_bytes(b"ok\n" + b"a" * 5_001)
    with pytest.raises(zoo.DataError, match=r"50001.txt:2: a line of more than 5,000 bytes; break it"):
        read(tmp_path / "pg19")


# -- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bytes", BPE])
def test_the_tokens_are_those_of_the_text(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "BLOCK", 700)  # several blocks a document
    layouts.articles(tmp_path)
    (tmp_path / "wikitext-2" / "wiki.valid.tokens").write_text(" \n = Ä = \n \n Ünï cödé 永永 ’tis — so . \n")
    scanned = read(tmp_path / "wikitext-2")
    assert max(len(d.blocks) for d in scanned.documents["train"]) > 2
    running, tokens = prepared(scanned, tmp_path / "out", name), load_tokenizer(name)
    for split in SPLITS:
        text, found = texts(scanned, split), running[split]
        assert len(found.starts) == len(text)
        for start, end, expected in zip(found.starts, found.ends, text, strict=True):
            assert tokens.decode((found.read(int(start), int(end)) - 1).tolist()) == expected
        whole = found.read(0, len(found))
        assert (whole[5:-1] == found.read(5, len(found) - 1)).all()
        assert found.read(9, 9).size == 0
        assert found.gaps() == {"unknown": 0, "lost": 0}


@pytest.mark.parametrize("name", ["bytes", BPE])
def test_a_word_is_a_blank_and_letters(name: str, tmp_path: Path) -> None:
    text = (
        " \n = Title here = \n \n Don’t stop , the well-known rock'n'roll é永 x1 2nd a_b <unk> (word) end. two  blanks"
        " trailing- -lead it's — done \n new line ’tis\n"
    )
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text(text + split)
    running, tokens = prepared(read(tmp_path), tmp_path / "out", name)["test"], load_tokenizer(name)
    found = []
    for position in range(len(running)):
        n = running.word_length(position)
        if n:
            found.append(tokens.decode((running.read(position, position + n) - 1).tolist()))
    # the first word of a line follows no text, and what has digits, underscores or two blanks before it is none
    expected = "Title here stop the well-known rock'n'roll é永 end two trailing it's done line"
    assert sorted(found) == sorted([f" {w}" for w in expected.split()])


@st.composite
def tokenised(draw: st.DrawFn) -> tuple[str, Encoding]:
    """A text in tokens with any edges; some tokens do not count the blank before them among their characters."""
    text = draw(st.text("ab é永'’-1_\n.", max_size=40))
    edges = [0, *sorted(draw(st.sets(st.integers(1, max(len(text) - 1, 1))))), len(text)]
    tokens = [[a, b] for a, b in pairwise(edges) if a < b <= len(text)]
    for token in tokens:
        token[0] += text[token[0]] == " " and token[0] + 1 < token[1] and draw(st.booleans())
    starts, stops = np.array(tokens, np.int64).reshape(-1, 2).T
    return text, Encoding(np.arange(len(tokens)), starts, stops)


@given(tokenised())
def test_words_whose_edges_are_edges_of_tokens_are_found_whatever_the_tokens(case: tuple[str, Encoding]) -> None:
    text, encoding = case
    expected = []
    for word in re.finditer(r"(?<=\S) [^\W\d_]++(?:['’-][^\W\d_]++)*+(?![\d_])", text):
        start, stop = word.span()
        inside = [
            i for i, (a, b) in enumerate(zip(encoding.starts, encoding.stops, strict=True)) if b > start and a < stop
        ]
        first, last = inside[0], inside[-1]
        if encoding.starts[first] >= start and encoding.stops[last] <= stop and encoding.starts[first] <= start + 1:
            expected.append((first, last))
    found = find_words(encoding, text)
    assert list(zip(*map(np.ndarray.tolist, found), strict=True)) == expected


def test_a_word_without_end_is_damage_that_names_the_remedy(tmp_path: Path) -> None:
    layouts.articles(tmp_path)
    running = prepared(read(tmp_path / "wikitext-2"), tmp_path / "out")["train"]
    position = next(p for p in range(len(running)) if running.word_length(p))
    n, row = int(running.sizes[0]), running.stored.data[: int(running.stored.ends[0])].copy()
    row[n + -(-n // 8) :] = 0  # behind tokens of one byte and the bits where words begin: those where they end
    stored = SimpleNamespace(**vars(running.stored) | {"data": row})
    with pytest.raises(zoo.DataError, match="a word of train without end; prepare it anew"):
        TokenStream(stored, 256).word_length(position)


def test_resumed_conversion_gives_the_same_rows(tmp_path: Path) -> None:
    layouts.articles(tmp_path)
    recipe = CorpusRecipe(read(tmp_path / "wikitext-2"), load_tokenizer("bytes"), {})
    whole = [chunk.data.tobytes() for chunk in recipe.produce("train", 0, lambda split: iter(()))]
    assert len(whole) == 6
    assert [chunk.data.tobytes() for chunk in recipe.produce("train", 4, lambda split: iter(()))] == whole[4:]


def test_the_origin_of_a_corpus_names_files_tokeniser_and_the_words_and_bytes_of_documents(tmp_path: Path) -> None:
    layouts.books(tmp_path)
    test = next((tmp_path / "pg19" / "test").glob("*.txt"))
    (tmp_path / "pg19" / "train" / "copy.txt").write_bytes(test.read_bytes())
    scanned, tokens = read(tmp_path / "pg19"), load_tokenizer(BPE)
    assert scanned.left_out
    about = CorpusRecipe(scanned, tokens, {"form": "books", "seed": 3}).provenance()
    documents = about.pop("documents")
    assert about == {
        "kind": "published",
        "version": READER,
        "files": scanned.files,
        "form": "books",
        "seed": 3,
        "tokenizer": {"name": "tokenizer.json", "sha256": tokens.digest, "size": 512},
        "left_out": scanned.left_out,
        "notes": scanned.notes,
    }
    assert documents["train"] == [[d.words, d.bytes] for d in scanned.documents["train"]]
    assert [len(documents[split]) for split in SPLITS] == [4, 2, 2]


def test_what_a_tokeniser_does_not_know_is_counted(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(["?", *WORDS])}
    known = Tokenizer(models.WordLevel(words, unk_token="?"))
    known.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    known.save(str(tmp_path / "words.json"))
    layouts.books(tmp_path)
    running = prepared(read(tmp_path / "pg19"), tmp_path / "out", str(tmp_path / "words.json"))
    assert running["train"].gaps() == {"unknown": 0, "lost": 0}
    path = tmp_path / "pg19" / "train" / "50001.txt"
    path.write_text(path.read_text() + " zyzzyva")
    running = prepared(read(tmp_path / "pg19"), tmp_path / "again", str(tmp_path / "words.json"))
    assert running["train"].gaps() == {"unknown": 1, "lost": 0}
    dropping = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate("abcdefghijklmnopqrstuvwx ")}, merges=[]))
    dropping.save(str(tmp_path / "letters.json"))
    running = prepared(read(tmp_path / "pg19"), tmp_path / "letters", str(tmp_path / "letters.json"))
    assert running["train"].gaps()["lost"] > 0
    places = {"train": ["a\nb ", "yab", "ayb", "aby", "yy"], "validation": ["a b"], "test": ["b a"]}
    for folder, books in places.items():
        (tmp_path / "few" / folder).mkdir(parents=True)
        for i, book in enumerate(books):
            (tmp_path / "few" / folder / f"{i}.txt").write_text(book)
    running = prepared(read(tmp_path / "few"), tmp_path / "fewer", str(tmp_path / "letters.json"))
    assert [running[split].gaps()["lost"] for split in SPLITS] == [4, 0, 0]  # white space is no loss


def test_a_large_file_is_never_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    piece = "".join(f"{random_sentence(i, 200)}\n" for i in range(40))
    size = 0
    with path.open("w") as file:
        i = 0
        while size < 4 << 20:
            size += file.write(f"{i}\n\n{piece}")
            i += 1
    tracemalloc.start()
    scanned = read(path)
    build(tmp_path / "out", CorpusRecipe(scanned, load_tokenizer("bytes"), {}), lambda done, total: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.7 * size, f"{peak:,} bytes at once for a file of {size:,}"
    assert sum(len(TokenStream(StoredSplit(tmp_path / "out", split), 256)) for split in SPLITS) == size


def test_golden_documents_and_words(tmp_path: Path) -> None:
    layouts.articles(tmp_path)
    running = prepared(read(tmp_path / "wikitext-2"), tmp_path / "out")["train"]
    assert (len(running), running.starts.tolist()[:3]) == GOLDEN_TRAIN
    at = [p for p in range(400) if running.word_length(p)][:6]
    assert [bytes((running.read(p, p + running.word_length(p)) - 1).astype(np.uint8)) for p in at] == GOLDEN_WORDS


GOLDEN_TRAIN: tuple[int, list[int]] = (9336, [0, 1563, 3112])
GOLDEN_WORDS: list[bytes] = [b" Article", b" was", b" about", b" two", b" a", b" story"]
