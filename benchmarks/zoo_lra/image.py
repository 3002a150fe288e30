"""Image: CIFAR-10 in grey, pixel after pixel; 10 classes.

Pixels row by row, as ids 0 … 255 (0 is black, there is no padding) or as numbers. Read from the binary version, in its
archive or unpacked, or from parquet; never from pickles. The published set has no validation split: ours is a tenth of
train. A prepared picture is its 3,072 colour bytes, so that the way to grey is a setting.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from zoo import DataError
from zoo.data.files import check_sha256, may_hold, read_archive, read_file
from zoo.data.module import Split
from zoo.data.store import Chunk
from zoo_lra import parquet
from zoo_lra.needs import CIFAR_ARCHIVE, IMAGE
from zoo_lra.options import ImageOptions
from zoo_lra.published import Example, FilesData, HoldOutRecipe, join_rows

ARCHIVE = CIFAR_ARCHIVE.name
CHECKSUMS = {ARCHIVE: CIFAR_ARCHIVE.sha256}
BATCHES = {**{f"data_batch_{i}.bin": "train" for i in range(1, 6)}, "test_batch.bin": "test"}
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE, COLOURS = 32, 3 * 32 * 32
RECORD = 1 + COLOURS
LIMIT = 20_000 * RECORD
MEAN, STD = np.float32(122.6 / 255), np.float32(61.0 / 255)
"""Of the grey training pictures in [0, 1], as the S4 code has them."""


def grey_tensorflow(colours: np.ndarray) -> np.ndarray:
    """tf.image.rgb_to_grayscale of Long Range Arena: float32 in [0, 1], weighted, and cut to 8 bits.

    colours (3, P) uint8 -> (P,) uint8
    """
    r, g, b = colours.astype(np.float32) * np.float32(1 / 255)
    grey = r * np.float32(0.2989) + g * np.float32(0.5870) + b * np.float32(0.1140)
    return (grey * np.float32(255.5)).astype(np.uint8)


def grey_pillow(colours: np.ndarray) -> np.ndarray:
    """Pillow's convert("L"), ITU-R 601-2 in 16 bits, rounded: colours (3, P) uint8 -> (P,) uint8"""
    r, g, b = colours.astype(np.uint32)
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).astype(np.uint8)


GREYS = {"tensorflow": grey_tensorflow, "pillow": grey_pillow}


