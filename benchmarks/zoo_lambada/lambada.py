"""LAMBADA: a model of running text is asked for the last word of a passage.

It trains on a corpus (see zoo.data.streams) and is chosen by its loss on held-out text of that corpus; the passages
choose nothing. A passage is read as a document's beginning is in training: behind the end symbol, as a tokeniser with a
begin symbol has it under lm-evaluation-harness. Of end symbol, context and word the model is given the last seq_len
tokens but the word's last (the harness's rule for passages that are longer than the model). accuracy: every token of
the word is the most likely one; perplexity: exp of the mean over passages of the word's nats.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from zoo import DataError, MissingFiles
from zoo.data.cache import Recipe, Stored, build, faults, manifest
from zoo.data.cached import slug
from zoo.data.finding import stamp
from zoo.data.module import Example, Split, Totals, perplexity
from zoo.data.paths import cache_dir
from zoo.data.progress import progress
from zoo.data.questions import Continuation, Question
from zoo.data.streams import LanguageData, document_order
from zoo.data.tokens import dtype_of
from zoo_lambada import needs
from zoo_lambada.options import LambadaOptions
from zoo_lambada.passages import ARCHIVES, READER, Passages


class Asked(Dataset[Question]):
    """The passages as questions.

    room  tokens that the model has for end symbol and context
    """

    def __init__(self, stored: Stored, size: int, n: int, room: int, last: int, end: int) -> None:
        self.stored, self.dtype, self.n, self.room, self.last, self.end = stored, dtype_of(size), n, room, last, end

    def __len__(self) -> int:
        return self.n

    def whole(self, i: int) -> Continuation:
        """Passage i before anything is cut."""
        if not 0 <= i < self.n:
            raise IndexError(f"passage {i} of {self.n}")
        ids = self.stored.row(i).view(self.dtype).astype(np.int64) + 1
        answer = int(self.stored.labels[i])
        return Continuation(np.append(self.end, ids[:-answer]), ids[-answer:])

    def __getitem__(self, i: int) -> Continuation:
        prompt, answer, _ = self.whole(i)
        # causal_lm reads the answer, too, but for its last token
        return Continuation(prompt[-(self.room - self.last * (len(answer) - 1)) :], answer)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of end symbol and context, and of what causal_lm reads of the word, before anything is cut, (n,)."""
        ends = np.asarray(self.stored.ends, np.int64) // self.dtype.itemsize
        answers = np.asarray(self.stored.labels, np.int64)
        return (np.diff(ends, prepend=0) + 1 - (1 if self.last else answers))[: self.n]


