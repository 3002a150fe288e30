"""needle: find the line that matters, at any depth of a haystack of any length (Kamradt 2023).

form=text     the texts of RULER (Hsieh et al. 2024, arXiv 2404.06654), see texts.py, in bytes or a tokenizer's tokens;
              id = byte + 1. As many lines of hay as fit, so that a sequence is up to a line shorter than its length
form=symbols  the same in a small language that can be learnt in minutes: straws, keys, digits, "magic", "is", "what"

The depth is the share of the hay before the needle; at depth 1 it stands right before the question.
"""

from __future__ import annotations

import numpy as np

from zoo.data.module import Split
from zoo.data.questions import Continuation
from zoo.data.rng import below, start, uniform
from zoo.data.splits import apportion
from zoo_recall import draw
from zoo_recall.generated import Generator, Group, RecallData, RecallQuestion
from zoo_recall.text_options import NeedleOptions
from zoo_recall.texts import ADJECTIVES, AFTER, BEFORE, HAY, NEEDLE, NOUNS


class Needle(Generator):
    """Random depths in train and val; in the other splits every length has all depths of the grid in one haystack."""

    name = "needle"
    golden = "a1e27dcfdcf56c9715090e51f4ef57fca305cd06d0e1b6446756dcc0c45aba37"
    golden_options = ({}, {"distractors": 3}, {"form": "symbols", "seq_len": 128, "distractors": 1})
    options: NeedleOptions

    def groups(self, split: Split) -> list[Group]:
        o = self.options
        trained = o.train_lengths or [o.seq_len]
        if split in ("train", "val"):
            counts = apportion(self.size(split), [1] * len(trained))
            return [Group({"length": n}, count, {"depth": -1.0}) for n, count in zip(trained, counts, strict=True)]
        lengths = (
            (o.test_lengths or trained)
            if split == "test"
            else [o.seq_len * times for times in o.generalization_factors]
        )
        grid = [i / (o.depths - 1) for i in range(o.depths)]
        return [
            Group({"length": n, "depth": round(d, 4)}, self.size(split), {"depth": d}) for n in lengths for d in grid
        ]

    def draw(self, split: Split, group: Group, index: int) -> Continuation:
        o, length, depth = self.options, group.attributes["length"], group.settings["depth"]
        family = self.family(split, length)  # the same haystack and needles at every depth
        if o.form == "text":
            return self._text(family, index, length, depth)
        ids, answer = np.empty(length - o.digits - 1, np.int64), np.empty(o.digits, np.int64)
        draw.needle(family, index, o.hay, o.keys, o.digits, o.distractors, depth, ids, answer)
        return Continuation(ids, answer)

    def _text(self, family: np.uint64, index: int, length: int, depth: float) -> Continuation:
        o = self.options
        needles, wording = 1 + o.distractors, self.wording
        stream = np.empty(1, np.uint64)
        start(stream, family, index)
        # numbers from 10^(n-1) on, as RULER draws them
        low = 10 ** (o.digits - 1)
        values = [str(low + below(stream, 9 * low)) for _ in range(needles)]
        keys = draw.choose(stream, len(ADJECTIVES) * len(NOUNS), needles).tolist()
        names = [f"{ADJECTIVES[k // len(NOUNS)]}-{NOUNS[k % len(NOUNS)]}" for k in keys]
        sentences = [NEEDLE.format(key=name, value=value) for name, value in zip(names, values, strict=True)]
        after = AFTER.format(key=names[0])
        shares = [uniform(stream) for _ in range(needles)]
        fixed = wording.count(BEFORE + "\n".join(sentences) + after + values[0])
        lines = (length - 1 - fixed) // wording.count(HAY + "\n")
        while True:
            places = [int(share * (lines + 1)) for share in shares]
            if depth >= 0:
                places[0] = int(lines * depth)
            text: list[str] = []
            for line in range(lines + 1):
                text += [sentences[k] for k in range(needles - 1, -1, -1) if places[k] == line]
                if line < lines:
                    text.append(HAY)
            question = wording.ask(BEFORE + "\n".join(text) + after, values[0])
            if len(question.prompt) + len(question.answer) < length or not lines:
                return question
            lines -= 1  # tokens of a whole text may be more than those of its parts

    def solve(self, question: RecallQuestion) -> np.ndarray:
        o, prompt = self.options, question[0]
        if o.form == "text":
            text = self.wording.decode(prompt)
            queried = text[text.rindex("magic number for ") :].split()[3]
            value = text[text.index(f"numbers for {queried} is: ") :].split()[4].rstrip(".")
            return self.wording.ask(text, value).answer
        ids = prompt.tolist()
        magic = o.hay + o.keys + 11
        (at,) = (i for i in range(len(ids)) if ids[i] == magic and ids[i + 1] == ids[-2])
        return prompt[at + 3 : at + 3 + o.digits]

    def to_text(self, question: RecallQuestion) -> str:
        o = self.options
        prompt, answer = question[:2]
        if o.form == "text":
            return f"{self.wording.decode(prompt)}[{self.wording.decode(answer)}]"
        words = ["", *["."] * o.hay, *(f" key{k}" for k in range(o.keys)), *(f" {d}" for d in range(10))]
        words += [" magic", " is", " what"]
        return "".join(words[token] for token in prompt) + f" [{''.join(words[token] for token in answer).strip()}]"


class NeedleData(RecallData):
    """Data of the task `needle`."""

    generator_class = Needle
