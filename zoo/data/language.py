"""Base class of tasks on running text: which corpus is read, and how its text becomes examples.

Under causal_lm the examples are pieces of running text: in training each row of the effective batch reads on from its
own place in the corpus, in evaluation whole documents go to rows. Under infilling and seq2seq an example is a word of
the corpus, drawn uniformly, and what precedes it in its document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zoo.data import tokenized
from zoo.data.cached import CachedData, hashed_name
from zoo.data.corpus import CorpusFiles, find_books, find_corpus, find_wikitext, scan_corpus
from zoo.data.files import file_stamps
from zoo.data.module import SPLITS, Sampler, Split, Totals
from zoo.data.paths import advice_for_file, cache_dir, find_files
from zoo.data.progress import progress
from zoo.data.questions import Continuation, Piece, Specials
from zoo.data.store import Recipe, StoredSplit, read_manifest
from zoo.data.streams import Pieces, RowSampler, Words
from zoo.data.tokenized import CorpusRecipe, TokenStream
from zoo.data.tokens import Tokenizer, load_tokenizer
from zoo.spec.errors import MissingFiles, did_you_mean
from zoo.spec.files import user_path

AUTO = "auto"
CORPORA: dict[str, tuple[str, ...]] = {
    "wikitext-2": ("wikitext-2", "wikitext-2-v1"),
    "wikitext-103": ("wikitext-103", "wikitext-103-v1"),
    "pg19": ("pg19", "pg-19", "pg19-like", "deepmind-gutenberg", "books"),
}
"""Corpora by name, and the folders in which they are looked for; `auto` takes the first that exists."""
DRAW = "1"
"""Raised when words are drawn otherwise."""
COUNTED = 1 << 20
"""Tokens that are read at a time to be counted."""
VAL_WORDS = 2_000
"""Validation words where the options do not say."""


class EncodedText(NamedTuple):
    """A text as task ids (n,), and its numbers of words (between white space) and bytes."""

    ids: np.ndarray
    words: int
    bytes: int


def _find_library(place: Path, exclude: Sequence[str]) -> CorpusFiles | None:
    """Return a folder of books, but not any folder that happens to hold a .txt file."""
    corpus = find_books(place, exclude)
    return corpus if corpus is not None and (corpus.has_splits or place.name in CORPORA["pg19"]) else None


def _holds(find: Callable[[Path], CorpusFiles | None], place: Path) -> bool:
    return find(place) is not None


class LanguageData(CachedData):
    """Data of a task on running text. `options` has corpus, path, tokenizer, seq_len, slots, data_seed and val_size.

    The prepared corpus is shared by all tasks that read it with the same tokenizer.
    """

    suite = "language"
    input_columns = ("text",)
    needs = ""
    """The files that a user must bring, for messages."""
    corpus_elsewhere = False
    """Whether `task.path` may hold other files than the corpus only."""
    exclude: tuple[str, ...] = ()
    """Glob patterns of text files that may lie beside a corpus and are not part of it."""

    # -- the user's files ------------------------------------------------------------------------------------------

    def corpus_files(self) -> CorpusFiles:
        """Find the corpus. Raises MissingFiles."""
        name = self.options.corpus
        if name not in (AUTO, *CORPORA):
            place = user_path(name)
            corpus = find_corpus(place, self.exclude)
            if corpus is None:
                hint = did_you_mean(name, (AUTO, *CORPORA)) if "/" not in name else ""
                raise MissingFiles(f"task.corpus {name}: no corpus there{hint}; bring {self.needs}")
            return corpus
        for candidate in CORPORA if name == AUTO else (name,):
            library = partial(_find_library, exclude=self.exclude)
            find: Callable[[Path], CorpusFiles | None] = find_wikitext if candidate.startswith("wikitext") else library
            folder = self.find_place(CORPORA[candidate], partial(_holds, find), elsewhere=self.corpus_elsewhere)
            corpus = find(folder) if folder is not None else None
            if corpus is not None:
                return corpus
        given = self.options.path
        below = f"in {given}{advice_for_file(given)}" if given else "on this machine"
        raise MissingFiles(
            f"{self.name}: no corpus {'' if name == AUTO else name + ' '}{below}: bring {self.needs}; put it"
            f" in {self.root}, or name the folder above it with zoo data prepare {self.name} --from DIR, or the corpus"
            f" with --set task.corpus=PATH"
        )

    def find_place(
        self, names: Sequence[str], accept: Callable[[Path], bool], *, elsewhere: bool = False
    ) -> Path | None:
        """Find files with zoo.data.paths.find_files, below `task.path` if it is set.

        elsewhere  where `task.path` has none, search as if it were not set
        """
        place = find_files(self.options.path, self.root, self.name, names, accept)
        if place is None and elsewhere and self.options.path:
            return find_files("", self.root, self.name, names, accept)
        return place

    # -- the prepared folder ---------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return cache_dir(self.root) / "corpora" / self.folder_name()

    def folder_name(self) -> str:
        corpus, tokenizer = self.corpus_files(), self.tokenizer
        files = {split: file_stamps(corpus.files[split]) for split in SPLITS}
        values: dict[str, Any] = {"reader": tokenized.READER, "place": str(corpus.folder.resolve()), "files": files}
        values |= {"tokenizer": tokenizer.digest, "seed": 0 if corpus.has_splits else self.options.data_seed}
        return hashed_name(f"{_title(corpus)}-{Path(tokenizer.name).stem}-{tokenized.READER}", values)

    def recipe(self) -> Recipe:
        corpus = self.corpus_files()
        with progress(f"reading {_title(corpus)}") as update:
            scan = scan_corpus(corpus, self.options.data_seed, update)
        return CorpusRecipe(scan, self.tokenizer, {"corpus": _title(corpus), "form": corpus.form})

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the options name."""
        return load_tokenizer(self.options.tokenizer)

    @property
    def specials(self) -> Specials:
        size = self.options.vocab_size
        return Specials(slot=size - 1, end=size - 2, slots=self.options.slots)

    def text(self, split: Split) -> TokenStream:
        """The tokens of a split."""
        self._require_prepared()
        return TokenStream(StoredSplit(self.folder, split), self.tokenizer.size)

    def documents(self, split: Split) -> list[tuple[int, int]]:
        """Words and bytes of every document of a split."""
        return [(int(w), int(b)) for w, b in read_manifest(self.folder)["provenance"]["documents"][split]]

    # -- examples --------------------------------------------------------------------------------------------------

    def pieces(self, split: Split, documents: Sequence[int] | None = None) -> Pieces:
        """A split, or some documents of it, as pieces."""
        return Pieces(self.text(split), self.options.seq_len, self.specials.end, documents)

    def words(self, split: Split) -> Words:
        """Words of a split and what precedes them, as much as the objective has room for."""
        slots, training = self.options.slots, split == "train"
        room = self.options.seq_len - (slots if self.loading.objective == "infilling" else 0)
        text = self.text(split)
        key = (DRAW, split, self.loading.seed if training else self.options.data_seed)
        n = len(text) if training else self.options.val_size or VAL_WORDS
        return Words(text, n, room, slots - 1, self.specials.end, key)

    def train_order(self, start: int, stop: int, rank: int, world: int) -> Sampler:
        if self.loading.objective in ("infilling", "seq2seq"):
            return range(start + rank, stop, world)
        return RowSampler(
            len(self.pieces("train")), self.loading.train_rows, self.loading.seed, start, stop, rank, world
        )

    # -- for a person ----------------------------------------------------------------------------------------------

    def provenance(self) -> dict[str, Any]:
        provenance = super().provenance()
        documents = provenance.pop("documents")
        streams = {split: self.text(split) for split in SPLITS}
        provenance["corpus"] = {
            "name": provenance["corpus"],
            "form": provenance.pop("form"),
            "documents": {split: len(part) for split, part in documents.items()},
            "words": {split: sum(w for w, _ in part) for split, part in documents.items()},
            "bytes": {split: sum(b for _, b in part) for split, part in documents.items()},
            "tokens": {split: len(text) for split, text in streams.items()},
        }
        gaps = []
        for split, text in streams.items():
            for kind, n in text.gaps().items():
                what = "unknown tokens" if kind == "unknown" else "characters without a token"
                gaps += [f"{split}: {what} in {n} of {len(text.stops)} blocks of text"] if n else []
        counts = {split: self.n_examples(split) for split in SPLITS}
        return provenance | {"notes": [*provenance["notes"], *gaps], "counts": counts}

    def majority(self) -> float | None:
        """The ranked score of predicting each token at its frequency in the training text, whatever precedes it."""
        read = self.dataset("test")
        assert isinstance(read, Pieces)
        tested = self._count_tokens(read.text, zip(read.starts.tolist(), read.ends.tolist(), strict=True))
        nats = float(tested @ self.unigram_nats())
        (score, *_) = self.score("test", Totals(0, int(tested.sum()), 0, 0, nats, 0.0)).values()
        return score

    def unigram_nats(self) -> np.ndarray:
        """-log of each token's frequency in the training text (size of the tokenizer,); every token of the tokenizer is
        counted once more than it occurs."""
        train = self.text("train")
        counts = 1 + self._count_tokens(train, [(0, len(train))])
        return -np.log(counts / counts.sum())

    def _count_tokens(self, text: TokenStream, spans: Iterable[tuple[int, int]]) -> np.ndarray:
        """How often each token of the tokenizer stands in some spans of a text (size of the tokenizer,)."""
        counts = np.zeros(self.tokenizer.size + 1, np.int64)
        for start, stop in spans:
            for first in range(start, stop, COUNTED):
                tokens = text.read(first, min(first + COUNTED, stop))
                counts += np.bincount(tokens, minlength=len(counts))
        return counts[1:]

    def encode(self, values: Sequence[Any]) -> EncodedText:
        text = values[0]
        if not isinstance(text, str) or not text.strip():
            raise ValueError("expected a text")
        ids = np.asarray(self.tokenizer.encode(text).ids, np.int64) + 1
        if not len(ids):
            raise ValueError("a text without tokens")
        return EncodedText(ids, len(text.split()), len(text.encode()))

    def view(self, split: Split, i: int) -> str:
        """The text of an example; ‖ stands before an answer."""
        example = self.dataset(split)[i]
        if isinstance(example, Continuation):
            return f"{self.decode(example.prompt)}‖{self.decode(example.answer)}"
        assert isinstance(example, Piece)
        return self.decode(example.labels)

    def decode(self, ids: np.ndarray) -> str:
        """Task ids as text; the end symbol as ⟨end⟩."""
        end = self.specials.end
        prefix = "⟨end⟩" if len(ids) and ids[0] == end else ""
        return prefix + self.tokenizer.decode([int(i) - 1 for i in ids if 0 < i < end])


def _title(corpus: CorpusFiles) -> str:
    """Name of a corpus in file names and records."""
    name = corpus.files["train"][0].stem if corpus.form == "file" else corpus.folder.name
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
