"""Pathfinder (32x32) and Path-X (128x128): do the two discs lie on the ends of one contour? 2 classes.

Pixels row by row, as ids 0 … 255 or as numbers in [0, 1]; black is 0 and there is no padding. A prepared picture is a
bitmap of its non-black pixels followed by their values, a third of its plain size.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from zoo import DataError
from zoo.data.files import check_regular_file, decode_utf8, read_file
from zoo.data.module import SPLITS, Split
from zoo.data.parallel import map_ranges
from zoo.data.rng import key
from zoo.data.splits import HOLD_OUT_ORDER, published_kind
from zoo.data.store import Chunk, Rows
from zoo_lra.options import RESOLUTIONS, PathfinderOptions
from zoo_lra.pathfinder_generator import VERSION, pictures
from zoo_lra.pathfinder_tables import LEVELS, Level
from zoo_lra.published import GeneratedOrFilesData

CHUNK = 64
FIELDS = 11
PLACE, NAME = re.compile(r"imgs/\d+"), re.compile(r"sample_\d+\.png")
METADATA_LIMIT, PICTURE_LIMIT = 1 << 26, 1 << 20
BATCH = 1_000
"""Pictures in one folder of an export, as in the release."""


def pack(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pack images (n, P) uint8; return the bytes of all, and the number of bytes of each (n,)."""
    bitmaps = np.packbits(images > 0, axis=1)
    parts = [part for image, bitmap in zip(images, bitmaps, strict=True) for part in (bitmap, image[image > 0])]
    return np.concatenate(parts), bitmaps.shape[1] + (images > 0).sum(1)


