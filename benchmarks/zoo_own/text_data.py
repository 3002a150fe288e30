"""Language modelling on a user's text files, in the layouts of zoo/data/corpus.py."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from zoo import DataError
from zoo.data import store
from zoo.data.corpus import find_corpus, scan_corpus
from zoo.data.language import LanguageData
from zoo.data.module import SPLITS, Split, Totals, perplexity
from zoo.data.paths import data_dir
from zoo.data.progress import progress
from zoo.data.streams import Pieces, document_order
from zoo.data.tokenized import READER, CorpusRecipe
from zoo.data.tokens import load_tokenizer
from zoo_own.naming import hashed, name_of
from zoo_own.settings import PIECE, DataSettings, OwnTextOptions, protocols
from zoo_own.table_data import own_folder, require_folder


def find_texts(place: Path) -> list[Path]:
    """The text files of a folder and of the folders of its splits, or the one that is named."""
    if place.is_file():
        return [place] if place.suffix.lower() in (".txt", ".tokens", ".raw") else []
    corpus = find_corpus(place)
    return [path for files in corpus.files.values() for path in files] if corpus else []


def make(place: Path, settings: DataSettings) -> dict[str, Any]:
    """Scan and prepare text files: {"task": fields of the Task, "shown": lines for the user}."""
    name, tokenizer = name_of(place, settings), load_tokenizer(settings.tokenizer)
    texts = find_texts(place)
    corpus = find_corpus(texts[0] if len(texts) == 1 else place)  # of one file passages are held out, not books
    if corpus is None:
        raise DataError(f"--data {place}: no text files there")
    with progress(f"reading {name}") as update:
        scan = scan_corpus(corpus, settings.seed, update)
    identity = {"files": scan.files, "form": corpus.form, "tokenizer": tokenizer.digest, "reader": READER}
    fingerprint = hashed(identity | {"seed": 0 if corpus.has_splits else settings.seed})
    recipe = CorpusRecipe(scan, tokenizer, {"corpus": name, "form": corpus.form})
    with progress(f"preparing {name}") as update:
        store.build(own_folder(data_dir(), fingerprint), recipe, update)
    options = {"fingerprint": fingerprint} | (
        {} if settings.tokenizer == "bytes" else {"tokenizer": settings.tokenizer}
    )
    documents = ", ".join(f"{len(scan.documents[split]):,} {split}" for split in SPLITS)
    how = "as the files are named" if corpus.has_splits else f"held out by sha256, seed {settings.seed}"
    task = {
        "name": name,
        "suite": "own",
        "title": name.replace("_", " ").capitalize(),
        "version": "1",
        "kind": "language_modeling",
        "vocab_size": tokenizer.size + 3,
        "classes": 0,
        "length": PIECE,
        "metrics": ["bits_per_byte", "word_perplexity", "byte_perplexity"],
        "higher_is_better": False,
        "chance": None,
        "license": "your own",
        "source": {},
        "data": "zoo_own.text_data:TextData",
        "options": "zoo_own.settings:OwnTextOptions",
        "objectives": ["causal_lm"],
        "protocols": protocols(PIECE, options, running_text=True),
    }
    shown = [f"running text of {settings.tokenizer}, in pieces of {PIECE} tokens; texts: {documents} ({how})"]
    return {"task": task, "shown": shown}


class TextData(LanguageData):
    """Data of a task of a user's text files."""

    name = "your data"
    options: OwnTextOptions

    @property
    def folder(self) -> Path:
        return own_folder(self.root, self.options.fingerprint)

    def prepare(self) -> None:
        require_folder(self.folder)

    def dataset(self, split: Split) -> Pieces:
        return self.pieces(split)

    def eval_order(self, split: Split, limit: int | None) -> Any:
        counts = self.dataset(split).counts.tolist()
        return document_order(counts, self.loading.eval_batch_size, limit)

    def score(self, split: Split, totals: Totals) -> dict[str, float]:
        words, size = (sum(part) for part in zip(*self.documents(split), strict=True))
        # all of the texts, or, under train.val_limit, their first part, taken to have as many words a token
        part = totals.answers / len(self.text(split))
        per_byte = totals.nats / (size * part)
        scores = {"bits_per_byte": per_byte / math.log(2)}
        if split != "test":
            return scores
        scores["word_perplexity"] = perplexity(totals.nats / (words * part))
        scores["byte_perplexity"] = perplexity(per_byte)
        n = totals.questions
        if n < 2:
            return scores
        # the pieces are the sample; that the last of a text is shorter makes the error larger, never smaller
        spread = max(totals.squares / n - (totals.nats / n) ** 2, 0.0) * n / (n - 1)
        return {**scores, "stderr": math.sqrt(n * spread) / (size * part)}

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {"kind": "own"}
