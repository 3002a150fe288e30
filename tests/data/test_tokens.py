"""Text as ids: bytes, and the tokenisers of the library tokenizers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.data.tokens import ByteTokenizer, JsonTokenizer, dtype_of, load_tokenizer, vocab_size

BPE = Path(__file__).parents[1] / "benchmarks" / "lambada" / "tokenizer.json"


def test_bytes_are_the_bytes_of_utf8() -> None:
    found = load_tokenizer("bytes")
    text = "déjà — 永 ok\n"
    assert bytes(found.encode(text).ids.astype(np.uint8)) == text.encode()
    assert found.decode(found.encode(text).ids.tolist()) == text
    assert vocab_size("bytes") == 259
    assert (found.name, found.size, found.digest) == ("bytes", 256, "")


def test_every_byte_knows_its_character() -> None:
    text = "aé永b"
    found = ByteTokenizer().encode(text)
    assert found.starts.tolist() == [0, 1, 1, 2, 2, 2, 3]
    assert found.stops.tolist() == [1, 2, 2, 3, 3, 3, 4]


@pytest.mark.parametrize(("size", "expected"), [(256, "u1"), (257, "<u2"), (65_536, "<u2"), (65_537, "<u4")])
def test_files_hold_the_smallest_type(size: int, expected: str) -> None:
    assert dtype_of(size) == np.dtype(expected)


def test_a_tokenizer_json_is_read_as_the_library_reads_it() -> None:
    from tokenizers import Tokenizer

    found, theirs = load_tokenizer(str(BPE)), Tokenizer.from_file(str(BPE))
    text = 'He said "no" — and déjà vu.\n\nSo it went.'
    assert found.encode(text).ids.tolist() == theirs.encode(text, add_special_tokens=False).ids
    assert found.decode(found.encode(text).ids.tolist()) == text
    assert found.size == 512
    assert vocab_size(str(BPE)) == 515
    assert len(found.digest) == 64
    aligned = found.encode(text)
    assert aligned.ids.tolist() == found.encode(text).ids.tolist()
    assert (np.diff(aligned.starts) >= 0).all()


def test_a_vocabulary_with_gaps_counts_to_its_last_id(tmp_path: Path) -> None:
    tree = json.loads(BPE.read_text())
    vocabulary = tree["model"]["vocab"]
    tree["model"]["vocab"] = vocabulary | {list(vocabulary)[-1]: 700}
    path = tmp_path / "t.json"
    path.write_text(json.dumps(tree))
    assert vocab_size(str(path)) == 701 + 3


def test_padding_and_truncation_of_the_file_are_off(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_file(str(BPE))
    theirs.enable_padding(length=64)
    theirs.enable_truncation(max_length=4)
    theirs.save(str(tmp_path / "t.json"))
    text = "a text of more than four tokens, surely"
    found = JsonTokenizer(tmp_path / "t.json").encode(text)
    assert found.ids.tolist() == load_tokenizer(str(BPE)).encode(text).ids.tolist()


def test_what_is_no_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(zoo.ConfigError, match=r"tokenizer: .*gone.json: No such file"):
        load_tokenizer(str(tmp_path / "gone.json"))
    with pytest.raises(zoo.ConfigError, match=r"gone.json: No such file"):
        vocab_size(str(tmp_path / "gone.json"))
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    with pytest.raises(zoo.ConfigError, match=r"bad.json: not a tokenizer"):
        load_tokenizer(str(bad))
    with pytest.raises(zoo.ConfigError, match=r"bad.json: not a tokenizer"):
        vocab_size(str(bad))


def test_without_the_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(zoo.ConfigError, match=r"pip install 'seqzoo\[tokenizers\]'"):
        JsonTokenizer(BPE)
