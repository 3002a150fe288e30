"""Pathfinder: the tables against Pillow, the generator against real pictures, the published format."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import zoo
from zoo.data.batch import collate_sequences as collate
from zoo.data.export import export
from zoo.data.module import SPLITS
from zoo.data.prepare import open_task
from zoo.data.rng import key, start
from zoo_lra.options import PathfinderOptions
from zoo_lra.pathfinder import GeneratedPictures, PathfinderData, PathXData, pack, unpack
from zoo_lra.pathfinder_generator import picture, pictures
from zoo_lra.pathfinder_tables import AA, LEVELS, dilate, disc, end_of, line, patch, tables

FIXTURES = Path(__file__).parent / "fixtures" / "pathfinder"
SMALL = {"train_size": 24, "val_size": 6, "test_size": 6}
REAL = [(64, i) for i in range(4)] + [(128, i) for i in range(4)]


def real(resolution: int, i: int) -> tuple[np.ndarray, dict]:
    folder = FIXTURES / f"pathfinder{resolution}" / "curv_contour_length_14"
    chain = json.loads((folder / "decoded_chains.json").read_text())[i]
    return np.asarray(Image.open(folder / "imgs" / "0" / f"sample_{i}.png")).astype(int), chain


@pytest.mark.parametrize("resolution", LEVELS)
def test_dashes_are_those_of_pillow(resolution: int) -> None:
    level = LEVELS[resolution]
    for margin in level.margins:
        reach = level.length + math.ceil(level.thickness) + margin
        big, small = 2 * reach * AA + 1, 2 * reach + 1
        for end in sorted({end_of(math.radians(d), reach, level.length) for d in range(-180, 180)}):
            canvas = Image.new("F", (big, big), 0)
            centre, width = reach * AA, round(level.thickness * AA)
            ImageDraw.Draw(canvas).line([(centre, centre), (centre + end[1], centre + end[0])], fill=255, width=width)
            drawn = np.asarray(canvas) > 0
            assert np.array_equal(drawn, line(big, *end, width))
            lit, mask = patch(level, margin, end)
            expected = np.asarray(canvas.resize((small, small), Image.Resampling.LANCZOS)) / 255
            assert np.abs(lit - expected).max() < 1e-6
            wide = Image.fromarray((dilate(drawn, disc(margin * AA)) * 255).astype(np.uint8))
            assert np.array_equal(mask, np.asarray(wide.resize((small, small), Image.Resampling.LANCZOS)))


@pytest.mark.parametrize(("resolution", "i"), REAL)
def test_real_contours_obey_the_rules(resolution: int, i: int) -> None:
    """Some seed direction that the generator can draw leads through all 14 real heads by allowed turns; the dashes
    drawn at those heads are never brighter than the picture, and nearly all pixels agree."""
    pixels, chain = real(resolution, i)
    t, heads = tables(LEVELS[resolution]), np.array(chain["heads"])
    k = LEVELS[resolution].margins.index(chain["margin"])
    found = [r for r in (follow(t, k, seed, heads) for seed in range(360)) if r is not None]
    assert found
    peak, brightest = real_markers(t, chain), t.lines[k].max()
    y, x = np.mgrid[:resolution, :resolution]
    clear = np.ones((resolution, resolution), bool)
    for cy, cx in (chain["origin"], chain["terminal_marker"]):  # a disc lies over the dashes there
        clear &= np.hypot(y - cy, x - cx) > t.marker_radius + 3
    best = max(agreement(t, k, patches, heads, pixels, clear, peak, brightest) for patches in found)
    assert best > 0.8


def follow(t, k: int, seed: int, heads: np.ndarray) -> list[int] | None:  # type: ignore[no-untyped-def]
    if t.n_kernel[k, seed] < 0:
        return None
    pivot = np.ceil(np.ceil(heads[0] + t.seed_head[seed]) + t.seed_pivot[k, seed])
    direction, patches = seed, [int(t.seed_patch[k, seed])]
    for head in heads[1:]:
        pivot = np.ceil(pivot + t.jump[k, direction])
        turn = np.flatnonzero((t.turns[k, : t.n_turns[k]] == head - pivot).all(1))
        if not len(turn) or t.weights[k, direction, turn[0]] <= 0:
            return None
        direction = 360 + turn[0]
        patches.append(int(t.turn_patch[k, turn[0]]))
    return patches


def real_markers(t, chain: dict) -> float:  # type: ignore[no-untyped-def]
    """The overshoot of a disc: what 255 stands for."""
    from zoo_lra.pathfinder_generator import _mark

    canvas = np.zeros((t.resolution, t.resolution))
    _mark(canvas, t, *chain["origin"])
    _mark(canvas, t, *chain["terminal_marker"])
    return float(canvas.max())


def agreement(t, k, patches, heads, pixels, clear, peak, brightest) -> float:  # type: ignore[no-untyped-def]
    half = t.lines.shape[2] // 2
    padded, equal, total = np.pad(pixels, half), 0, 0
    for number, (y, x) in zip(patches, heads, strict=True):
        expected = np.floor(255 * np.maximum(t.lines[k, number], 0) / brightest / peak + 1e-9).astype(int)
        seen = padded[y : y + 2 * half + 1, x : x + 2 * half + 1]
        inside = np.pad(clear, half)[y : y + 2 * half + 1, x : x + 2 * half + 1]
        where = inside & (expected > 20)
        if (seen[where] < expected[where] - 1).any():
            return 0.0
        equal += int((seen[where] <= expected[where] + 1).sum())
        total += int(where.sum())
    return equal / total


@pytest.mark.parametrize("resolution", LEVELS)
def test_labels_say_whether_the_discs_share_a_contour(resolution: int) -> None:
    level = LEVELS[resolution]
    t, targets = tables(level), 2 * level.target_dashes
    stream, out = np.empty(1, np.uint64), np.empty((resolution, resolution), np.uint8)
    log = np.empty((targets + level.distractor_dashes * level.distractors, 3), np.int64)
    labels = []
    for i in range(30):
        start(stream, key("labels"), i)
        label, k, dashes, origin, terminal = picture(stream, t, out, log)
        assert label == (origin % 2 == terminal % 2)
        assert origin in (0, 1)
        assert terminal in (targets - 2, targets - 1)
        assert (dashes - targets) % level.distractor_dashes == 0
        for row in (origin, terminal):  # a bright disc is there
            y, x = log[row, 1:]
            assert out[y, x] > 180
        for s in range(2):  # no turn is sharper than continuity allows, no jump longer than a dash and its margins
            heads = log[s + 2 : targets : 2, 1:]
            steps = np.hypot(*np.diff(heads, axis=0).T)
            assert steps.max() <= level.length + 2 * level.margins[k] + 3
        assert out.max() == 255
        assert out.min() == 0
        labels.append(label)
    assert 5 < sum(labels) < 25


@pytest.mark.parametrize(
    ("resolution", "over_20", "spread"), [(32, 169.97, 20.5), (64, 575.46, 59.7), (128, 1347.87, 117.0)]
)
def test_brightness_matches_the_original_generator(resolution: int, over_20: float, spread: float) -> None:
    images, labels, _ = pictures(key("statistics"), 0, 120, LEVELS[resolution])
    mean = (images > 20).sum((1, 2)).mean()
    # the reference means come from 2000, 140 and 200 pictures of the original code
    n = {32: 2000, 64: 140, 128: 200}[resolution]
    assert abs(mean - over_20) < 4 * spread * math.sqrt(1 / 120 + 1 / n)
    assert 0.3 < labels.mean() < 0.7


GOLDEN = {
    16: "c88ff8b378a91de6d5b63097d59b73f6e5c70aa606e0a845e6774eed5b6e59f3",
    32: "dc2d73e65b6420052c5a0d05f28e2612581c55ae2f8da66561e2e223dd3ffb18",
    64: "436af57bd39456e2fd7bfee125c5bec1f2f2cdc3b164bbcdf39c3c0cf2ea269e",
    128: "68209873e5e25136fe8de7a0b8c5d37b458a70cfdde258d0003593ee78d4c7f9",
}


@pytest.mark.parametrize("resolution", LEVELS)
def test_golden_pictures(resolution: int) -> None:
    """Version 1 gives these bytes for ever; other bytes need another version."""
    images, labels, margins = pictures(key("golden"), 0, 10, LEVELS[resolution])
    digest = hashlib.sha256(images.tobytes() + labels.tobytes() + margins.tobytes()).hexdigest()
    assert digest == GOLDEN[resolution]


GOLDEN_ROWS = {
    "pathfinder": "e0a718610319927bbc56972c04014c01964206c54faa3a7d4e3635acae417de8",
    "pathx": "c3c03618db604d0e0947f4da91fc782427434ca82b9a6684bd842a5ff14089f2",
}


@pytest.mark.parametrize("name", GOLDEN_ROWS)
def test_golden_rows_of_the_tasks(name: str, tmp_path: Path) -> None:
    """Version 1 of the tasks as everybody runs them: the first pictures and labels of every split."""
    task = zoo.registry().task(name).record
    assert task.version == "1"
    sizes = {"task.train_size": 3, "task.val_size": 2, "task.test_size": 2}
    data = open_task(task, "paper", sizes, tmp_path)
    data.prepare()
    total = hashlib.sha256()
    for split in SPLITS:
        for i in range(2):
            inputs, label = data.dataset(split)[i]
            assert inputs.shape == (task.length,)
            total.update(inputs.tobytes() + bytes([label]))
    assert total.hexdigest() == GOLDEN_ROWS[name]


def test_a_picture_depends_on_its_index_alone() -> None:
    recipe = GeneratedPictures(PathfinderOptions(), LEVELS[32])
    together, alone = recipe.draw("val", 0, 9), recipe.draw("val", 8, 1)
    assert np.array_equal(together.data[-together.lengths[-1] :], alone.data)


def test_packing_is_lossless() -> None:
    images = pictures(key("pack"), 0, 5, LEVELS[64])[0].reshape(5, -1)
    data, lengths = pack(images)
    for row, image in zip(np.split(data, np.cumsum(lengths)[:-1]), images, strict=True):
        assert np.array_equal(unpack(row, 64 * 64), image)


def test_black_is_no_padding(tmp_path: Path) -> None:
    data = PathfinderData(PathfinderOptions(**SMALL), tmp_path)
    data.prepare()
    batch = collate([data.dataset("train")[i] for i in range(4)])
    assert batch.mask is None
    assert batch.inputs.shape == (4, 1024)
    assert int(batch.inputs.min()) == 0
    assert int(batch.inputs.max()) == 255
    values = PathfinderData(PathfinderOptions(input="values", **SMALL), tmp_path)
    assert values.folder == data.folder
    real_valued = collate([values.dataset("train")[i] for i in range(4)])
    assert real_valued.inputs.dtype.is_floating_point
    assert (real_valued.inputs * 255).round().long().equal(batch.inputs)


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_published_pictures(tmp_path: Path, resolution: int) -> None:
    folder = FIXTURES / f"pathfinder{resolution}"
    options = PathfinderOptions(path=str(folder), seq_len=resolution**2)
    data = PathXData(options, tmp_path)
    data.prepare()
    told = data.provenance()
    assert told["kind"] == "part"
    assert sum(told["counts"].values()) == (12 if resolution == 32 else 4)
    assert min(told["counts"].values()) > 0
    lines = (folder / "curv_contour_length_14" / "metadata" / "0.npy").read_text().splitlines()
    labels = {}
    for fields in map(str.split, lines):
        image = Image.open(folder / "curv_contour_length_14" / fields[0] / fields[1])
        labels[np.asarray(image).tobytes()] = int(fields[3])
    loaded = [data.dataset(split)[i] for split in SPLITS for i in range(len(data.stored(split)))]
    assert {inputs.tobytes(): label for inputs, label in loaded} == labels


def copy_of_32(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "pathfinder32" / "curv_contour_length_14", tmp_path / "published"))


def open_32(folder: Path, tmp_path: Path) -> PathfinderData:
    return PathfinderData(PathfinderOptions(path=str(folder)), tmp_path / "root")


def test_empty_pictures_are_skipped_and_counted(tmp_path: Path) -> None:
    folder = copy_of_32(tmp_path)
    (folder / "imgs/0/sample_3.png").write_bytes(b"")
    data = open_32(folder, tmp_path)
    data.prepare()
    assert data.provenance()["skipped"] == 1
    assert sum(data.provenance()["counts"].values()) == 11


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    folder = copy_of_32(tmp_path)
    path = folder / "imgs/0/sample_3.png"
    whole = path.read_bytes()

    def complaint() -> str:
        with pytest.raises(zoo.DataError) as caught:
            open_32(folder, tmp_path).prepare()
        assert "sample_3.png" in str(caught.value)
        return str(caught.value)

    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in complaint()
    Image.open(FIXTURES / "pathfinder64/curv_contour_length_14/imgs/0/sample_0.png").save(path)
    assert "64x64" in complaint()
    Image.new("RGB", (32, 32)).save(path)
    assert "mode RGB" in complaint()
    path.unlink()
    assert "not there" in complaint()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"imgs/0 sample_0.png 0 1\n", "0.npy:1: 4 fields, expected 11"),
        (b"imgs/0 sample_0.png 0 7 1.0 14 4 2 0.5 1 1\n", "0.npy:1: label '7'"),
        (b"\x93NUMPY\x01\x00", "0.npy: a binary array"),
    ],
)
def test_damaged_metadata_are_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    folder = copy_of_32(tmp_path)
    (folder / "metadata/0.npy").write_bytes(content)
    with pytest.raises(zoo.DataError, match=complaint):
        open_32(folder, tmp_path).prepare()


def test_export_reads_back_as_published(tmp_path: Path) -> None:
    ours = PathfinderData(PathfinderOptions(**SMALL), tmp_path / "root")
    ours.prepare()
    export(ours, tmp_path / "out")
    lines = (tmp_path / "out/metadata/0.npy").read_text().splitlines()
    assert len(lines) == 36
    assert lines[5].split()[:3] == ["imgs/0", "sample_5.png", "5"]
    assert lines[5].split()[4:] == ["1.0", "14", "4", "2", "0.5", "1", "1"]
    theirs = open_32(tmp_path / "out", tmp_path)
    theirs.prepare()

    def everything(data: PathfinderData) -> set[tuple[bytes, int]]:
        return {
            (data.dataset(s)[i][0].tobytes(), data.dataset(s)[i][1]) for s in SPLITS for i in range(len(data.stored(s)))
        }

    assert everything(ours) == everything(theirs)
    assert len(everything(ours)) == 36


def test_sizes_do_not_change_the_test_split(tmp_path: Path) -> None:
    few = PathfinderData(PathfinderOptions(train_size=3, val_size=2, test_size=4), tmp_path)
    many = PathfinderData(PathfinderOptions(train_size=9, val_size=3, test_size=6), tmp_path)
    few.prepare()
    many.prepare()
    assert np.array_equal(few.dataset("test")[3][0], many.dataset("test")[3][0])


def test_bad_options() -> None:
    pathfinder = zoo.registry().task("pathfinder").record
    with pytest.raises(zoo.ConfigError, match=r"task\.seq_len: expected 0 \| 256 \| 1024 \| 4096 \| 16384, got 1000"):
        pathfinder.check(PathfinderOptions(seq_len=1000))
    with pytest.raises(zoo.ConfigError, match=r"task\.input: expected tokens \| values, got 'floats'"):
        pathfinder.check(PathfinderOptions(input="floats"))


def test_the_other_difficulties_are_read_and_not_made_up(tmp_path: Path) -> None:
    easy = tmp_path / "lra_release" / "pathfinder32" / "curv_baseline"
    shutil.copytree(FIXTURES / "pathfinder32" / "curv_contour_length_14", easy)
    data = PathfinderData(PathfinderOptions(difficulty="curv_baseline", source="published"), tmp_path)
    assert data.find_published() == easy
    with pytest.raises(zoo.MissingFiles, match="pathfinder32/curv_contour_length_9"):
        PathfinderData(PathfinderOptions(difficulty="curv_contour_length_9", source="published"), tmp_path).prepare()
    assert (
        PathfinderData(PathfinderOptions(difficulty="curv_baseline", train_size=3), tmp_path).find_published() == easy
    )
    own = PathfinderOptions(difficulty="curv_baseline", target_dashes=4, train_size=3)
    assert PathfinderData(own, tmp_path).find_published() is None
    with pytest.raises(zoo.ConfigError, match="nobody published pictures of 16x16 pixels or with other contours"):
        PathfinderOptions(seq_len=256, source="published").check()
    with pytest.raises(zoo.ConfigError, match="distractor_dashes: expected at most 6 dashes in 16x16 pixels, got 7"):
        PathfinderOptions(seq_len=256, distractor_dashes=7).check()


@pytest.mark.parametrize(
    ("difficulty", "targets", "distractor"), [("curv_baseline", 6, 2), ("curv_contour_length_9", 9, 3)]
)
def test_the_other_difficulties_are_drawn_where_they_are_not_there(
    difficulty: str, targets: int, distractor: int, tmp_path: Path
) -> None:
    data = PathfinderData(PathfinderOptions(difficulty=difficulty, train_size=40, val_size=1, test_size=1), tmp_path)
    hard = PathfinderData(PathfinderOptions(train_size=40, val_size=1, test_size=1), tmp_path)
    data.prepare()
    hard.prepare()
    assert (data.level.target_dashes, data.level.distractor_dashes, data.level.distractors) == (targets, distractor, 10)
    assert data.provenance()["level"]["target_dashes"] == targets
    assert "level" not in hard.provenance()
    lit, lit_hard = (sum(int((d.view("train", i) > 20).sum()) for i in range(40)) for d in (data, hard))
    assert lit < 0.8 * lit_hard


@pytest.mark.parametrize("options", [{}, {"target_dashes": 6, "distractor_dashes": 6, "distractors": 0}])
def test_small_pictures(options: dict, tmp_path: Path) -> None:
    data = PathfinderData(PathfinderOptions(seq_len=256, train_size=20, val_size=1, test_size=1, **options), tmp_path)
    data.prepare()
    inputs, _ = data.dataset("train")[0]
    assert inputs.shape == (256,)
    assert data.view("train", 0).shape == (16, 16)