class LambadaData(LanguageData):
    """Data of both forms."""

    options: LambadaOptions
    corpus_elsewhere = True
    places: tuple[str, ...] = ()

    # -- files -----------------------------------------------------------------------------------------------------

    def passages_path(self) -> Path:
        """The user's file of test passages. Raises MissingFiles."""
        found = self._search(self.places, self._is_it)
        if found is None:
            where = f"{self.options.path}: no {self.places[0]} there; bring" if self.options.path else "bring"
            raise MissingFiles(
                f"{self.name} cannot be generated: {where} {self.needs}; put it in {self.root}, or name its folder"
                f" with zoo data prepare {self.name} --from DIR"
            )
        return found

    def _is_it(self, place: Path) -> bool:
        raise NotImplementedError

    @property
    def passages_folder(self) -> Path:
        """Where the prepared passages are, or will be."""
        path, tokens = self.passages_path(), self.tokens
        what = {"reader": READER, "place": str(path.resolve()), "file": stamp([path]), "tokenizer": tokens.digest}
        return cache_dir(self.root) / "language" / self.name / slug(f"{Path(tokens.name).stem}-{READER}", what)

    def folder_name(self) -> str:
        self.passages_path()  # both are missing, or neither
        return super().folder_name()

    def prepared(self) -> bool:
        try:
            return super().prepared() and self.passages_folder.exists()
        except MissingFiles:
            return False

    def prepare(self) -> None:
        folder = self.passages_folder
        if folder.exists():
            self._refuse(faults(folder, thorough=True))
        else:
            recipe: Recipe = Passages(self.passages_path(), self.tokens)
            with progress(f"preparing {self.name}") as update:
                build(folder, recipe, update)
        super().prepare()

    def discard(self) -> None:
        super().discard()
        shutil.rmtree(self.passages_folder, ignore_errors=True)

    def verify(self) -> list[str]:
        wrong = super().verify()
        try:
            folder = self.passages_folder
        except MissingFiles:
            return wrong
        return wrong + (faults(folder, thorough=True) if folder.exists() else [f"{folder}: not prepared"])

    def provenance(self) -> dict[str, Any]:
        told, passages = super().provenance(), manifest(self.passages_folder)["provenance"]
        return told | {
            "files": {**passages["files"], **told["files"]},
            "notes": [*passages["notes"], *told["notes"]],
        }

    # -- examples --------------------------------------------------------------------------------------------------

    def asked(self) -> Asked:
        """The test passages under the objective."""
        self._refuse_unprepared()
        options, objective = self.options, self.loading.objective
        stored = Stored(self.passages_folder, "test")
        if objective == "infilling":
            longest = int(np.asarray(stored.labels).max())
            if longest >= options.slots:
                raise DataError(
                    f"{self.name}: a last word of {longest} tokens and its end symbol need task.slots"
                    f" {longest + 1}, which is {options.slots}"
                )
        n = min(options.test_size or len(stored), len(stored))
        room = options.seq_len - (options.slots if objective == "infilling" else 0)
        reads_answer = objective not in ("infilling", "seq2seq")
        return Asked(stored, self.tokens.size, n, room, reads_answer, self.specials.end)

    def dataset(self, split: Split) -> Dataset[Example]:
        if split == "test":
            return self.asked()
        if self.loading.objective in ("infilling", "seq2seq"):
            return self.words(split)
        return self.pieces(split)

    def eval_order(self, split: Split, limit: int | None) -> Any:
        data = self.dataset(split)
        if split == "test" or self.loading.objective in ("infilling", "seq2seq"):
            return super().eval_order(split, limit)
        limits = [n for n in (limit, self.options.val_size) if n]
        return document_order(data.counts.tolist(), self.loading.eval_batch_size, min(limits, default=None))  # type: ignore[attr-defined]

    def score(self, split: Split, totals: Totals) -> dict[str, float]:
        if split != "test":
            words = self.loading.objective in ("infilling", "seq2seq")
            return {"accuracy": totals.whole / totals.questions if words else totals.hits / totals.answers}
        n, nats = totals.questions, totals.nats / totals.questions
        spread = max(totals.squares / n - nats * nats, 0.0)
        return {
            "accuracy": totals.whole / n,
            "perplexity": perplexity(nats),
            "stderr": math.sqrt(spread / max(n - 1, 1)),
        }

    # -- for a person ----------------------------------------------------------------------------------------------

    def majority(self) -> float:
        """Accuracy of the one word that is right most often, whatever the passage: no constant answer does better."""
        asked = self.asked()
        words = Counter(asked.whole(i).answer.tobytes() for i in range(len(asked)))
        return max(words.values()) / len(asked)

    def lengths(self, split: Split) -> np.ndarray | None:
        if split != "test":
            return super().lengths(split)
        return self.asked().lengths + (self.options.slots if self.loading.objective == "infilling" else 0)

    def view(self, split: Split, i: int) -> str:
        if split != "test":
            return super().view(split, i)
        asked = self.asked()
        whole, shown = asked.whole(i), asked[i]
        cut = len(whole.prompt) - len(shown.prompt)
        lost = f"{self.spell(whole.prompt[:cut])} ‖cut here‖ " if cut else ""
        return f"{lost}{self.spell(whole.prompt[cut:])}‖{self.spell(whole.answer)}"


class OpenAIData(LambadaData):
    """Data of the task `lambada_openai`."""

    name, needs = "lambada_openai", needs.OPENAI
    places = ("lambada/lambada_test.jsonl", "lambada_test.jsonl", "lambada_openai/lambada_test.jsonl")

    def _is_it(self, place: Path) -> bool:
        return place.is_file() and place.suffix == ".jsonl"


class StandardData(LambadaData):
    """Data of the task `lambada_standard`."""

    name, needs = "lambada_standard", needs.STANDARD
    places = tuple(
        f"{folder}{file}"
        for file in ("lambada_test_plain_text.txt", "lambada-dataset.tar.gz")
        for folder in ("lambada/", "", "lambada-dataset/")
    )

    def _is_it(self, place: Path) -> bool:
        return place.is_file() and (place.name.endswith(ARCHIVES) or place.suffix == ".txt")
