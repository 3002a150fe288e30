"""Small made-up files in the published layouts (`Task.sample_files`), with which the tasks are tested."""

from __future__ import annotations

import json
from pathlib import Path

from zoo.data.samples import random_sentence


def write_wikitext(folder: Path, counts: tuple[int, int, int] = (6, 2, 3), name: str = "wikitext-2") -> Path:
    """Write a WikiText folder with `counts` articles of a kilobyte or two in train, valid and test."""
    place = folder / name
    place.mkdir(parents=True)
    seed = 70_000
    for split, n in zip(("train", "valid", "test"), counts, strict=True):
        lines = []
        for _ in range(n):
            seed += 1
            body = f" {random_sentence(seed, 150)} @-@ {random_sentence(seed + 500, 90)} . \n"
            lines += [" \n", f" = Article {seed} = \n", " \n", body]
            lines += [" \n", " = = Part = = \n", " \n", f" {random_sentence(seed + 900, 60)} <unk> \n"]
        (place / f"wiki.{split}.tokens").write_text("".join(lines), encoding="utf-8")
    return place


def write_passages(folder: Path, n: int = 40) -> Path:
    """Write lambada with both forms of n passages; some last words have an opening quote."""
    place = folder / "lambada"
    place.mkdir(parents=True)
    texts = [
        f"{random_sentence(90_000 + i, 40 + i)}, said Ana" if i % 2 else f'{random_sentence(i, 30)} "rain'
        for i in range(n)
    ]
    lines = [json.dumps({"text": text}) for text in texts]
    (place / "lambada_test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plain = [text.replace(",", " ,").replace('"', "`` ").lower() for text in texts]
    (place / "lambada_test_plain_text.txt").write_text("\n".join(plain) + "\n", encoding="utf-8")
    return place


def write_lambada(folder: Path) -> None:
    """Write passages and the corpus that models train on."""
    write_passages(folder)
    write_wikitext(folder)