def unpack(row: np.ndarray, pixels: int) -> np.ndarray:
    """Unpack one picture: (pixels,) uint8."""
    image = np.zeros(pixels, np.uint8)
    image[np.unpackbits(row[: pixels // 8]).view(bool)] = row[pixels // 8 :]
    return image


@dataclass(frozen=True)
class Decoder:
    """Bytes of a picture -> ids (R*R,) uint8, or values (R*R,) float32 in [0, 1]."""

    pixels: int
    values: bool

    def __call__(self, row: np.ndarray) -> np.ndarray:
        image = unpack(row, self.pixels)
        return image.astype(np.float32) / np.float32(255) if self.values else image


@dataclass
class GeneratedPictures:
    """Pictures from the generator. Implements zoo.data.store.Recipe."""

    options: PathfinderOptions
    level: Level

    def counts(self) -> Mapping[Split, int]:
        return {split: getattr(self.options, f"{split}_size") for split in HOLD_OUT_ORDER}

    def provenance(self) -> dict[str, Any]:
        seed, level = self.options.data_seed, self.level
        provenance = {"kind": "regenerated", "version": VERSION, "seed": seed, "resolution": level.resolution}
        return provenance if level == LEVELS[level.resolution] else provenance | {"level": level._asdict()}

    def draw(self, split: Split, first: int, count: int) -> Chunk:
        """Return the pictures [first, first + count) of a split."""
        family = key("lra/pathfinder", VERSION, self.options.data_seed, split, self.level.resolution)
        images, labels, margins = pictures(family, first, count, self.level)
        return Chunk(*pack(images.reshape(count, -1)), labels, margins)

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        yield from map_ranges(partial(self.draw, split), start, self.counts()[split], CHUNK)


class Entry(NamedTuple):
    """One picture of the release."""

    path: Path
    label: int
    margin: int
    where: str


class PublishedPictures:
    """Published imgs/<b>/sample_<i>.png with metadata/<b>.npy (text). Implements zoo.data.store.Recipe.

    The release has no split. Ours: pictures in the order of sha256("<b>/sample_<i>.png"), the first 80 % train, the
    next 10 % val, the rest test.
    """

    version = "1"
    """Raised when the same files would give other examples."""

    def __init__(self, options: PathfinderOptions, folder: Path, resolution: int) -> None:
        self.folder, self.resolution = folder, resolution
        self.metadata = metadata_files(folder)
        entries = [entry for path in self.metadata for entry in _read_entries(folder, path)]
        _check_unique(entries)
        pictures = [entry for entry in entries if _size(entry.path)]
        self.total, self.empty = len(entries), len(entries) - len(pictures)
        if len(pictures) < 3:
            raise DataError(f"{folder}: {len(pictures)} pictures, too few for three splits")
        for label in (0, 1):
            if not any(entry.label == label for entry in pictures):
                raise DataError(f"{folder}: no picture with label {label}")
        pictures.sort(key=lambda e: sha256(f"{e.path.parent.name}/{e.path.name}".encode()).digest())
        tenth = max(1, len(pictures) // 10)
        splits = {"train": pictures[: -2 * tenth], "val": pictures[-2 * tenth : -tenth], "test": pictures[-tenth:]}
        self.splits = {split: splits[split][: getattr(options, f"{split}_size")] for split in SPLITS}

    def counts(self) -> Mapping[Split, int]:
        return {split: len(entries) for split, entries in self.splits.items()}

    def provenance(self) -> dict[str, Any]:
        notes = [f"{self.total:,} pictures, the published set has 200,000"] if self.total != 200_000 else []
        if self.empty:
            notes.append(f"{self.empty:,} empty picture files skipped")
        metadata = sha256()
        for path in self.metadata:
            metadata.update(path.read_bytes())
        files = {"metadata": metadata.hexdigest()}
        kind = published_kind({"all": self.total}, {"all": 200_000})
        origin = {"kind": kind, "version": self.version, "resolution": self.resolution, "files": files}
        return origin | {"skipped": self.empty, "split": "sha256 order, 80/10/10", "notes": notes}

    def read(self, split: Split, first: int, count: int) -> Chunk:
        """Return the pictures [first, first + count) of a split."""
        entries = self.splits[split][first : first + count]
        images = np.stack([_read_pixels(entry.path, self.resolution) for entry in entries])
        labels, margins = np.array([e.label for e in entries]), np.array([e.margin for e in entries])
        return Chunk(*pack(images), labels, margins)

    def produce(self, split: Split, start: int, rows: Rows) -> Iterator[Chunk]:
        seen = {  # of the splits before this one; within a split a picture may be there twice
            _digest(row): self.splits[other][i].path
            for other in self.splits
            if other != split
            for i, row in enumerate(rows(other))
        }
        first = start
        for chunk in map_ranges(partial(self.read, split), start, len(self.splits[split]), CHUNK):
            for i, row in enumerate(np.split(chunk.data, np.cumsum(chunk.lengths)[:-1])):
                other = seen.get(_digest(row))
                if other is not None:
                    path = self.splits[split][first + i].path
                    raise DataError(f"{path} ({split}): the same picture as {other}, which is in another split")
            first += len(chunk.lengths)
            yield chunk


def _digest(row: np.ndarray) -> bytes:
    return blake2b(row.tobytes(), digest_size=16).digest()


def metadata_files(folder: Path) -> list[Path]:
    """Return metadata/<b>.npy in the order of the number b."""
    files = list((folder / "metadata").glob("*.npy"))
    for path in files:
        if not path.stem.isdecimal():
            raise DataError(f"{path}: expected a file named after its batch number")
    return sorted(files, key=lambda path: int(path.stem))


def _read_entries(folder: Path, path: Path) -> Iterator[Entry]:
    content = read_file(path, METADATA_LIMIT)
    if content.startswith(b"\x93NUMPY"):
        raise DataError(f"{path}: a binary array; the release has text here, one line a picture")
    lines = decode_utf8(content, path).splitlines()
    if not lines:
        raise DataError(f"{path}: empty")
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if len(fields) != FIELDS:
            raise DataError(f"{path}:{number}: {len(fields)} fields, expected {FIELDS}")
        if not (PLACE.fullmatch(fields[0]) and NAME.fullmatch(fields[1])):
            named = f"{fields[0]} {fields[1]}"
            raise DataError(f"{path}:{number}: {named!r}, expected imgs/NUMBER sample_NUMBER.png")
        if fields[3] not in ("0", "1"):
            raise DataError(f"{path}:{number}: label {fields[3]!r}, expected 0 or 1")
        try:
            margin = int(float(fields[9]))
        except ValueError:
            raise DataError(f"{path}:{number}: paddle margin {fields[9]!r}, expected a number") from None
        yield Entry(folder / fields[0] / fields[1], int(fields[3]), margin, f"{path}:{number}")


def _check_unique(entries: list[Entry]) -> None:
    """Raise DataError where two lines of the metadata name one picture."""
    first: dict[Path, str] = {}
    for entry in entries:
        if entry.path in first:
            raise DataError(f"{entry.where}: the same picture as in {first[entry.path]}")
        first[entry.path] = entry.where


def _size(path: Path) -> int:
    if not path.exists():
        raise DataError(f"{path}: named in the metadata, but not there")
    return check_regular_file(path, PICTURE_LIMIT).stat().st_size


def _read_pixels(path: Path, resolution: int) -> np.ndarray:
    """Read a picture as (R*R,) uint8."""
    try:
        with Image.open(io.BytesIO(read_file(path, PICTURE_LIMIT))) as image:
            # before it is unpacked: what is small in a file may be huge
            if image.mode != "L" or image.size != (resolution, resolution):
                size = "x".join(map(str, image.size))
                raise DataError(f"{path}: {size} in mode {image.mode}, expected {resolution}x{resolution} in mode L")
            image.load()
            return np.asarray(image, np.uint8).reshape(-1)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error})") from error


class PathfinderData(GeneratedOrFilesData):
    """Data of the task `pathfinder`."""

    name, version, reader = "pathfinder", VERSION, PublishedPictures.version
    pixels = 1024
    options: PathfinderOptions

    @property
    def resolution(self) -> int:
        """Side of a picture."""
        return RESOLUTIONS[self.options.seq_len or self.pixels]

    @property
    def level(self) -> Level:
        """What is drawn."""
        (target, distractor), n, level = self.options.dashes, self.options.distractors, LEVELS[self.resolution]
        level = level._replace(target_dashes=target, distractor_dashes=distractor)
        return level if n is None else level._replace(distractors=n)

    @property
    def prefix(self) -> str:
        return f"{self.resolution}x{self.resolution}-"

    def find_published(self) -> Path | None:
        r, level = self.resolution, self.options.difficulty
        return self.find(
            (level, f"pathfinder{r}/{level}", f"pathfinder/pathfinder{r}/{level}"),
            lambda folder: (folder / "imgs").is_dir() and (folder / "metadata").is_dir(),
            f"imgs/ and metadata/ of pathfinder{r}/{level}",
        )

    def input_files(self, folder: Path) -> Iterable[Path]:
        return [*metadata_files(folder), *sorted((folder / "imgs").iterdir())]

    def generator(self) -> GeneratedPictures:
        return GeneratedPictures(self.options, self.level)

    def published(self, folder: Path) -> PublishedPictures:
        return PublishedPictures(self.options, folder, self.resolution)

    def decoder(self) -> Decoder:
        return Decoder(self.resolution**2, self.options.input == "values")

    def view(self, split: Split, i: int) -> np.ndarray:
        return unpack(self.stored(split).row(i), self.resolution**2).reshape(self.resolution, self.resolution)

    def write_published(self, folder: Path, counts: Mapping[Split, int]) -> list[str]:
        level, r = self.level, self.resolution
        (folder / "metadata").mkdir()
        order = [(split, i) for split, count in counts.items() for i in range(count)]
        stored = {split: self.stored(split) for split in counts}
        for batch in range(0, len(order), BATCH):
            b = batch // BATCH
            images = folder / "imgs" / str(b)
            images.mkdir(parents=True)
            lines = []
            for i, (split, row) in enumerate(order[batch : batch + BATCH]):
                pixels = unpack(stored[split].row(row), r * r).reshape(r, r)
                Image.fromarray(pixels).save(images / f"sample_{i}.png")
                lines.append(
                    f"imgs/{b} sample_{i}.png {i} {stored[split].labels[row]} {level.continuity} {level.target_dashes}"
                    f" {level.distractor_dashes} {level.length} {level.thickness:g} {stored[split].notes[row]} 1\n"
                )
            (folder / "metadata" / f"{b}.npy").write_text("".join(lines), encoding="utf-8", newline="\n")
        return ["imgs", "metadata"]


class PathXData(PathfinderData):
    """Data of the task `pathx`."""

    name = "pathx"
    pixels = 16_384
