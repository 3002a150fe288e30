"""The tasks of Long Range Arena that need the user's files: formats, splits, golden rows, damage."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import zoo
from tests.benchmarks import layouts
from zoo.cli.data import app
from zoo.data.batch import collate_sequences as collate
from zoo.data.cached import CachedData
from zoo.data.files import read_archive
from zoo.data.module import SPLITS
from zoo.data.prepare import open_task
from zoo.data.stats import split_stats
from zoo_lra import characters, image, pairs, retrieval, retrieval_books
from zoo_lra.text import EOS

FILES = ("text", "image", "retrieval", "retrieval_books")


def opened(task: str, place: Path | str, root: Path, protocol: str = "paper", **options: object) -> CachedData:
    settings = {"task.path": str(place), **{f"task.{k}": v for k, v in options.items()}}
    if task == "retrieval_books":
        settings = {"task.train_size": 40, "task.val_size": 20, "task.test_size": 20, "task.seq_len": 256, **settings}
    data = open_task(zoo.registry().task(task).record, protocol, settings, root)
    assert isinstance(data, CachedData)
    return data


def prepared(task: str, place: Path | str, root: Path, **options: object) -> CachedData:
    data = opened(task, place, root, **options)
    data.prepare()
    return data


def digest(data: CachedData) -> str:
    """Of every example that the model gets, and its label."""
    total = hashlib.sha256()
    for split in SPLITS:
        rows = data.dataset(split)
        for i in range(len(data.labels(split))):
            inputs, label = rows[i]
            total.update(np.asarray(inputs, np.int64).tobytes() + bytes([label]))
    return total.hexdigest()


def bytes_of(ids: np.ndarray) -> bytes:
    return bytes(int(i) - 1 for i in ids if 0 < i <= 256)


# -- the suite ---------------------------------------------------------------------------------------------------------


def test_lra_is_the_six_and_books_are_apart() -> None:
    assert zoo.registry().suite("lra") == ["listops", "text", "retrieval", "image", "pathfinder", "pathx"]
    assert zoo.registry().suite("books") == ["retrieval_books"]


@pytest.mark.parametrize("task", FILES)
def test_without_files_one_line_says_what_to_bring_and_where(task: str, tmp_path: Path) -> None:
    data = open_task(zoo.registry().task(task).record, "smoke", {}, tmp_path)
    with pytest.raises(zoo.MissingFiles) as caught:
        data.prepare()
    said = str(caught.value)
    assert "\n" not in said
    assert zoo.registry().task(task).record.needs in said
    assert str(tmp_path) in said
    assert caught.value.exit_code == 2
    assert data.verify() == [said]


@pytest.mark.parametrize("task", FILES)
def test_golden_rows(task: str, tmp_path: Path) -> None:
    """Version 1 reads the same examples from the same files for ever; others need another version."""
    golden = {
        "text": "8658ead4e017952844ab4c9508ba6f82fa5f60636b3a78ed6afdc4bb299d8d7f",
        "image": "5426a6477ea39a79d2eb361e6a357f265889c95499147fabc4c888bbb02ccaf7",
        "retrieval": "7a2788992d1a81578289a4ee444a2b18d0380425cf202f16db0efad7ed6c24b6",
        "retrieval_books": "ce8fe8d8c8a3dbd51c08bb067c468c078128da722fdacc0565341b2acc208cef",
    }
    assert zoo.registry().task(task).record.version == "1"
    data = prepared(task, layouts.everything(tmp_path / "files"), tmp_path / "root")
    assert digest(data) == golden[task]


@pytest.mark.parametrize("task", FILES)
def test_the_data_directory_and_a_named_folder_give_the_same_examples(task: str, tmp_path: Path) -> None:
    layouts.everything(tmp_path / "a")
    named = prepared(task, tmp_path / "a", tmp_path / "b")
    layouts.everything(tmp_path / "c")
    found = opened(task, "", tmp_path / "c")
    found.prepare()
    assert digest(found) == digest(named)
    assert found.verify() == []
    for split in SPLITS:
        assert named.provenance()["counts"][split] == len(named.labels(split))


@pytest.mark.parametrize("task", FILES)
def test_splits_share_nothing(task: str, tmp_path: Path) -> None:
    data = prepared(task, layouts.everything(tmp_path / "files"), tmp_path / "root")
    rows = {s: {data.stored(s).row(i).tobytes() for i in range(len(data.stored(s)))} for s in SPLITS}
    assert not rows["train"] & rows["val"]
    assert not rows["train"] & rows["test"]
    assert not rows["val"] & rows["test"]


# -- text --------------------------------------------------------------------------------------------------------------


def test_text_is_bytes_plus_one(tmp_path: Path) -> None:
    place = layouts.imdb(tmp_path)
    data = prepared("text", place, tmp_path / "root")
    reviews = {p.read_bytes(): p.parts[-2] for p in place.rglob("*.txt")}
    n = 0
    for split in SPLITS:
        for i in range(len(data.labels(split))):
            inputs, label = data.dataset(split)[i]
            assert {"neg": 0, "pos": 1}[reviews[bytes_of(inputs)]] == label
            n += 1
    assert n == len(reviews) == 80
    assert data.provenance()["counts"] == {"train": 36, "val": 4, "test": 40}
    assert any("é" in str(data.view("test", i)) for i in range(40))


def test_text_from_the_archive_equals_the_folder(tmp_path: Path) -> None:
    place = layouts.imdb(tmp_path)
    packed = layouts.archive(place, "aclImdb.tar.gz")
    folder, archive = (prepared("text", p, tmp_path / "root") for p in (place, packed))
    assert digest(folder) == digest(archive)
    assert archive.provenance()["files"] == {packed.name: hashlib.sha256(packed.read_bytes()).hexdigest()}


def test_text_is_cut_and_ended(tmp_path: Path) -> None:
    place = layouts.imdb(tmp_path)
    whole = prepared("text", place, tmp_path / "root")
    cut = prepared("text", place, tmp_path / "root", seq_len=100, eos=True)
    assert cut.folder == whole.folder  # length and end token are the decoder's
    for i in range(36):
        long, short = whole.dataset("train")[i][0], cut.dataset("train")[i][0]
        assert short.tolist() == [*long[:99].tolist(), EOS]
    rows = split_stats(cut, zoo.registry().task(cut.name).record.load_kind())
    assert [r["truncated"] for r in rows] == [int((cut.lengths(s) > 100).sum()) for s in SPLITS]
    assert rows[0]["truncated"] > 10
    assert sum(rows[0]["lengths"]["counts"]) == 36
    assert "cut here" in str(cut.view("train", int(np.argmax(cut.lengths("train")))))
    batch = collate([cut.dataset("train")[i] for i in range(8)])
    assert int(batch.inputs.max()) == EOS < zoo.registry().task("text").record.vocab_size


def test_text_as_characters(tmp_path: Path) -> None:
    place = layouts.imdb(tmp_path)
    (place / "test" / "pos" / "90_9.txt").write_text("naïve \u2019 \u4e2d\U0001f3ac z", encoding="utf-8")
    data = prepared("text", place, tmp_path / "root", tokens="characters")
    found = {str(data.view("test", i)): data.dataset("test")[i][0].tolist() for i in range(41)}
    for text, ids in found.items():
        assert ids == [characters.ALPHABET.find(c) + 1 or characters.UNKNOWN for c in text]
    assert found["naïve \u2019 \u4e2d\U0001f3ac z"].count(characters.UNKNOWN) == 2
    assert [len(ids) for ids in found.values()] == data.lengths("test").tolist()
    cut = prepared("text", place, tmp_path / "root", tokens="characters", seq_len=30, eos=True)
    whole = list(found.values())[3]
    assert cut.dataset("test")[3][0].tolist() == [*whole[:29], characters.EOS]
    assert data.options.vocab_size == characters.EOS + 1 == 134
    assert len(characters.ALPHABET) == len(set(characters.ALPHABET)) == 131


def test_reviews_in_train_and_test_are_left_out_of_train(tmp_path: Path) -> None:
    place = layouts.imdb(tmp_path)
    shutil.copy(place / "test/pos/3_9.txt", place / "train/pos/70_9.txt")
    shutil.copy(place / "train/neg/3_2.txt", place / "train/neg/71_2.txt")  # twice in train: in one split, both stay
    data = prepared("text", place, tmp_path / "root")
    assert data.left_out() == ["train/pos/70_9.txt (train): the same as test/pos/3_9.txt (test)"]
    assert data.provenance()["left_out"] == 1
    assert sum(data.provenance()["counts"].values()) == 81
    kept = prepared("text", place, tmp_path / "root", duplicates="keep")
    assert kept.left_out() == []
    assert sum(kept.provenance()["counts"].values()) == 82


def _break_text(place: Path, how: str) -> str:
    review = place / "train" / "pos" / "4_9.txt"
    if how == "empty":
        review.write_bytes(b" \n")
        return r"train/pos/4_9\.txt is empty"
    if how == "utf-8":
        review.write_bytes(b"good \xff film")
        return r"train/pos/4_9\.txt:1: byte 5 is not UTF-8"
    if how == "long":
        review.write_bytes(b"a" * ((1 << 20) + 1))
        return r"4_9\.txt.* 1,048,577 bytes, expected at most"
    if how == "rating":
        review.rename(review.with_name("4_2.txt"))
        return r"train/pos/4_2\.txt: expected NUMBER_RATING\.txt with a rating of 7 to 10"
    shutil.rmtree(place / "test" / "neg")
    return "no reviews of neg in test"


@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("how", ["empty", "utf-8", "long", "rating", "class"])
def test_damaged_reviews_are_named_and_nothing_is_used(how: str, form: str, tmp_path: Path) -> None:
    place = layouts.imdb(tmp_path)
    says = _break_text(place, how)
    named = place if form == "folder" else layouts.archive(place, "imdb.tar.gz")
    data = opened("text", named, tmp_path / "root")
    with pytest.raises(zoo.DataError, match=says):
        data.prepare()
    assert not data.prepared()
    assert "not prepared" in data.verify()[0]


# -- archives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.999, 0.7, 0.2, 0.0])
@pytest.mark.parametrize("packing", ["gz", ""])
def test_truncated_archives_are_refused(share: float, packing: str, tmp_path: Path) -> None:
    place = layouts.imdb(tmp_path)
    path = tmp_path / f"imdb.tar{'.gz' if packing else ''}"
    with tarfile.open(path, f"w:{packing}") as file:
        file.add(place, place.name)
    if not packing:  # without the padding at the end, which holds nothing
        path.write_bytes(path.read_bytes().rstrip(b"\0"))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(zoo.DataError, match=rf"{path.name}: cut short"):
        prepared("text", path, tmp_path / "root")


@pytest.mark.parametrize("cut", [512 * 3, 512 * 40])
def test_archives_that_end_between_two_members_are_refused(cut: int, tmp_path: Path) -> None:
    place = layouts.imdb(tmp_path)
    path = tmp_path / "imdb.tar"
    with tarfile.open(path, "w:", format=tarfile.USTAR_FORMAT) as file:
        file.add(place, place.name)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(zoo.DataError, match=r"imdb\.tar: cut short"):
        prepared("text", path, tmp_path / "root")


@pytest.mark.parametrize("name", ["../../evil/train/pos/0_9.txt", "/etc/train/pos/0_9.txt", "link"])
def test_archives_with_members_outside_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "imdb.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        member = tarfile.TarInfo(name if name != "link" else "aclImdb/train/pos/0_9.txt")
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "../../../../etc/passwd"
            file.addfile(member)
        else:
            member.size = 4
            file.addfile(member, io.BytesIO(b"evil"))
    before = sorted(tmp_path.rglob("*"))
    wanted = [n for n, _ in _members(path)] if name.startswith("/") else None
    if wanted is None:
        with pytest.raises(zoo.DataError, match=r"imdb\.tar\.gz: not a safe archive"):
            _members(path)
    else:
        assert wanted == [name]  # the filter makes it relative; and nothing is ever written
    assert sorted(tmp_path.rglob("*")) == before


def _members(path: Path) -> list[tuple[str, bytes]]:
    return list(read_archive(path, lambda name: True, 100))


def test_a_published_name_must_have_the_published_checksum(tmp_path: Path) -> None:
    path = layouts.archive(layouts.imdb(tmp_path), "aclImdb_v1.tar.gz")
    with pytest.raises(zoo.DataError, match=r"aclImdb_v1\.tar\.gz: sha256 .*, the published file has c40f74a"):
        prepared("text", path, tmp_path / "root")
    path = layouts.archive(layouts.cifar(tmp_path), "cifar-10-binary.tar.gz")
    with pytest.raises(zoo.DataError, match=r"cifar-10-binary\.tar\.gz: sha256 .*, the published file has c4a38c5"):
        prepared("image", path, tmp_path / "root")


# -- image -------------------------------------------------------------------------------------------------------------


def test_image_reads_records_and_makes_them_grey(tmp_path: Path) -> None:
    data = prepared("image", layouts.cifar(tmp_path), tmp_path / "root")
    labels, colours = layouts.cifar_pictures(20, 5)
    grey = {
        Image.fromarray(c.reshape(3, 32, 32).transpose(1, 2, 0)).convert("L").tobytes(): label
        for c, label in zip(colours, labels.tolist(), strict=True)
    }
    pillow = prepared("image", tmp_path, tmp_path / "root", grey="pillow")
    assert pillow.folder == data.folder
    for i in range(20):
        pixels, label = pillow.dataset("test")[i]
        assert grey[pixels.astype(np.uint8).tobytes()] == label
        assert np.abs(data.dataset("test")[i][0].astype(int) - pixels).max() <= 1
    assert data.provenance()["counts"] == {"train": 90, "val": 10, "test": 20}
    small = prepared("image", tmp_path, tmp_path / "root", seq_len=256)
    assert small.folder == data.folder
    for i in range(20):
        whole = data.dataset("test")[i][0].reshape(32, 32).astype(float)
        means = (whole[::2, ::2] + whole[::2, 1::2] + whole[1::2, ::2] + whole[1::2, 1::2]) / 4
        assert np.array_equal(small.dataset("test")[i][0].reshape(16, 16), np.floor(means + 0.5))
        assert np.array_equal(small.view("test", i), small.dataset("test")[i][0].reshape(16, 16))
    values = prepared("image", tmp_path, tmp_path / "root", input="values").dataset("test")[0][0]
    expected = (data.dataset("test")[0][0] / 255 - 122.6 / 255) / (61.0 / 255)
    assert values.dtype == np.float32
    assert np.abs(values - expected).max() < 1e-5
    assert collate([data.dataset("test")[i] for i in range(4)]).mask is None  # black is no padding


def test_greys_of_known_colours() -> None:
    """By hand: 0.2989 R + 0.5870 G + 0.1140 B, times 255.5 / 255, without the fraction."""
    colours = np.array([[0, 255, 255, 0, 0, 10], [0, 255, 0, 255, 0, 200], [0, 255, 0, 0, 255, 77]], np.uint8)
    assert image.grey_tensorflow(colours).tolist() == [0, 255, 76, 149, 29, 129]
    assert image.grey_pillow(colours).tolist() == [0, 255, 76, 150, 29, 129]


def test_image_from_the_archive_equals_the_folder(tmp_path: Path) -> None:
    place = layouts.cifar(tmp_path)
    packed = layouts.archive(place, "my-binary.tar.gz")
    assert digest(prepared("image", packed, tmp_path / "root")) == digest(prepared("image", place, tmp_path / "root"))


def _write_parquet(place: Path, change: Callable[[list[dict]], None] = lambda rows: None) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="NOT RUN: CIFAR-10 as parquet; pip install 'seqzoo[parquet]'")
    from pyarrow import parquet

    place.mkdir()
    for split, seeds in (("train", range(5)), ("test", [5])):
        rows = []
        for seed in seeds:
            for label, c in zip(*layouts.cifar_pictures(20, seed), strict=True):
                file = io.BytesIO()
                Image.fromarray(c.reshape(3, 32, 32).transpose(1, 2, 0)).save(file, "png")
                rows.append({"img": {"bytes": file.getvalue(), "path": None}, "label": int(label)})
        change(rows)
        parquet.write_table(pyarrow.Table.from_pylist(rows), place / f"{split}-00000-of-00001.parquet")
    return place


def test_image_from_parquet_equals_the_binary_version(tmp_path: Path) -> None:
    theirs = prepared("image", _write_parquet(tmp_path / "cifar10"), tmp_path / "root")
    assert digest(theirs) == digest(prepared("image", layouts.cifar(tmp_path), tmp_path / "root"))


def test_pictures_of_another_size_in_parquet_are_named(tmp_path: Path) -> None:
    def change(rows: list[dict]) -> None:
        file = io.BytesIO()
        Image.new("RGB", (31, 32)).save(file, "png")
        rows[7]["img"]["bytes"] = file.getvalue()

    with pytest.raises(zoo.DataError, match=r"train-00000-of-00001\.parquet: row 7: 31x32 in mode RGB, expected 32x32"):
        prepared("image", _write_parquet(tmp_path / "cifar10", change), tmp_path / "root")


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    place = _write_parquet(tmp_path / "cifar10")
    path = place / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(zoo.DataError, match=r"test-00000-of-00001\.parquet: damaged"):
        prepared("image", place, tmp_path / "root")


def _break_cifar(place: Path, how: str) -> str:
    path = place / "data_batch_3.bin"
    contents = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(contents[:-1])
        return r"data_batch_3\.bin: 61,459 bytes are no whole number of records of 3,073"
    if how == "empty":
        path.write_bytes(b"")
        return r"data_batch_3\.bin: 0 bytes"
    if how == "label":
        contents[3073 * 7] = 10
        path.write_bytes(contents)
        return r"data_batch_3\.bin: record 7: label 10, expected 0 to 9"
    if how == "missing":
        path.unlink()
        return r"data_batch_3\.bin"
    test = place / "test_batch.bin"
    records = [test.read_bytes()[i : i + 3073] for i in range(0, test.stat().st_size, 3073)]
    test.write_bytes(b"".join(r for r in records if r[0] != 4))
    return "no pictures of deer in test"


@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("how", ["cut", "empty", "label", "missing", "class"])
def test_damaged_batches_are_named(how: str, form: str, tmp_path: Path) -> None:
    place = layouts.cifar(tmp_path)
    says = _break_cifar(place, how)
    named = place if form == "folder" else layouts.archive(place, "a-binary.tar.gz")
    data = opened("image", named, tmp_path / "root")
    with pytest.raises(zoo.DataError, match=says):
        data.prepare()
    assert not data.prepared()


# -- retrieval ---------------------------------------------------------------------------------------------------------


def test_retrieval_keeps_the_bytes_literals_and_pairs(tmp_path: Path) -> None:
    place = layouts.aan(tmp_path)
    data = prepared("retrieval", place, tmp_path / "root")
    assert data.provenance()["counts"] == {"train": 24, "val": 8, "test": 8}
    lines = (place / "new_aan_pairs.eval.tsv").read_bytes().splitlines()
    for i, line in enumerate(lines):
        label, _, _, one, two = line.split(b"\t")
        inputs, found = data.dataset("val")[i]
        assert inputs.shape == (2, max(len(one), len(two)))
        assert [bytes_of(row) for row in inputs] == [one, two]
        assert found == int(float(label))
        assert one.startswith(b"b'")
        assert b"\\n\\xc2\\xa7" in one  # escapes stay escapes
    cut = prepared("retrieval", place, tmp_path / "root", seq_len=50, eos=True)
    assert cut.dataset("val")[0][0].shape == (2, 50)
    assert cut.dataset("val")[0][0][:, -1].tolist() == [EOS, EOS]
    assert np.array_equal(pairs.text_lengths(data.stored("val")), [[len(x) for x in t.split(b"\t")[3:]] for t in lines])
    assert split_stats(cut, zoo.registry().task(cut.name).record.load_kind())[1]["truncated"] == 8
    batch = collate([data.dataset("train")[i] for i in range(5)])
    assert batch.inputs.shape[:2] == (5, 2)
    assert batch.mask is not None


def test_quotes_in_retrieval_are_text(tmp_path: Path) -> None:
    place = layouts.aan(tmp_path)
    path = place / "new_aan_pairs.test.tsv"
    path.write_bytes(b'1.0\ta\tb\tb"it\'s \\"one\\" here"\tb\'"open\'\n' + path.read_bytes())
    data = prepared("retrieval", place, tmp_path / "root")
    inputs = data.dataset("test")[0][0]
    assert [bytes_of(row) for row in inputs] == [b'b"it\'s \\"one\\" here"', b"b'\"open'"]


def test_documents_keep_their_first_10000_bytes(tmp_path: Path) -> None:
    place = layouts.aan(tmp_path)
    (place / "new_aan_pairs.eval.tsv").write_bytes(layouts.aan_line(9, 0, 4_000) + layouts.aan_line(10, 1))
    data = prepared("retrieval", place, tmp_path / "root")
    assert data.lengths("val")[0].tolist() == [retrieval.KEPT, retrieval.KEPT]
    assert data.dataset("val")[0][0].shape == (2, 4_000)


def test_pairs_in_two_splits_are_left_out_of_the_later(tmp_path: Path) -> None:
    place = layouts.aan(tmp_path)
    label, one, two, first, second = (place / "new_aan_pairs.test.tsv").read_bytes().splitlines()[2].split(b"\t")
    train = place / "new_aan_pairs.train.tsv"
    train.write_bytes(train.read_bytes() + b"\t".join([label, two, one, second, first]) + b"\n")  # the other way round
    data = prepared("retrieval", place, tmp_path / "root")
    assert data.left_out() == ["new_aan_pairs.train.tsv:25 (train): the same as new_aan_pairs.test.tsv:3 (test)"]
    assert data.provenance()["counts"]["train"] == 24


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"2.0\ta\tb\tb'x'\tb'y'", "label '2.0', expected 0.0 or 1.0"),
        (b"1.0\ta\tb\tb'x'", "4 columns"),
        (b"1.0\ta\tb", "this looks like the list of ids"),
        (b"1.0\ta\tb\tb''\tb'y'", "text1 is empty"),
        (b"1.0\ta\tb\tb'x'\tb'\xff'", "byte 1091 is not UTF-8"),
        (b"1.0\ta\tb\tb'x'\tb'" + b"y" * (1 << 24) + b"'", "a line of more than 16,777,216 bytes"),
    ],
    ids=["label", "columns", "ids", "empty", "utf-8", "long"],
)
def test_damaged_pairs_are_named(line: bytes, says: str, tmp_path: Path) -> None:
    place = layouts.aan(tmp_path)
    path = place / "new_aan_pairs.eval.tsv"
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*rows[:3], line + b"\n", *rows[3:]]))
    data = opened("retrieval", place, tmp_path / "root")
    with pytest.raises(zoo.DataError, match=rf"new_aan_pairs\.eval\.tsv:4: .*{says}"):
        data.prepare()
    assert not data.prepared()


def test_missing_empty_and_one_sided_files_of_pairs_are_named(tmp_path: Path) -> None:
    place = layouts.aan(tmp_path)
    path = place / "new_aan_pairs.eval.tsv"
    path.write_bytes(layouts.aan_line(1, 1))
    with pytest.raises(zoo.DataError, match=r"eval\.tsv: no pair with label 0"):
        prepared("retrieval", place, tmp_path / "root")
    path.write_bytes(b"")
    with pytest.raises(zoo.DataError, match=r"eval\.tsv: empty"):
        prepared("retrieval", place, tmp_path / "root")
    path.unlink()
    with pytest.raises(zoo.DataError, match=r"eval\.tsv: no such file"):
        prepared("retrieval", place, tmp_path / "root")


# -- retrieval_books ---------------------------------------------------------------------------------------------------


def test_pairs_of_passages_are_what_their_label_says(tmp_path: Path) -> None:
    place = layouts.books(tmp_path)
    data = prepared("retrieval_books", place, tmp_path / "root")
    texts = {
        split: [b" ".join(p.read_bytes().split()) for p in (place / folder).glob("*.txt")]
        for split, folder in retrieval_books.FOLDERS.items()
    }
    for split in SPLITS:
        for i in range(len(data.labels(split))):
            inputs, label = data.dataset(split)[i]
            one, two = (bytes_of(row) for row in inputs)
            assert len(one) == len(two) == 256
            assert one != two
            owners = [[k for k, text in enumerate(texts[split]) if passage in text] for passage in (one, two)]
            assert all(len(o) == 1 for o in owners)
            assert (owners[0] == owners[1]) == bool(label)
    assert 0.25 < data.labels("train").mean() < 0.75
    assert data.provenance()["books"] == {"train": 4, "val": 2, "test": 2}


def test_an_example_depends_on_its_index_alone(tmp_path: Path) -> None:
    place = layouts.books(tmp_path)
    small = prepared("retrieval_books", place, tmp_path / "root")
    large = prepared("retrieval_books", place, tmp_path / "root", train_size=90, test_size=33)
    for split in SPLITS:
        for i in range(20):
            assert np.array_equal(small.dataset(split)[i][0], large.dataset(split)[i][0])
    other = prepared("retrieval_books", place, tmp_path / "root", data_seed=1)
    assert digest(other) != digest(small)


def test_books_are_divided_anew_where_a_split_has_one(tmp_path: Path) -> None:
    data = prepared("retrieval_books", layouts.books(tmp_path, (5, 1, 1)), tmp_path / "root")
    told = data.provenance()
    assert told["books"] == {"train": 3, "val": 2, "test": 2}
    assert any("divided anew" in note for note in told["notes"])


def test_books_that_are_there_twice_or_too_short_are_left_out(tmp_path: Path) -> None:
    place = layouts.books(tmp_path)
    source = next((place / "test").glob("*.txt"))
    (place / "train" / "again.txt").write_bytes(b"\n\n" + source.read_bytes())
    (place / "train" / "leaf.txt").write_text("too short to tell")
    data = prepared("retrieval_books", place, tmp_path / "root")
    assert sorted(data.left_out()) == [
        f"train/again.txt (train): the same as test/{source.name} (test)",
        "train/leaf.txt: 17 bytes, shorter than two passages",
    ]


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (b"one\ntwo \xe9t\xe9", r"bad\.txt:2: byte 8 is not UTF-8; if it is Latin-1: iconv"),
        (b" \n ", r"bad\.txt: empty"),
    ],
)
def test_damaged_books_are_named(contents: bytes, says: str, tmp_path: Path) -> None:
    place = layouts.books(tmp_path)
    (place / "train" / "bad.txt").write_bytes(contents)
    with pytest.raises(zoo.DataError, match=says):
        prepared("retrieval_books", place, tmp_path / "root")


def test_too_few_books_are_refused(tmp_path: Path) -> None:
    with pytest.raises(zoo.DataError, match="5 books that are long enough, expected at least 6"):
        prepared("retrieval_books", layouts.books(tmp_path, (5, 0, 0)), tmp_path / "root")


# -- zoo data ----------------------------------------------------------------------------------------------------------


def call(*args: str, code: int = 0) -> list[dict]:
    result = CliRunner().invoke(app, [*args, "--json"])
    assert (result.exception is None) == (code == 0), result.exception
    return json.loads(result.stdout) if result.stdout else []


def test_from_serves_several_tasks_and_is_remembered(tmp_path: Path) -> None:
    files = layouts.everything(tmp_path / "files")
    rows = call("prepare", ",".join(FILES), "--protocol", "smoke", "--from", str(files))
    assert [row["task"] for row in rows] == list(FILES)
    assert all(row["ok"] for row in call("verify", ",".join(FILES), "--protocol", "smoke"))
    listed = {row["task"]: row for row in call("list") if row["protocol"] == "smoke"}
    assert all(listed[task]["prepared"] for task in FILES)
    assert not listed["pathx"]["prepared"]
    shown = call("sample", "retrieval", "--protocol", "smoke", "--index", "2", "-n", "2")
    assert [row["index"] for row in shown] == [2, 3]
    assert np.shape(shown[0]["inputs"]) == (2, shown[0]["length"])


def test_what_is_there_is_prepared_and_the_rest_is_named(tmp_path: Path) -> None:
    layouts.cifar(tmp_path / "files")
    result = CliRunner().invoke(
        app, ["prepare", "text,image", "--protocol", "smoke", "--from", str(tmp_path / "files")]
    )
    assert isinstance(result.exception, zoo.MissingFiles)
    assert "text: " in str(result.exception)
    assert "aclImdb_v1.tar.gz" in str(result.exception)
    assert call("verify", "image", "--protocol", "smoke")[0]["ok"]
    listed = {row["task"]: row for row in call("list") if row["protocol"] == "smoke"}
    assert listed["text"]["kind"] == "files missing"
    with pytest.raises(zoo.UserError, match="no such file or folder"):
        CliRunner().invoke(app, ["prepare", "text", "--from", str(tmp_path / "none")], catch_exceptions=False)


def test_samples_are_drawn(tmp_path: Path) -> None:
    call("prepare", "text,image", "--protocol", "smoke", "--from", str(layouts.everything(tmp_path / "files")))
    smoke = ["--protocol", "smoke"]
    text = CliRunner().invoke(app, ["sample", "text", *smoke], catch_exceptions=False).stdout
    assert text.startswith("text train 0: label ")
    assert "<br />" in text
    drawn = CliRunner().invoke(app, ["sample", "image", *smoke], catch_exceptions=False).stdout.splitlines()
    assert len(drawn) == 33
    assert max(map(len, drawn[1:])) == 64
    out = tmp_path / "pictures" / "one.png"
    CliRunner().invoke(app, ["sample", "image", *smoke, "--out", str(out)], catch_exceptions=False)
    inputs = call("sample", "image", *smoke)[0]["inputs"]
    with Image.open(out) as picture:
        assert picture.size == (32, 32)
        assert np.asarray(picture).reshape(-1).tolist() == inputs


def test_where_prepared_data_go_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))
    files = layouts.everything(tmp_path / "files")
    before = sorted(files.rglob("*"))
    for task in FILES:
        data = open_task(zoo.registry().task(task).record, "smoke", {}, files)
        data.prepare()
        assert isinstance(data, CachedData)
        assert data.folder.is_relative_to(tmp_path / "cache")
    assert sorted(files.rglob("*")) == before
