"""LAMBADA: the last word of a passage, predicted by a model of running text.

It trains on a corpus (see zoo.data.language) and is chosen by its loss on held-out text of that corpus; the passages
choose nothing. A passage is read as a document's beginning is in training: behind the end symbol, as a tokeniser with a
begin symbol has it under lm-evaluation-harness. Of end symbol, context and word the model is given the last seq_len
tokens but the word's last (the harness's rule for passages that are longer than the model). accuracy: every token of
the word is the most likely one; perplexity: exp of the mean over passages of the word's nats.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from zoo import DataError, MissingFiles
from zoo.data import store
from zoo.data.cached import hashed_name
from zoo.data.files import file_stamps
from zoo.data.language import LanguageData
from zoo.data.module import Dataset, Split, Totals, perplexity
from zoo.data.paths import advice_for_file, cache_dir
from zoo.data.progress import progress
from zoo.data.questions import Continuation
from zoo.data.store import StoredSplit
from zoo.data.streams import document_order
from zoo.data.tokens import dtype_of
from zoo_lambada import needs
from zoo_lambada.needs import OPENAI, STANDARD, STANDARD_TEXT
from zoo_lambada.options import LambadaOptions
from zoo_lambada.passages import ARCHIVES, READER, PassagesRecipe


class PassageQuestions:
    """The passages as prompt and last word.

    tokenizer_size  number of the tokenizer's own ids
    n               only the first n passages
    room            tokens of end symbol and context that the model has room for
    reads_answer    whether the model reads the word, too, but for its last token (causal_lm)
    end             id of the end symbol
    """

    def __init__(
        self, stored: StoredSplit, tokenizer_size: int, n: int, room: int, reads_answer: bool, end: int
    ) -> None:
        self.stored, self.dtype, self.n = stored, dtype_of(tokenizer_size), n
        self.room, self.reads_answer, self.end = room, reads_answer, end

    def __len__(self) -> int:
        return self.n

    def untruncated(self, i: int) -> Continuation:
        """Passage i before anything is cut."""
        if not 0 <= i < self.n:
            raise IndexError(f"passage {i} of {self.n}")
        ids = self.stored.row(i).view(self.dtype).astype(np.int64) + 1
        answer = int(self.stored.labels[i])
        return Continuation(np.append(self.end, ids[:-answer]), ids[-answer:])

    def __getitem__(self, i: int) -> Continuation:
        prompt, answer, _ = self.untruncated(i)
        room = self.room - (len(answer) - 1 if self.reads_answer else 0)
        return Continuation(prompt[-room:], answer)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of end symbol and context, and of the word as far as it is read, before anything is cut, (n,)."""
        ends = np.asarray(self.stored.ends, np.int64) // self.dtype.itemsize
        answers = np.asarray(self.stored.labels, np.int64)
        return (np.diff(ends, prepend=0) + 1 - (1 if self.reads_answer else answers))[: self.n]