@dataclass(frozen=True)
class Decoder:
    """Colour bytes of a picture -> ids (seq_len,) uint8, or values (seq_len,) float32."""

    grey: str
    values: bool
    seq_len: int = SIDE * SIDE

    def pixels(self, row: np.ndarray) -> np.ndarray:
        """The grey picture (seq_len,) uint8, each pixel the rounded mean of those that it covers."""
        side = math.isqrt(self.seq_len)
        blocks = GREYS[self.grey](row.reshape(3, -1)).reshape(side, SIDE // side, side, SIDE // side)
        n = (SIDE // side) ** 2
        return ((blocks.sum((1, 3), dtype=np.uint32) + n // 2) // n).astype(np.uint8).reshape(-1)

    def __call__(self, row: np.ndarray) -> np.ndarray:
        pixels = self.pixels(row)
        return (pixels.astype(np.float32) / np.float32(255) - MEAN) / STD if self.values else pixels


class Pictures(HoldOutRecipe):
    """The pictures of an archive, a folder of the binary version or a folder of parquet files."""

    noun = "pictures"
    published: Mapping[str, int] = {"train": 50_000, "test": 10_000}
    classes = NAMES

    def __init__(self, options: ImageOptions, place: Path) -> None:
        if place.is_file():
            examples, files = _read_archive(place), {place.name: check_sha256(place, CHECKSUMS)}
        else:
            paths = parquet.find_splits(place) if list(place.glob("*.parquet")) else _batch_files(place)
            read = _read_parquet if paths[0][1].suffix == ".parquet" else _read_batches
            examples, files = read(paths), {path.name: check_sha256(path, {}) for _, path in paths}
        super().__init__(options, place, examples, files)

    def chunk(self, examples: list[Example]) -> Chunk:
        return join_rows([e.contents for e in examples], [e.label for e in examples])


Picture = tuple[str, Example]
"""(train or test, picture); its contents are 3,072 bytes: the red plane, the green, the blue."""


def _picture(file: str, i: int, label: int, colours: bytes) -> Example:
    return Example(f"{file} picture {i}", sha256(colours).digest(), label, colours)


def _batch_files(place: Path) -> list[tuple[str, Path]]:
    """(train or test, file) of the binary version. Raises DataError when one is missing."""
    for name in BATCHES:
        if not (place / name).is_file():
            raise DataError(f"{place / name}: no such file; the binary version has {', '.join(BATCHES)}")
    return [(part, place / name) for name, part in BATCHES.items()]


def _read_batches(paths: list[tuple[str, Path]]) -> Iterator[Picture]:
    for part, path in paths:
        yield from _read_records(part, str(path), read_file(path, LIMIT))


def _read_archive(place: Path) -> Iterator[Picture]:
    seen = set()
    for member, contents in read_archive(place, lambda name: name.rpartition("/")[2] in BATCHES, LIMIT):
        name = member.rpartition("/")[2]
        if name in seen:  # in two folders
            raise DataError(f"{place}: {name} is in the archive twice")
        seen.add(name)
        yield from _read_records(BATCHES[name], f"{place.name}:{name}", contents)
    missing = [name for name in BATCHES if name not in seen]
    if missing:
        raise DataError(f"{place}: no {', '.join(missing)} in the archive")


def _read_records(part: str, file: str, contents: bytes) -> Iterator[Picture]:
    n, rest = divmod(len(contents), RECORD)
    if rest or not n:
        raise DataError(f"{file}: {len(contents):,} bytes are no whole number of records of {RECORD:,}; cut short?")
    for i in range(n):
        label = contents[i * RECORD]
        if label >= len(NAMES):
            raise DataError(f"{file}: record {i}: label {label}, expected 0 to 9")
        yield part, _picture(Path(file).name, i, label, contents[i * RECORD + 1 : (i + 1) * RECORD])


def _read_parquet(paths: list[tuple[str, Path]]) -> Iterator[Picture]:
    for part, path in paths:
        for i, cell, label in parquet.read_rows(path, ("img", "image"), len(NAMES), "the binary version"):
            yield part, _picture(path.name, i, label, _colour_planes(f"{path}: row {i}", cell))


def _colour_planes(where: str, cell: Any) -> bytes:
    """A PNG in a parquet cell -> 3,072 bytes."""
    if not isinstance(cell, dict) or not isinstance(cell.get("bytes"), bytes):
        raise DataError(f"{where}: no picture")
    try:
        with Image.open(io.BytesIO(cell["bytes"])) as image:
            # before it is unpacked: what is small in a file may be huge
            if image.mode != "RGB" or image.size != (SIDE, SIDE):
                size = "x".join(map(str, image.size))
                raise DataError(f"{where}: {size} in mode {image.mode}, expected 32x32 in mode RGB")
            image.load()
            return np.asarray(image, np.uint8).transpose(2, 0, 1).tobytes()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{where}: damaged picture ({error})") from error


class ImageData(FilesData):
    """Data of the task `image`."""

    name, reader = "image", Pictures.version
    names = (
        *("cifar-10-batches-bin", ARCHIVE, f"cifar-10-batches-bin/{ARCHIVE}"),
        *("cifar10", "cifar10/plain_text", "cifar-10", "cifar-10/plain_text", "plain_text"),
    )
    layout = "data_batch_{1..5}.bin and test_batch.bin, cifar-10-binary.tar.gz or {train,test}*.parquet"
    needs = IMAGE
    options: ImageOptions

    def accepts(self, place: Path) -> bool:
        if place.is_file():
            return may_hold(place, "binary", lambda name: name.rpartition("/")[2] in BATCHES)
        return any((place / name).is_file() for name in BATCHES) or parquet.is_dataset(place, "cifar")

    def input_files(self, place: Path) -> Iterable[Path]:
        return [p for p in sorted(place.iterdir()) if p.suffix in (".bin", ".parquet")] if place.is_dir() else [place]

    def recipe(self) -> Pictures:
        return Pictures(self.options, self.place())

    def decoder(self) -> Decoder:
        return Decoder(self.options.grey, self.options.input == "values", self.options.seq_len)

    def write_published(self, folder: Path, counts: Mapping[Split, int]) -> list[str]:
        """Write cifar-10-batches-bin: five batches of train, to which val belongs there, and one of test."""
        order: dict[str, list[tuple[Split, int]]] = {"test": [("test", i) for i in range(counts["test"])]}
        order["train"] = [("val", i) for i in range(counts["val"])] + [("train", i) for i in range(counts["train"])]
        stored = {split: self.stored(split) for split in counts}
        for number, (name, part) in enumerate(BATCHES.items()):
            examples = order["test"] if part == "test" else order["train"][number::5]
            with (folder / name).open("wb") as file:
                for split, i in examples:
                    file.write(bytes([stored[split].labels[i]]) + stored[split].row(i).tobytes())
        (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n", encoding="ascii")
        return [*BATCHES, "batches.meta.txt"]

    def view(self, split: Split, i: int) -> np.ndarray:
        side = math.isqrt(self.options.seq_len)
        return self.decoder().pixels(self.stored(split).row(i)).reshape(side, side)
