"""kv_retrieval: recall the value of one key among many; does it matter where the pair stands? Liu et al. 2023 ("Lost in
the middle", arXiv 2307.03172).

form=text     the published prompt with UUIDs (texts.py), in bytes or a tokenizer's tokens, id = byte + 1; test and
              length_generalization are those of the published files when `path` names them. The queried pair is moved
              to every tested position
form=symbols  the same with keys and values of a few characters, so that it can be learnt in minutes
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo import DataError
from zoo.data.files import sha256
from zoo.data.module import Split
from zoo.data.paths import saved_location, user_path
from zoo.data.progress import notice
from zoo.data.questions import Continuation
from zoo.data.rng import start
from zoo.data.splits import apportion, published_kind
from zoo_recall import draw, kv_files
from zoo_recall.generated import Generator, Group, RecallData, RecallQuestion
from zoo_recall.text_options import KvRetrievalOptions
from zoo_recall.texts import KV_AFTER, KV_BEFORE, KV_BETWEEN, KV_PAIR
from zoo_recall.wording import Wording


class KvRetrieval(Generator):
    """The queried pair is at a random position in train and val, else at each tested one among the same others."""

    name = "kv_retrieval"
    golden = "ccc4fa6fcb745d631d17ced6b063dfcaa60e878a1a9c6889891940bd25aa0123"
    golden_options = ({}, {"form": "symbols", "generalization_pairs": [100]})
    options: KvRetrievalOptions
    files: dict[int, Path]

    def __init__(self, options: KvRetrievalOptions, files: dict[int, Path] | None = None) -> None:
        super().__init__(options)
        self.files = files or {}

    def groups(self, split: Split) -> list[Group]:
        o = self.options
        pairs = {"test": o.test_pairs, "length_generalization": o.generalization_pairs}.get(split, o.train_pairs)
        if split in ("train", "val"):
            counts = apportion(self.size(split), [1] * len(pairs))
            sizes = zip(pairs, counts, strict=True)
            return [Group({"length": o.length(n), "pairs": n}, count, {"position": -1}) for n, count in sizes]
        groups = []
        for n in pairs:
            if self.files and n not in self.files:
                continue  # a note of the provenance
            count = self.size(split)
            if n in self.files:
                count = min(count, len(kv_files.read_records(self.files[n], n)))
            for position in sorted({(n - 1) * i // (o.positions - 1) for i in range(o.positions)}):
                attributes = {"length": o.length(n), "pairs": n, "position": position}
                groups.append(Group(attributes, count, {"position": position}))
        return groups

    def draw(self, split: Split, group: Group, index: int) -> Continuation:
        o, n, position = self.options, group.attributes["pairs"], group.settings["position"]
        if n in self.files and split in ("test", "length_generalization"):
            record = kv_files.read_records(self.files[n], n)[index]
            return build_prompt(self.wording, list(record.others), record.queried, position)
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
        return build_prompt(self.wording, listed[1:], listed[0], position if position >= 0 else int(at_random[0]))

    def solve(self, question: RecallQuestion) -> np.ndarray:
        o, prompt = self.options, question[0]
        if o.form == "text":
            text = self.wording.decode(prompt)
            words = text.split('"')
            return self.wording.ask(text, words[words.index(words[-2]) + 2]).answer
        ids = prompt.tolist()
        width = o.key_len + o.value_len + 2
        keys = [ids[at : at + o.key_len] for at in range(0, len(ids) - o.key_len - 2, width)]
        at = keys.index(ids[-1 - o.key_len : -1]) * width + o.key_len + 1
        return prompt[at : at + o.value_len]

    def to_text(self, question: RecallQuestion) -> str:
        if self.options.form == "text":
            return f"{self.wording.decode(question[0])}[{self.wording.decode(question[1])}]"
        signs = [*"0123456789abcdefghijklmnopqrstuvwxyz"][: self.options.alphabet]
        signs += [f"({i})" for i in range(len(signs), self.options.alphabet)]
        words = ["", *signs, ":", ", ", "? "]
        return "".join(words[token] for token in question[0]) + f"[{''.join(words[token] for token in question[1])}]"


HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def build_prompt(
    wording: Wording, others: list[tuple[str, str]], queried: tuple[str, str], position: int
) -> Continuation:
    """Return the published prompt with the queried pair at `position`, 0 = first, of the pairs."""
    listed = [*others[:position], queried, *others[position:]]
    pairs = KV_BETWEEN.join(KV_PAIR.format(key=key, value=value) for key, value in listed)
    return wording.ask(KV_BEFORE + pairs + KV_AFTER.format(key=queried[0]), queried[1])


class KvRetrievalData(RecallData):
    """Data of the task `kv_retrieval`."""

    generator_class = KvRetrieval
    options: KvRetrievalOptions

    @cached_property
    def generator(self) -> KvRetrieval:
        """With the user's files, if there are any. Raises MissingFiles when those of test are not there."""
        o = self.options
        if o.form != "text":
            return KvRetrieval(o)
        place = user_path(o.path) if o.path else saved_location(self.root, "kv_retrieval")
        if place is None:
            return KvRetrieval(o)
        return KvRetrieval(o, kv_files.find_files(place, o.test_pairs, o.generalization_pairs))

    def prepare(self) -> None:
        """Read the user's files, if there are any; nothing is stored. Raises DataError that names file and line."""
        if self.options.path and self.options.form != "text":
            notice("kv_retrieval: task.form=symbols is generated; the published files are used with task.form=text")
        for pairs, path in self.generator.files.items():
            kv_files.read_records(path, pairs)
        for note in self.provenance().get("notes", ()):
            notice(f"kv_retrieval: {note}")

    def provenance(self) -> dict[str, Any]:
        provenance, files = super().provenance(), self.generator.files
        if not files:
            return provenance
        sizes = {path.name: len(kv_files.read_records(path, n)) for n, path in files.items()}
        notes = [
            f"{name} has {size} questions, the published one {kv_files.ROWS}"
            for name, size in sizes.items()
            if size != kv_files.ROWS
        ]
        absent = [n for n in self.options.generalization_pairs if n not in files]
        notes += [f"no {kv_files.NAME.format(pairs=n)}: no questions with {n} pairs" for n in absent]
        sums = {path.name: sha256(path) for path in files.values()}
        kind = published_kind(sizes, dict.fromkeys(sizes, kv_files.ROWS))
        return {**provenance, "kind": kind, "files": sums, "notes": notes}

    def verify(self) -> list[str]:
        for pairs, path in self.generator.files.items():
            try:
                kv_files.read_records(path, pairs)
            except DataError as error:
                return [str(error)]
        return super().verify()

    def majority(self) -> float | None:
        """Accuracy of guessing among the values that the question holds: one of `pairs`."""
        groups = self.generator.groups("test")
        return sum(group.count / group.attributes["pairs"] for group in groups) / sum(group.count for group in groups)