class LambadaData(LanguageData):
    """Data of both forms."""

    options: LambadaOptions
    corpus_elsewhere = True
    exclude = needs.PASSAGES
    names: tuple[str, ...] = ()
    """Where in the data directory the file of passages may be."""

    # -- files -----------------------------------------------------------------------------------------------------

    def passages_file(self) -> Path:
        """Find the user's file of test passages. Raises MissingFiles."""
        path = self.find_place(self.names, self.accepts)
        if path is None:
            path_ = self.options.path
            where = f"{path_}: no {self.names[0]} there{advice_for_file(path_)}; bring" if path_ else "bring"
            raise MissingFiles(
                f"{self.name} cannot be generated: {where} {self.needs}; put it in {self.root}, or name its folder"
                f" with zoo data prepare {self.name} --from DIR"
            )
        return path

    def accepts(self, place: Path) -> bool:
        """Whether this is a file of passages."""
        raise NotImplementedError

    @property
    def passages_folder(self) -> Path:
        """Where the prepared passages are, or will be."""
        path, tokenizer = self.passages_file(), self.tokenizer
        values = {"reader": READER, "place": str(path.resolve()), "file": file_stamps([path])}
        name = hashed_name(f"{Path(tokenizer.name).stem}-{READER}", values | {"tokenizer": tokenizer.digest})
        return cache_dir(self.root) / "language" / self.name / name

    def folder_name(self) -> str:
        self.passages_file()  # both are missing, or neither
        return super().folder_name()

    def prepared(self) -> bool:
        try:
            return super().prepared() and self.passages_folder.exists()
        except MissingFiles:
            return False

    def prepare(self) -> None:
        self.prepare_test()
        super().prepare()

    def prepare_test(self) -> None:
        folder = self.passages_folder
        if folder.exists():
            self._raise_faults(store.find_faults(folder, thorough=True))
        else:
            recipe = PassagesRecipe(self.passages_file(), self.tokenizer)
            with progress(f"preparing {self.name}") as update:
                store.build(folder, recipe, update)

    def discard(self) -> None:
        super().discard()
        store.delete(self.passages_folder)

    def verify(self) -> list[str]:
        faults = super().verify()
        try:
            folder = self.passages_folder
        except MissingFiles:
            return faults
        return faults + (store.find_faults(folder, thorough=True) if folder.exists() else [f"{folder}: not prepared"])

    def provenance(self) -> dict[str, Any]:
        corpus, passages = super().provenance(), self.test_provenance()
        return corpus | {
            "kind": passages["kind"],
            "files": {**passages["files"], **corpus["files"]},
            "notes": [*passages["notes"], *corpus["notes"]],
        }

    def test_provenance(self) -> dict[str, Any]:
        passages = store.read_manifest(self.passages_folder)["provenance"]
        return {"kind": "published", **passages, "counts": {"test": len(self.passages())}}

    # -- examples --------------------------------------------------------------------------------------------------

    @property
    def predicts_words(self) -> bool:
        """Whether training and validation examples are words; else they are pieces of running text."""
        return self.loading.objective in ("infilling", "seq2seq")

    def passages(self) -> PassageQuestions:
        """The test passages under the objective."""
        if not self.passages_folder.exists():
            self._require_prepared()
        options, slots = self.options, self.options.slots if self.loading.objective == "infilling" else 0
        stored = StoredSplit(self.passages_folder, "test")
        if slots:
            longest = int(np.asarray(stored.labels).max())
            if longest >= slots:
                raise DataError(
                    f"{self.name}: a last word of {longest} tokens and its end symbol need task.slots"
                    f" {longest + 1}, which is {slots}"
                )
        n = min(options.test_size or len(stored), len(stored))
        room, reads_answer = options.seq_len - slots, not self.predicts_words
        return PassageQuestions(stored, self.tokenizer.size, n, room, reads_answer, self.specials.end)

    def dataset(self, split: Split) -> Dataset[Any]:
        if split == "test":
            return self.passages()
        return self.words(split) if self.predicts_words else self.pieces(split)

    def eval_order(self, split: Split, limit: int | None) -> Any:
        if split == "test" or self.predicts_words:
            return super().eval_order(split, limit)
        limits = [n for n in (limit, self.options.val_size) if n]
        counts = self.pieces(split).counts.tolist()
        return document_order(counts, self.loading.eval_batch_size, min(limits, default=None))

    def score(self, split: Split, totals: Totals) -> dict[str, float]:
        if split != "test":
            words = self.predicts_words
            return {"accuracy": totals.whole / totals.questions if words else totals.hits / totals.answers}
        n, nats = totals.questions, totals.nats / totals.questions
        variance = max(totals.squares / n - nats * nats, 0.0)
        scores = {"accuracy": totals.whole / n, "perplexity": perplexity(nats)}
        ranked = self.options.rank_by
        return {ranked: scores.pop(ranked), **scores, "stderr": math.sqrt(variance / max(n - 1, 1))}

    # -- for a person ----------------------------------------------------------------------------------------------

    def majority(self) -> float:
        """The accuracy of the one word that is right most often, or the perplexity of predicting each token of a word
        at its frequency in the training text, whatever precedes it."""
        passages = self.passages()
        answers = [passages.untruncated(i).answer for i in range(len(passages))]
        if self.options.rank_by == "accuracy":
            return max(Counter(answer.tobytes() for answer in answers).values()) / len(answers)
        nats = self.unigram_nats()
        return perplexity(float(np.mean([nats[answer - 1].sum() for answer in answers])))

    def lengths(self, split: Split) -> np.ndarray | None:
        if split != "test":
            return super().lengths(split)
        return self.passages().lengths + (self.options.slots if self.loading.objective == "infilling" else 0)

    def view(self, split: Split, i: int) -> str:
        if split != "test":
            return super().view(split, i)
        passages = self.passages()
        prompt, answer, _ = passages.untruncated(i)
        cut = len(prompt) - len(passages[i].prompt)
        lost = f"{self.decode(prompt[:cut])} ‖cut here‖ " if cut else ""
        return f"{lost}{self.decode(prompt[cut:])}‖{self.decode(answer)}"


class OpenAIData(LambadaData):
    """Data of the task `lambada_openai`."""

    name, needs = "lambada_openai", OPENAI
    names = ("lambada/lambada_test.jsonl", "lambada_test.jsonl", "lambada_openai/lambada_test.jsonl")

    def accepts(self, place: Path) -> bool:
        return place.is_file() and place.suffix == ".jsonl"


class StandardData(LambadaData):
    """Data of the task `lambada_standard`."""

    name, needs = "lambada_standard", STANDARD
    names = tuple(
        f"{folder}{file}"
        for file in (STANDARD_TEXT, "lambada-dataset.tar.gz")
        for folder in ("lambada/", "", "lambada-dataset/")
    )

    def accepts(self, place: Path) -> bool:
        return place.is_file() and (place.name.endswith(ARCHIVES) or place.suffix == ".txt")
