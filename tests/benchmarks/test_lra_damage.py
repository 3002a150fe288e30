"""Files of Long Range Arena that are not what they should be: each is named, and nothing of it is used."""

from __future__ import annotations

import io
import os
import random
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.benchmarks import layouts
from tests.benchmarks.test_lra_files import digest, opened, prepared
from zoo.data import files
from zoo.data.cached import CachedData
from zoo.data.module import SPLITS, LoaderConfig
from zoo.data.stats import split_stats

PICTURES = Path(__file__).parent / "fixtures" / "pathfinder" / "pathfinder32" / "curv_contour_length_14"
EXPRESSIONS = Path(__file__).parent / "fixtures" / "listops"
FILES = ("listops", "text", "image", "retrieval", "retrieval_books", "pathfinder")


def refused(data: CachedData, says: str) -> None:
    """Preparing fails with a message, and leaves nothing that could be taken for prepared."""
    with pytest.raises(zoo.DataError, match=says) as caught:
        data.prepare()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert not data.prepared()
    assert data.verify()
    with pytest.raises(zoo.DataError, match="not prepared"):
        data.dataset("train")


def everything(folder: Path) -> Path:
    """The layouts of all tasks that read files."""
    layouts.everything(folder)
    shutil.copytree(EXPRESSIONS, folder / "lra_release" / "listops-1000")
    shutil.copytree(PICTURES, folder / "lra_release" / "pathfinder32" / "curv_contour_length_14")
    return folder


# -- archives ----------------------------------------------------------------------------------------------------------


def pack(place: Path, path: Path, *more: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    """The folder as an archive, with further members of no content."""
    with tarfile.open(path, mode) as file:
        file.add(place, place.name)
        for member in more:
            file.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
def test_archives_of_every_packing_are_read(mode: str, tmp_path: Path) -> None:
    place = layouts.imdb(tmp_path)
    packed = pack(place, tmp_path / "imdb.tar", mode=mode)
    assert digest(prepared("text", packed, tmp_path / "a")) == digest(prepared("text", place, tmp_path / "b"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (member("aclImdb/train/pos/90_9.txt", tarfile.SYMTYPE, "0_9.txt"), r"90_9\.txt is a link, not a file"),
        (member("aclImdb/train/pos/90_9.txt", tarfile.LNKTYPE, "aclImdb/train/pos/0_9.txt"), "is a link, not a file"),
        (member("aclImdb/x", tarfile.SYMTYPE, "/etc/passwd"), "not a safe archive"),
        (member("aclImdb/x", tarfile.SYMTYPE, "../../x"), "not a safe archive"),
        (member("aclImdb/x", tarfile.LNKTYPE, "../../x"), "not a safe archive"),
        (member("aclImdb/x", tarfile.CHRTYPE), "not a safe archive"),
        (member("aclImdb/x", tarfile.BLKTYPE), "not a safe archive"),
        (member("aclImdb/x", tarfile.FIFOTYPE), "not a safe archive"),
        (member("aclImdb/../../x", size=3), "not a safe archive"),
        (member("aclImdb/train/pos/0_9.txt", size=3), r"train/pos/0_9\.txt is in the archive twice"),
        (member("aclImdb/train/pos/90_9.txt", size=(1 << 20) + 1), r"90_9\.txt has 1,048,577 bytes, expected at most"),
    ],
    ids=["symlink", "hardlink", "absolute", "outside", "hard outside", "device", "disk", "pipe", "..", "twice", "long"],
)
def test_members_that_are_no_reviews_are_named(more: tarfile.TarInfo, says: str, tmp_path: Path) -> None:
    packed = pack(layouts.imdb(tmp_path), tmp_path / "imdb.tar.gz", more)
    before = sorted(p for p in tmp_path.rglob("*") if "root" not in p.parts)
    refused(opened("text", packed, tmp_path / "root"), rf"imdb\.tar\.gz: .*{says}")
    assert sorted(p for p in tmp_path.rglob("*") if "root" not in p.parts) == before


@pytest.mark.parametrize("missing", ["data_filter", "FilterError"])
def test_archives_are_read_and_checked_without_tarfile_s_filters(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Python 3.11.0 to 3.11.3."""
    monkeypatch.delattr(tarfile, missing)
    packed = pack(layouts.imdb(tmp_path), tmp_path / "imdb.tar.gz")
    assert prepared("text", packed, tmp_path / "a").labels("train").size
    unsafe = pack(layouts.imdb(tmp_path / "x"), tmp_path / "x" / "imdb.tar.gz", member("aclImdb/x", tarfile.CHRTYPE))
    refused(opened("text", unsafe, tmp_path / "b"), "not a safe archive: aclImdb/x is a device")


def test_archives_that_unpack_to_very_much_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a wanted or an unwanted member alike: what is passed over is unpacked, too."""
    monkeypatch.setattr(files, "MIN_EXPANSION_BYTES", 1 << 20)
    packed = pack(layouts.imdb(tmp_path), tmp_path / "imdb.tar.gz", member("aclImdb/zeros", size=30 << 20))
    assert packed.stat().st_size < 60_000
    refused(opened("text", packed, tmp_path / "root"), r"imdb\.tar\.gz: unpacks to more than [\d,]+ bytes; not read")


def test_headers_of_archives_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "HEADER_LIMIT", 1 << 16)
    long = member("aclImdb/" + "x" * 100_000)
    packed = pack(layouts.imdb(tmp_path), tmp_path / "imdb.tar.gz", long)
    refused(opened("text", packed, tmp_path / "root"), r"imdb\.tar\.gz: a header of 1\d\d,\d{3} bytes")


@pytest.mark.parametrize("contents", [b"", b"not an archive at all" * 100, b"\x1f\x8b broken"])
def test_what_is_no_archive_is_named(contents: bytes, tmp_path: Path) -> None:
    path = tmp_path / "imdb.tar.gz"
    path.write_bytes(contents)
    refused(opened("text", path, tmp_path / "root"), r"imdb\.tar\.gz: cut short or damaged")


def test_batches_in_two_folders_of_an_archive_are_refused(tmp_path: Path) -> None:
    place = layouts.cifar(tmp_path)
    path = tmp_path / "a-binary.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(place, "one")
        file.add(place, "two")
    refused(opened("image", path, tmp_path / "root"), r"data_batch_1\.bin is in the archive twice")


# -- files that are none -----------------------------------------------------------------------------------------------

ONE_OF = {
    "listops": "lra_release/listops-1000/basic_val.tsv",
    "text": "aclImdb/train/pos/4_9.txt",
    "image": "cifar-10-batches-bin/data_batch_2.bin",
    "retrieval": "tsv_data/new_aan_pairs.eval.tsv",
    "retrieval_books": "pg19/train/50001.txt",
    "pathfinder": "lra_release/pathfinder32/curv_contour_length_14/imgs/0/sample_5.png",
}


@pytest.mark.parametrize("how", ["pipe", "folder", "broken link", "loop"])
@pytest.mark.parametrize("task", FILES)
def test_files_that_are_none_are_named(task: str, how: str, tmp_path: Path) -> None:
    path = everything(tmp_path / "files") / ONE_OF[task]
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)  # who opens it waits for ever
    elif how == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if how == "loop" else tmp_path / "nowhere")
    refused(opened(task, tmp_path / "files", tmp_path / "root"), path.name.replace(".", r"\."))


