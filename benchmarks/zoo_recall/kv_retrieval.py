"""kv_retrieval: tell the value of one key among many; does it matter where the pair stands? Liu et al. 2023 ("Lost in
the middle", arXiv 2307.03172).

form=text     bytes of the published prompt with UUIDs (texts.py), id = byte + 1; test and length_generalization are
              those of the published files when `path` names them. The queried pair is moved to every tested position
form=symbols  the same with keys and values of a few characters, so that it can be learnt in minutes
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo import DataError
from zoo.data.cache import sha256
from zoo.data.module import Split
from zoo.data.paths import remembered
from zoo.data.progress import notice
from zoo.data.questions import Continuation
from zoo.data.rng import start
from zoo_recall import draw, kv_files
from zoo_recall.generated import Asked, Group, Law, RecallData, shares
from zoo_recall.needle import decoded, encoded
from zoo_recall.options import KvRetrievalOptions
from zoo_recall.texts import KV_AFTER, KV_BEFORE, KV_BETWEEN, KV_PAIR


class KvRetrieval(Law):
    """In train and val the pair is at a random position, else at each tested one among the same others."""

    name = "kv_retrieval"
    golden = "ccc4fa6fcb745d631d17ced6b063dfcaa60e878a1a9c6889891940bd25aa0123"
    golden_settings = ({}, {"form": "symbols", "generalization_pairs": [100]})
    options: KvRetrievalOptions
    files: dict[int, Path]

    def __init__(self, options: KvRetrievalOptions, files: dict[int, Path] | None = None) -> None:
        super().__init__(options)
        self.files = files or {}

    def groups(self, split: Split) -> list[Group]:
        o = self.options
        pairs = {"test": o.test_pairs, "length_generalization": o.generalization_pairs}.get(split, o.train_pairs)
        if split in ("train", "val"):
            counts = shares(self.size(split), [1] * len(pairs))
            whats = [{"length": o.length(n), "pairs": n} for n in pairs]
            return [Group(what, count, {"position": -1}) for what, count in zip(whats, counts, strict=True)]
        found = []
        for n in pairs:
            if self.files and n not in self.files:
                continue  # said in the provenance
            count = self.size(split)
            if n in self.files:
                count = min(count, len(kv_files.read(self.files[n], n)))
            for position in sorted({(n - 1) * i // (o.positions - 1) for i in range(o.positions)}):
                what = {"length": o.length(n), "pairs": n, "position": position}
                found.append(Group(what, count, {"position": position}))
        return found

    def draw(self, split: Split, group: Group, index: int) -> Continuation:
        o, n, position = self.options, group.what["pairs"], group.draw["position"]
        if n in self.files and split in ("test", "length_generalization"):
            record = kv_files.read(self.files[n], n)[index]
            return prompt_of(list(record.others), record.asked, position)
        family = self.family(split, n)  # the same other pairs at every position
        if o.form == "text":
            return self._text(family, index, n, position)
        ids = np.empty(o.length(n) - o.value_len - 1, np.int64)
        answer = np.empty(o.value_len, np.int64)
        draw.key_values(family, index, position, n, o.alphabet, o.key_len, o.value_len, ids, answer)
        return Continuation(ids, answer)

    def _text(self, family: np.uint64, index: int, pairs: int, position: int) -> Continuation:
        stream = np.empty(1, np.uint64)
        start(stream, family, index)
        at_random, drawn = np.empty(1, np.int64), np.empty((2 * pairs, 32), np.uint8)
        draw.symbols(stream, pairs, at_random)
        draw.symbols(stream, 16, drawn.reshape(-1))
        drawn[:, 12], drawn[:, 16] = 4, 8 + drawn[:, 16] % 4  # version 4, variant 1 of RFC 9562
        digits = HEX[drawn].tobytes().decode()
        words = [_uuid(digits[at : at + 32]) for at in range(0, len(digits), 32)]
        listed = list(zip(words[::2], words[1::2], strict=True))
        return prompt_of(listed[1:], listed[0], position if position >= 0 else int(at_random[0]))

    def solve(self, question: Asked) -> np.ndarray:
        o, prompt = self.options, question[0]
        if o.form == "text":
            words = decoded(prompt).split('"')
            return encoded(words[words.index(words[-2]) + 2])
        ids = prompt.tolist()
        width = o.key_len + o.value_len + 2
        keys = [ids[at : at + o.key_len] for at in range(0, len(ids) - o.key_len - 2, width)]
        at = keys.index(ids[-1 - o.key_len : -1]) * width + o.key_len + 1
        return prompt[at : at + o.value_len]

    def told(self, question: Asked) -> str:
        if self.options.form == "text":
            return f"{decoded(question[0])}[{decoded(question[1])}]"
        signs = [*"0123456789abcdefghijklmnopqrstuvwxyz"][: self.options.alphabet]
        signs += [f"({i})" for i in range(len(signs), self.options.alphabet)]
        words = ["", *signs, ":", ", ", "? "]
        return "".join(words[token] for token in question[0]) + f"[{''.join(words[token] for token in question[1])}]"


HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def prompt_of(others: list[tuple[str, str]], asked: tuple[str, str], position: int) -> Continuation:
    """The published prompt with the pair that is asked for at `position`, 0 = first, of the pairs."""
    listed = [*others[:position], asked, *others[position:]]
    pairs = KV_BETWEEN.join(KV_PAIR.format(key=key, value=value) for key, value in listed)
    return Continuation(encoded(KV_BEFORE + pairs + KV_AFTER.format(key=asked[0])), encoded(asked[1]))


class KvRetrievalData(RecallData):
    """Data of the task `kv_retrieval`."""

    law_of = KvRetrieval
    options: KvRetrievalOptions

    @cached_property
    def law(self) -> KvRetrieval:
        """With the user's files, if there are any. Raises MissingFiles when those of test are not there."""
        o = self.options
        if o.form != "text":
            return KvRetrieval(o)
        place = Path(o.path).expanduser().absolute() if o.path else remembered(self.root, "kv_retrieval")
        if place is None:
            return KvRetrieval(o)
        return KvRetrieval(o, kv_files.find(place, o.test_pairs, o.generalization_pairs))

    def prepare(self) -> None:
        """Read the user's files, if there are any; nothing is stored. Raises DataError that names file and line."""
        if self.options.path and self.options.form != "text":
            notice("kv_retrieval: task.form=symbols is generated; the published files are used with task.form=text")
        for pairs, path in self.law.files.items():
            kv_files.read(path, pairs)
        for note in self.provenance().get("notes", ()):
            notice(f"kv_retrieval: {note}")

    def provenance(self) -> dict[str, Any]:
        told = super().provenance()
        if not self.law.files:
            return told
        files = self.law.files
        notes = [
            f"{path.name} has {len(kv_files.read(path, n))} questions, the published one {kv_files.ROWS}"
            for n, path in files.items()
            if len(kv_files.read(path, n)) != kv_files.ROWS
        ]
        absent = [n for n in self.options.generalization_pairs if n not in files]
        notes += [f"no {kv_files.NAME.format(pairs=n)}: {n} pairs are not asked for" for n in absent]
        sums = {path.name: sha256(path) for path in files.values()}
        return {**told, "kind": "published", "files": sums, "notes": notes}

    def verify(self) -> list[str]:
        for pairs, path in self.law.files.items():
            try:
                kv_files.read(path, pairs)
            except DataError as error:
                return [str(error)]
        return super().verify()

    def majority(self) -> float | None:
        """Of guessing among the values that the question holds: one of `pairs`."""
        groups = self.law.groups("test")
        return sum(group.count / group.what["pairs"] for group in groups) / sum(group.count for group in groups)
