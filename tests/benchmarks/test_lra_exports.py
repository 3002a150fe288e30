"""Exports of Long Range Arena in the published layouts, read back."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo
from tests.benchmarks import layouts
from tests.benchmarks.test_lra_files import digest, prepared
from zoo.data.export import export
from zoo.data.module import SPLITS
from zoo.data.prepare import open_task
from zoo.data.samples import random_sentence


@pytest.mark.parametrize("task", ["text", "image"])
def test_exports_read_back_as_published(task: str, tmp_path: Path) -> None:
    ours = prepared(task, layouts.everything(tmp_path / "files"), tmp_path / "a")
    counts = export(ours, tmp_path / "out")
    assert sum(counts.values()) == sum(len(ours.labels(split)) for split in SPLITS)
    theirs = prepared(task, tmp_path / "out", tmp_path / "b")
    assert digest(theirs) == digest(ours)
    assert theirs.left_out() == []


def test_exported_reviews_keep_their_ratings(tmp_path: Path) -> None:
    ours = prepared("text", layouts.imdb(tmp_path), tmp_path / "a")
    export(ours, tmp_path / "out")
    assert {p.stem.rpartition("_")[2] for p in (tmp_path / "out").rglob("neg/*.txt")} == {"2"}
    unrated = prepared("text", layouts.imdb_parquet(tmp_path / "imdb", tmp_path / "aclImdb"), tmp_path / "b")
    export(unrated, tmp_path / "again")
    assert {p.stem.rpartition("_")[2] for p in (tmp_path / "again").rglob("neg/*.txt")} == {"4"}
    assert digest(prepared("text", tmp_path / "again", tmp_path / "c")) == digest(ours)


def test_passages_of_books_are_exported_in_the_form_of_retrieval(tmp_path: Path) -> None:
    ours = prepared("retrieval_books", layouts.books(tmp_path), tmp_path / "a")
    export(ours, tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == [f"book_pairs.{split}.tsv" for split in ("eval", "test", "train")]
    for name in names:  # under AAN's names its reader takes them
        (tmp_path / "out" / name).rename(tmp_path / "out" / name.replace("book_pairs", "new_aan_pairs"))
    theirs = prepared("retrieval", tmp_path / "out", tmp_path / "b", duplicates="keep")
    for split in SPLITS:
        assert theirs.labels(split).tolist() == ours.labels(split).tolist()
        one, two = (data.dataset(split)[3][0][0] for data in (ours, theirs))
        assert bytes(two[2 : 2 + len(one)] - 1) == bytes(one - 1)


def test_the_texts_of_aan_are_not_passed_on(tmp_path: Path) -> None:
    data = prepared("retrieval", layouts.aan(tmp_path), tmp_path / "root")
    with pytest.raises(zoo.UserError, match="retrieval: the texts of AAN may not be passed on"):
        export(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_has_no_layout_of_its_own_says_so(tmp_path: Path) -> None:
    (tmp_path / "wikitext-2").mkdir()
    for name in ("train", "valid", "test"):
        (tmp_path / "wikitext-2" / f"{name}.txt").write_text(f" = {name} = \n \n {random_sentence(3, 400)} \n")
    data = open_task(zoo.registry().task("wikitext").record, "smoke", {}, tmp_path)
    data.prepare()
    with pytest.raises(zoo.UserError, match="no published layout"):
        export(data, tmp_path / "out")