@pytest.mark.parametrize("task", FILES)
def test_links_to_files_are_files(task: str, tmp_path: Path) -> None:
    plain = digest(prepared(task, everything(tmp_path / "files"), tmp_path / "a"))
    path = tmp_path / "files" / ONE_OF[task]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert digest(prepared(task, tmp_path / "files", tmp_path / "b")) == plain


# -- listops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: b"", r"basic_val\.tsv: empty"),
        (lambda text: text.splitlines(keepends=True)[0], r"basic_val\.tsv: no rows"),
        (lambda text: text.replace(b"Source", b"Sauce"), r"basic_val\.tsv:1: expected a header"),
        (lambda text: text.split(b"\n", 1)[1], r"basic_val\.tsv:1: expected a header"),
        (lambda text: text.replace(b"[MIN", b"[M\xffN", 1), r"basic_val\.tsv:\d: byte \d+ is not UTF-8"),
        (lambda text: text[: len(text) - 3], r"basic_val\.tsv:4: .*"),
        (lambda text: text + b"( " * (3 << 20), r"basic_val\.tsv:5: a line of more than 4,194,304 bytes"),
    ],
    ids=["empty", "header only", "other header", "no header", "utf-8", "cut", "long"],
)
def test_damaged_expressions_are_named(change: Callable[[bytes], bytes], says: str, tmp_path: Path) -> None:
    place = Path(shutil.copytree(EXPRESSIONS, tmp_path / "files"))
    path = place / "basic_val.tsv"
    path.write_bytes(change(path.read_bytes()))
    refused(opened("listops", place, tmp_path / "root"), says)


def test_long_expressions_lose_their_end_and_are_counted(tmp_path: Path) -> None:
    data = prepared("listops", EXPRESSIONS, tmp_path, seq_len=900)
    rows = split_stats(data, zoo.registry().task(data.name).record.load_kind())
    assert [row["truncated"] for row in rows] == [int((data.lengths(s) > 900).sum()) for s in SPLITS]
    assert sum(row["truncated"] for row in rows) > 0
    assert max(len(data.dataset(s)[i][0]) for s in SPLITS for i in range(3)) == 900


