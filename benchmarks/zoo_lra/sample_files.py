"""Small made-up files in the published layouts (`Task.sample_files`), with which the tasks are tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.data.samples import random_sentence


def write_imdb(folder: Path, each: int = 20) -> Path:
    """Write aclImdb with `each` reviews per split and class, the longest of about 400 bytes."""
    seed = 0
    for split in ("train", "test"):
        for name, rating in (("neg", 2), ("pos", 9)):
            place = folder / "aclImdb" / split / name
            place.mkdir(parents=True)
            for i in range(each):
                seed += 1
                words, phrase = random_sentence(seed, 5 + 4 * (i % 18)), "déjà vu" if name == "neg" else "très bien"
                (place / f"{i}_{rating}.txt").write_text(f"{words} <br /> {phrase} {seed}", encoding="utf-8")
    return folder / "aclImdb"


def cifar_pictures(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and random colours (n, 3072), uint8."""
    rng = np.random.RandomState(seed)
    return np.arange(n, dtype=np.uint8) % 10, rng.randint(0, 256, (n, 3072)).astype(np.uint8)


def write_cifar(folder: Path, each: int = 20) -> Path:
    """Write cifar-10-batches-bin with `each` records per file."""
    place = folder / "cifar-10-batches-bin"
    place.mkdir(parents=True)
    for seed, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        labels, colours = cifar_pictures(each, seed)
        (place / name).write_bytes(np.concatenate([labels[:, None], colours], axis=1).tobytes())
    return place


def aan_line(seed: int, label: int, words: int = 30) -> bytes:
    """One line of new_aan_pairs.*.tsv, the texts as Python bytes literals."""
    first, second = (f"{random_sentence(2 * seed + k, words + 3 * k)}\n§ {seed}".encode() for k in (0, 1))
    return f"{float(label)}\tP{seed}-1\tP{seed}-2\t{first!r}\t{second!r}\n".encode()


def write_aan(folder: Path, train: int = 24, other: int = 8) -> Path:
    """Write tsv_data with new_aan_pairs.{train,eval,test}.tsv."""
    place = folder / "tsv_data"
    place.mkdir(parents=True)
    for k, (name, n) in enumerate((("train", train), ("eval", other), ("test", other))):
        lines = [aan_line(1_000 * (k + 1) + i, i % 2) for i in range(n)]
        (place / f"new_aan_pairs.{name}.tsv").write_bytes(b"".join(lines))
    return place


def write_books(folder: Path, counts: tuple[int, int, int] = (4, 2, 2), words: int = 600) -> Path:
    """Write pg19 with `counts` books of a few kilobytes in train, validation and test."""
    seed = 50_000
    for name, n in zip(("train", "validation", "test"), counts, strict=True):
        (folder / "pg19" / name).mkdir(parents=True)
        for _ in range(n):
            seed += 1
            text = random_sentence(seed, words).replace(" the ", "\n\n   the ")
            (folder / "pg19" / name / f"{seed}.txt").write_text(text, encoding="utf-8")
    return folder / "pg19"
