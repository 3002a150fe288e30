"""A text is the same whatever ended its lines, with or without a byte order mark; what is no UTF-8 text is refused."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.data.test_prepare_from import bring
from zoo import registry
from zoo.data import corpus
from zoo.data.files import read_lines, read_raw_lines
from zoo.data.prepare import open_task
from zoo.data.tokens import load_tokenizer

TOKENIZER = Path(__file__).parents[1] / "benchmarks" / "lambada" / "tokenizer.json"
BOM = b"\xef\xbb\xbf"
SAME: dict[str, Callable[[bytes], bytes]] = {
    "crlf": lambda text: text.replace(b"\n", b"\r\n"),
    "cr": lambda text: text.replace(b"\n", b"\r"),
    "bom": lambda text: BOM + text,
    "bom and crlf": lambda text: BOM + text.replace(b"\n", b"\r\n"),
    "mixed": lambda text: b"".join(t[:-1] + b"\r\n" if i % 3 else t for i, t in enumerate(lines(text))),
}
REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nul": (lambda text: text[:20] + b"\0" + text[20:], "byte 20 is NUL"),
    "utf-16": (lambda text: text.decode().encode("utf-16"), "is not UTF-8; if it is UTF-16: iconv -f utf16"),
    "utf-16-le": (lambda text: text.decode().encode("utf-16-le"), "if it is UTF-16: iconv -f utf16"),
    "latin-1": (lambda text: text + "é à".encode("latin-1") + b"\n", "is not UTF-8; if it is Latin-1: iconv -f latin1"),
    "cp1252": (lambda text: "“x” ".encode("cp1252") + text, "byte 0 is not UTF-8"),
}
TEXTS = ("listops", "pathfinder", "text", "retrieval", "retrieval_books", "lambada_openai", "lambada_standard")
SMALL = {"retrieval_books": {"task.seq_len": 200}}


def lines(text: bytes) -> list[bytes]:
    return text.splitlines(keepends=True)


def change(folder: Path, how: Callable[[bytes], bytes]) -> list[Path]:
    """Rewrite all text files of a folder."""
    paths = [path for path in folder.rglob("*.*") if path.suffix in (".txt", ".tokens", ".tsv", ".jsonl", ".npy")]
    for path in paths:
        path.write_bytes(how(path.read_bytes().replace(b"\r\n", b"\n")))
    return paths


def prepared(task: str, folder: Path, root: Path, **more: str) -> Any:
    values = {**SMALL.get(task, {}), "task.path": str(folder), **{f"task.{key}": value for key, value in more.items()}}
    data = open_task(registry().task(task).record, "smoke", values, root)
    data.prepare()
    return data


def contents(data: Any) -> list[Any]:
    """Everything that examples and scores are made of."""
    told = data.provenance()
    amounts = [data.documents(split) for split in ("train", "val", "test")] if hasattr(data, "documents") else []
    if hasattr(data, "passages"):
        rows = data.passages().stored
        amounts += [(rows.row(i).tobytes(), int(rows.labels[i])) for i in range(len(rows))]
    if hasattr(data, "amounts"):
        amounts += [data.amounts(split) for split in ("val", "test")]
    return [told["contents"], told["counts"], amounts]


@pytest.mark.parametrize("how", SAME)
@pytest.mark.parametrize("task", [*TEXTS, "wikitext"])
def test_every_reader_of_text_reads_the_same(task: str, how: str, tmp_path: Path) -> None:
    plain, other = bring(task, tmp_path / "plain"), bring(task, tmp_path / "other")
    change(plain, lambda text: text)
    assert change(other, SAME[how])
    assert contents(prepared(task, other, tmp_path / "b")) == contents(prepared(task, plain, tmp_path / "a"))


@pytest.mark.parametrize("fault", REFUSED)
@pytest.mark.parametrize("task", [*TEXTS, "wikitext"])
def test_every_reader_of_text_refuses_other_encodings(task: str, fault: str, tmp_path: Path) -> None:
    folder = bring(task, tmp_path / "files")
    how, complaint = REFUSED[fault]
    paths = change(folder, how)
    with pytest.raises(zoo.DataError, match=complaint) as caught:
        prepared(task, folder, tmp_path / "root")
    assert any(path.name in str(caught.value) for path in paths)


@pytest.mark.parametrize("how", SAME)
@pytest.mark.parametrize("form", ["passages", "articles", "books"])
@pytest.mark.parametrize("tokenizer", ["bytes", str(TOKENIZER)])
def test_corpora_of_every_form_have_the_same_blocks_splits_and_tokens(
    form: str, tokenizer: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where documents have several blocks, and where documents are held out."""
    monkeypatch.setattr(corpus, "BLOCK", 700)
    text = "".join(
        f" \n = Title {i} = \n \n" * (form == "articles")
        + f"Words of paragraph {i}, its number.\nAnother line.\n\n" * 4
        for i in range(150)
    ).encode()
    found = []
    for name, contents_of in (("plain", text), ("other", SAME[how](text))):
        place = tmp_path / name
        if form == "books":
            place.mkdir()
            for i in range(30):
                part = b"".join(lines(text)[i * 40 : (i + 1) * 40])
                (place / f"{i}.txt").write_bytes(part if name == "plain" else SAME[how](part))
        else:
            place.write_bytes(contents_of)
        found.append(
            contents(prepared("wikitext", tmp_path, tmp_path / "root" / name, corpus=str(place), tokenizer=tokenizer))
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("how", [BOM + b"%s", b"%s\r\n"])
def test_a_tokenizer_s_file_may_have_a_mark_and_other_line_ends(how: bytes, tmp_path: Path) -> None:
    plain = TOKENIZER.read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(how.replace(b"%s", plain.replace(b"\n", b"\r\n")))
    text = "a slow bright story, about the rain"
    tokenizers = (load_tokenizer(str(path)) for path in (tmp_path / "tokenizer.json", TOKENIZER))
    one, two = (tokenizer.encode(text).ids.tolist() for tokenizer in tokenizers)
    assert one == two


@pytest.mark.parametrize("how", ["crlf", "cr", "bom", "mixed"])
def test_key_value_files_are_read_the_same(how: str, tmp_path: Path) -> None:
    plain, other = bring("kv_retrieval", tmp_path / "plain"), tmp_path / "other"
    shutil.copytree(plain, other)
    for path in other.iterdir():
        path.write_bytes(gzip.compress(SAME[how](gzip.decompress(path.read_bytes()))))
    more = {"form": "text", "seq_len": 900, "train_pairs": [5], "test_pairs": [5], "generalization_pairs": [9]}
    told = []
    for folder in (plain, other):
        data = prepared("kv_retrieval", folder, tmp_path, **more)
        told.append([data.dataset("test")[i].prompt.tolist() for i in range(len(data.dataset("test")))])
    assert told[0] == told[1]


def test_lines_know_where_they_lie_in_the_file(tmp_path: Path) -> None:
    raw = BOM + b"one\r\ntwo\rthree\n\r\n\rend\r"
    path = tmp_path / "x"
    path.write_bytes(raw)
    found = list(read_raw_lines(path, 100))
    assert [line.contents for line in found] == [b"one\n", b"two\n", b"three\n", b"\n", b"\n", b"end\n"]
    assert b"".join(line.raw for line in found) == raw
    assert [raw[line.start :][: len(line.raw)] for line in found] == [line.raw for line in found]
    assert list(read_lines(path, 100)) == list(enumerate(["one", "two", "three", "", "", "end"], 1))


@pytest.mark.parametrize("size", range(1, 12))
def test_a_file_of_carriage_returns_is_no_line_that_is_too_long(size: int, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345\r6789\r\r" * 50)
    if size < 6:
        with pytest.raises(zoo.DataError, match=f"x:1: a line of more than {size} bytes"):
            list(read_raw_lines(path, size))
    else:
        assert [line.contents for line in read_raw_lines(path, size)] == [b"12345\n", b"6789\n", b"\n"] * 50