# -- pathfinder --------------------------------------------------------------------------------------------------------


def a_huge_picture(path: Path, side: int = 60_000) -> None:
    """A PNG of a few bytes that says of itself that it has 3.6 thousand million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b""))


def test_pictures_that_unpack_to_very_much_are_not_unpacked(tmp_path: Path) -> None:
    place = Path(shutil.copytree(PICTURES, tmp_path / "files"))
    a_huge_picture(place / "imgs/0/sample_3.png")
    refused(opened("pathfinder", place, tmp_path / "root"), r"sample_3\.png: (damaged|60000x60000)")
    a_huge_picture(place / "imgs/0/sample_3.png", 5_000)
    refused(opened("pathfinder", place, tmp_path / "root"), r"sample_3\.png: 5000x5000 in mode L, expected 32x32")
    with (place / "imgs/0/sample_3.png").open("ab") as file:
        file.write(bytes(1 << 20))
    refused(opened("pathfinder", place, tmp_path / "root"), r"sample_3\.png: 1,048,\d+ bytes, expected at most")


def test_a_picture_in_two_splits_is_named(tmp_path: Path) -> None:
    place = Path(shutil.copytree(PICTURES, tmp_path / "files"))
    whole = prepared("pathfinder", place, tmp_path / "a")
    recipe = whole.recipe()
    one, other = recipe.splits["train"][2].path, recipe.splits["test"][0].path
    shutil.copy(one, other)
    names = rf"{other.name} \(test\): the same picture as .*{one.name}"
    refused(opened("pathfinder", place, tmp_path / "b"), names)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"imgs/0 sample_3.png 3 1 1.0 14 4 2 0.5 1 1", r"0\.npy:13: the same picture as in .*0\.npy:4"),
        (b"../../etc sample_3.png 3 1 1.0 14 4 2 0.5 1 1", r"0\.npy:13: '\.\./\.\./etc sample_3\.png', expected imgs/"),
        (b"imgs/0 /etc/passwd 3 1 1.0 14 4 2 0.5 1 1", r"0\.npy:13: 'imgs/0 /etc/passwd', expected imgs/"),
        (b"imgs/0 sample_99.png 3 1 1.0 14 4 2 0.5 1 1", r"sample_99\.png: named in the metadata, but not there"),
        (b"imgs/0 sample_\xff.png 3 1 1.0 14 4 2 0.5 1 1", r"0\.npy:13: byte \d+ is not UTF-8"),
        (b"imgs/0 sample_3.png 3 1 1.0 14 4 2 0.5 wide 1", r"0\.npy:13: paddle margin 'wide'"),
    ],
    ids=["twice", "outside", "absolute", "missing", "utf-8", "margin"],
)
def test_damaged_lines_of_metadata_are_named(line: bytes, says: str, tmp_path: Path) -> None:
    place = Path(shutil.copytree(PICTURES, tmp_path / "files"))
    path = place / "metadata/0.npy"
    path.write_bytes(path.read_bytes().rstrip(b"\n") + b"\n" + line + b"\n")
    refused(opened("pathfinder", place, tmp_path / "root"), says)


def test_metadata_that_say_nothing_are_named(tmp_path: Path) -> None:
    place = Path(shutil.copytree(PICTURES, tmp_path / "files"))
    path = place / "metadata/0.npy"
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_text("".join(" ".join([*f[:3], "1", *f[4:]]) + "\n" for f in lines))
    refused(opened("pathfinder", place, tmp_path / "root"), "no picture with label 0")
    path.write_bytes(b"")
    refused(opened("pathfinder", place, tmp_path / "root"), r"0\.npy: empty")


# -- image, text, books ------------------------------------------------------------------------------------------------


def test_pictures_in_train_and_test_are_left_out_of_train_by_name(tmp_path: Path) -> None:
    place = layouts.cifar(tmp_path)
    record = (place / "test_batch.bin").read_bytes()[3073 * 4 : 3073 * 5]
    with (place / "data_batch_2.bin").open("ab") as file:
        file.write(record)
    data = prepared("image", place, tmp_path / "root")
    assert data.left_out() == ["data_batch_2.bin picture 20 (train): the same as test_batch.bin picture 4 (test)"]
    assert data.provenance()["left_out"] == 1


def test_text_from_parquet_equals_the_folder(tmp_path: Path) -> None:
    source = layouts.imdb(tmp_path)
    layouts.imdb_parquet(tmp_path / "data" / "imdb" / "plain_text", source)
    found = opened("text", "", tmp_path / "data")  # where a download puts it
    found.prepare()
    assert digest(found) == digest(prepared("text", source, tmp_path / "root"))
    assert set(found.provenance()["files"]) == {f"{s}-00000-of-00001.parquet" for s in ("train", "test")}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows[5].update(text=" "), r"train-00000-of-00001\.parquet row 5 is empty"),
        (lambda rows: rows[5].update(text="a" * ((1 << 20) + 1)), r"row 5 has 1,048,577 bytes, expected at most"),
        (lambda rows: rows[5].update(label=-1), r"row 5: label -1, expected 0 to 1"),
        (lambda rows: rows[5].update(label=None), r"row 5: label None, expected 0 to 1"),
        (
            lambda rows: [row.pop("label") for row in rows],
            r"train-00000-of-00001\.parquet: columns text; expected text",
        ),
        (lambda rows: [row.update(label=1) for row in rows], "no reviews of neg in train"),
        (lambda rows: rows.clear() or rows.append({"text": "", "label": 0}), r"row 0 is empty"),
    ],
    ids=["empty", "long", "label", "no label", "columns", "class", "one"],
)
def test_damaged_reviews_in_parquet_are_named(change: Callable, says: str, tmp_path: Path) -> None:
    place = layouts.imdb_parquet(tmp_path / "imdb", layouts.imdb(tmp_path), change)
    refused(opened("text", place, tmp_path / "root"), says)


@pytest.mark.parametrize("task", ["text", "image"])
def test_a_missing_split_in_parquet_is_named(task: str, tmp_path: Path) -> None:
    place = tmp_path / {"text": "imdb", "image": "cifar10"}[task]
    place.mkdir()
    (place / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(zoo.DataError, match=r"no test\*\.parquet"):
        opened(task, place, tmp_path / "root").prepare()


def test_books_of_absurd_length_are_named(tmp_path: Path) -> None:
    place = layouts.books(tmp_path)
    with (place / "train" / "50001.txt").open("ab") as file:
        file.truncate((1 << 26) + 1)
    refused(opened("retrieval_books", place, tmp_path / "root"), r"50001\.txt: 67,108,865 bytes, expected at most")


# -- what every task promises of its splits ----------------------------------------------------------------------------


@pytest.mark.parametrize("task", FILES)
def test_all_test_examples_are_scored(task: str, tmp_path: Path) -> None:
    """Also those of the last, smaller batch, which the published code drops; in training, too, nothing is lost."""
    data = prepared(task, everything(tmp_path / "files"), tmp_path / "root")
    kind = zoo.registry().task(task).record.load_kind()
    data = type(data)(data.options, data.root, LoaderConfig(kind, batch_size=7, eval_batch_size=7, max_samples=20))
    for split in ("val", "test"):
        batches = [len(batch.labels) for batch in data.eval_dataloader(split)]
        assert sum(batches) == len(data.labels(split))
        assert set(batches[:-1]) <= {7}
    assert [len(batch.labels) for batch in data.train_dataloader()] == [7, 7, 6]


@pytest.mark.parametrize("task", FILES)
def test_nobody_elses_random_numbers_decide_a_split(task: str, tmp_path: Path) -> None:
    place, found = everything(tmp_path / "files"), []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        found.append(digest(prepared(task, place, tmp_path / str(seed))))
    assert found[0] == found[1]


def test_validation_reviews_are_none_of_test(tmp_path: Path) -> None:
    """Long Range Arena validates on the test reviews."""
    place = layouts.imdb(tmp_path)
    data = prepared("text", place, tmp_path / "root")
    theirs = {p.read_bytes() for p in (place / "train").rglob("*.txt")}
    assert {data.stored("val").row(i).tobytes() for i in range(len(data.labels("val")))} < theirs


def test_a_picture_of_another_mode_stays_refused_in_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="NOT RUN: CIFAR-10 as parquet; pip install 'seqzoo[parquet]'")
    from pyarrow import parquet

    (tmp_path / "cifar10").mkdir()
    grey, huge = io.BytesIO(), tmp_path / "huge.png"
    Image.new("L", (32, 32)).save(grey, "png")
    a_huge_picture(huge)
    for cell, says in (
        (grey.getvalue(), "row 0: 32x32 in mode L"),
        (huge.read_bytes(), "row 0: (damaged|60000x60000)"),
    ):
        for split in ("train", "test"):
            rows = [{"img": {"bytes": cell, "path": None}, "label": 1}]
            parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "cifar10" / f"{split}-0.parquet")
        refused(opened("image", tmp_path / "cifar10", tmp_path / "root"), says)
