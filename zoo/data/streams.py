"""Running text as a task's data: pieces that are read one after the other, and words to be told from what precedes
them.

A piece has at most `seq_len` tokens of one document. Its ids are the token before each of its tokens, the end symbol
at a document's beginning, so that every token of a text is predicted once. In training under causal_lm the effective
batch has `rows` rows: sample k of the run goes to row k % rows; the rows begin at places spread evenly over the corpus
and shifted by the seed, and each goes on from there, round and round. In evaluation whole documents go to rows.

Under infilling and seq2seq an example is a word of the corpus, drawn uniformly, and what precedes it in its document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from zoo.data import corpus
from zoo.data.cache import Recipe, Stored, manifest
from zoo.data.cached import CachedData, slug
from zoo.data.corpus import Conversion, Layout, Running, scan
from zoo.data.finding import search, stamp
from zoo.data.module import SPLITS, Split
from zoo.data.paths import cache_dir
from zoo.data.progress import progress
from zoo.data.questions import IGNORE, Continuation, Piece, Question, Specials
from zoo.data.tokens import Tokenizer, tokenizer
from zoo.spec.errors import DataError, MissingFiles, did_you_mean

AUTO = "auto"
CORPORA: dict[str, tuple[str, ...]] = {
    "wikitext-2": ("wikitext-2", "wikitext-2-v1"),
    "wikitext-103": ("wikitext-103", "wikitext-103-v1"),
    "pg19": ("pg19", "pg-19", "pg19-like", "deepmind-gutenberg", "books"),
}
"""Corpora by name, and the folders in which they are looked for; `auto` takes the first that is there."""
FILLER = -1
"""Index of a row that has run out of text."""
VAL_WORDS = 2_000
"""Validation words where the options do not say."""
TRIES = 100_000
"""Random places that are looked at for a word before the corpus is said to have none."""


class Pieces(Dataset[Question]):
    """All pieces of a split in the order of its text. Index i + len(self) is piece i, read as if nothing had been
    before it; FILLER is one token at which nothing is asked.

    documents  only these
    context    tokens before a piece that are read again with it, at which nothing is asked; then nothing is carried
    """

    def __init__(
        self, text: Running, seq_len: int, end: int, documents: Sequence[int] | None = None, context: int = 0
    ) -> None:
        self.text, self.seq_len, self.end, self.context = text, seq_len, end, context
        chosen = np.arange(len(text.starts)) if documents is None else np.asarray(documents, np.int64)
        self.starts, self.ends = text.starts[chosen], text.ends[chosen]
        self.counts = -(-(self.ends - self.starts) // seq_len)  # (documents,) pieces of each
        self.before = np.cumsum(self.counts) - self.counts  # (documents,) index of its first piece

    def __len__(self) -> int:
        return int(self.counts.sum())

    def span(self, i: int) -> tuple[int, int, int]:
        """Positions [start, stop) of piece i, and where its document begins."""
        document = int(np.searchsorted(self.before, i, "right")) - 1
        begin, end = int(self.starts[document]), int(self.ends[document])
        start = begin + (i - int(self.before[document])) * self.seq_len
        return start, min(start + self.seq_len, end), begin

    def __getitem__(self, i: int) -> Piece:
        if i == FILLER:
            return Piece(np.array([self.end]), np.array([IGNORE]))
        n = len(self)
        if not 0 <= i < 2 * n:
            raise IndexError(f"piece {i} of {n}")
        start, stop, begin = self.span(i % n)
        first = max(begin, start - self.context)
        if first == begin:
            labels = self.text.read(first, stop)
            ids = np.append(self.end, labels[:-1])
        else:
            tokens = self.text.read(first - 1, stop)
            ids, labels = tokens[:-1], tokens[1:].copy()
        labels[: start - first] = IGNORE
        return Piece(ids, labels, fresh=i >= n or start == begin or self.context > 0)


class RowOrder(Sampler[int]):
    """Pieces for the samples [start, stop) of a run whose batches have so many rows, for one of `world` devices."""

    def __init__(self, pieces: int, rows: int, seed: int, start: int, stop: int, rank: int, world: int) -> None:
        self.pieces, self.rows, self.start, self.stop = pieces, rows, start, stop
        self.rank, self.world = rank, world
        self.shift = _number(pieces, "rows", seed)

    def __len__(self) -> int:
        return len(range(self.start + self.rank, self.stop, self.world))

    def __iter__(self) -> Iterator[int]:
        for k in range(self.start + self.rank, self.stop, self.world):
            row, turn = k % self.rows, k // self.rows
            piece = (self.shift + row * self.pieces // self.rows + turn) % self.pieces
            yield piece + self.pieces * (k < self.start + self.rows)


def document_order(counts: Sequence[int], rows: int, limit: int | None) -> list[int]:
    """Pieces, turn by turn over the rows: whole documents, each to the row that is free first; FILLER where a row has
    run out. At most `limit` pieces, the first ones, whatever the number of rows."""
    last = [-1] * rows  # turns that each row has filled
    table: list[list[int]] = [[] for _ in range(rows)]
    first = 0
    for count in counts:
        taken = count if limit is None else min(count, limit - first)
        if taken <= 0:
            break
        row = min(range(rows), key=lambda r: (last[r], r))
        table[row].extend(range(first, first + taken))
        last[row] += taken
        first += count
    turns = max(map(len, table))
    return [row[t] if t < len(row) else FILLER for t in range(turns) for row in table]


class Words(Dataset[Question]):
    """Words of a corpus to be told from what precedes them: example k depends on the key and k alone.

    n     how many there are said to be; k may be larger
    room  tokens of a prompt, at most
    most  tokens of an answer, at most
    """

    def __init__(self, text: Running, n: int, room: int, most: int, end: int, key: tuple[Any, ...]) -> None:
        self.text, self.n, self.room, self.most, self.end, self.key = text, n, room, most, end, key

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, k: int) -> Continuation:
        size = len(self.text)
        for attempt in range(TRIES):
            at = _number(size, *self.key, k, attempt)
            n = self.text.word(at)
            if 0 < n <= self.most:
                return Continuation(self._before(at), self.text.read(at, at + n))
        raise DataError(f"no word in {TRIES:,} random places of {self.text.stored.folder}")

    def _before(self, at: int) -> np.ndarray:
        document = int(np.searchsorted(self.text.starts, at, "right")) - 1
        begin = int(self.text.starts[document])
        start = max(begin, at - self.room)
        tokens = self.text.read(start, at)
        return np.append(self.end, tokens)[-self.room :] if start == begin else tokens


def _shelf(place: Path) -> Layout | None:
    """Books, but not any folder in which a .txt lies about."""
    found = corpus.books(place)
    return found if found is not None and (found.divided or place.name in CORPORA["pg19"]) else None


def _has_form(form: Callable[[Path], Layout | None], place: Path) -> bool:
    return form(place) is not None


def _number(n: int, *parts: object) -> int:
    """A number below n that depends on nothing but the parts."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little") % n


class LanguageData(CachedData):
    """Data of a task on running text. `options` has corpus, path, tokenizer, seq_len, slots, data_seed and val_size.

    The prepared corpus is shared by all tasks that read it with the same tokeniser.
    """

    suite = "language"
    needs = ""
    """What to bring, for the message that says that nothing is there."""
    corpus_elsewhere = False
    """Whether `task.path` may hold other files than the corpus only."""

    # -- the user's files ------------------------------------------------------------------------------------------

    def corpus_layout(self) -> Layout:
        """The corpus. Raises MissingFiles."""
        named = self.options.corpus
        if named not in (AUTO, *CORPORA):
            place = Path(named).expanduser().absolute()
            found = corpus.layout(place)
            if found is None:
                known = did_you_mean(named, (AUTO, *CORPORA)) if "/" not in named else ""
                raise MissingFiles(f"task.corpus {named}: no corpus there{known}; bring {self.needs}")
            return found
        for name in CORPORA if named == AUTO else (named,):
            form = corpus.wikitext if name.startswith("wikitext") else _shelf
            is_it = partial(_has_form, form)
            there = self._search(CORPORA[name], is_it, elsewhere=self.corpus_elsewhere)
            found = form(there) if there is not None else None
            if found is not None:
                return found
        below = f"in {self.options.path}" if self.options.path else "on this machine"
        raise MissingFiles(
            f"{self.name}: no corpus {'' if named == AUTO else named + ' '}{below}: bring {self.needs}; put it"
            f" in {self.root}, or name the folder above it with zoo data prepare {self.name} --from DIR, or the corpus"
            f" with --set task.corpus=PATH"
        )

    def _search(self, places: Sequence[str], is_it: Any, *, elsewhere: bool = False) -> Path | None:
        """Below `task.path` if that is said (with `elsewhere`, or where it would be without), else in the data
        directory."""
        found = search(self.options.path, self.root, self.name, places, is_it)
        if found is None and elsewhere and self.options.path:
            return search("", self.root, self.name, places, is_it)
        return found

    # -- the prepared folder ---------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return cache_dir(self.root) / "corpora" / self.folder_name()

    def folder_name(self) -> str:
        found, tokens = self.corpus_layout(), self.tokens
        files = {split: stamp(found.files[split]) for split in SPLITS}
        what: dict[str, Any] = {"reader": corpus.READER, "place": str(found.folder.resolve()), "files": files}
        what |= {"tokenizer": tokens.digest, "seed": 0 if found.divided else self.options.data_seed}
        stem = Path(tokens.name).stem
        return slug(f"{self._title(found)}-{stem}-{corpus.READER}", what)

    @staticmethod
    def _title(found: Layout) -> str:
        only = found.files["train"][0].stem if found.form == "file" else found.folder.name
        return "".join(c if c.isalnum() or c in "-_." else "_" for c in only)

    def recipe(self) -> Recipe:
        found = self.corpus_layout()
        with progress(f"reading {self._title(found)}") as update:
            scanned = scan(found, self.options.data_seed, update)
        return Conversion(scanned, self.tokens, {"corpus": self._title(found), "form": found.form})

    @property
    def tokens(self) -> Tokenizer:
        """The tokeniser."""
        return tokenizer(self.options.tokenizer)

    @property
    def specials(self) -> Specials:
        size = self.options.vocab_size
        return Specials(slot=size - 1, end=size - 2, slots=self.options.slots)

    def running(self, split: Split) -> Running:
        """The text of a split."""
        self._refuse_unprepared()
        return Running(Stored(self.folder, split), self.tokens.size)

    def _refuse_unprepared(self) -> None:
        if not self.prepared():
            raise DataError(f"{self.folder}: not prepared; run zoo data prepare {self.name}")

    def documents(self, split: Split) -> list[tuple[int, int]]:
        """Words and bytes of every document of a split."""
        return [(int(w), int(b)) for w, b in manifest(self.folder)["provenance"]["documents"][split]]

    # -- examples --------------------------------------------------------------------------------------------------

    def pieces(self, split: Split, documents: Sequence[int] | None = None) -> Pieces:
        """A split, or some documents of it, as pieces."""
        return Pieces(self.running(split), self.options.seq_len, self.specials.end, documents)

    def words(self, split: Split) -> Words:
        """Words of a split and what precedes them, as the objective has room for."""
        slots, objective = self.options.slots, self.loading.objective
        room = self.options.seq_len - (slots if objective == "infilling" else 0)
        text = self.running(split)
        key = (
            (corpus.READER, split, self.loading.seed)
            if split == "train"
            else (corpus.READER, split, self.options.data_seed)
        )
        n = len(text) if split == "train" else self.options.val_size or VAL_WORDS
        return Words(text, n, room, slots - 1, self.specials.end, key)

    def train_order(self, start: int, stop: int, rank: int, world: int) -> Sampler[int]:
        if self.loading.objective in ("infilling", "seq2seq"):
            return range(start + rank, stop, world)  # type: ignore[return-value]  # a sampler is what has len and iter
        return RowOrder(len(self.pieces("train")), self.loading.train_rows, self.loading.seed, start, stop, rank, world)

    # -- for a person ----------------------------------------------------------------------------------------------

    def provenance(self) -> dict[str, Any]:
        told = super().provenance()
        found = told.pop("documents")
        told["corpus"] = {
            "name": told["corpus"],
            "form": told.pop("form"),
            "documents": {split: len(part) for split, part in found.items()},
            "words": {split: sum(w for w, _ in part) for split, part in found.items()},
            "bytes": {split: sum(b for _, b in part) for split, part in found.items()},
        }
        gaps = []
        for split in SPLITS:
            text = self.running(split)
            told["corpus"].setdefault("tokens", {})[split] = len(text)
            for kind, n in text.gaps().items():
                what = "unknown tokens" if kind == "unknown" else "characters without a token"
                gaps += [f"{split}: {what} in {n} of {len(text.stops)} blocks of text"] if n else []
        counts = {split: len(self.dataset(split)) for split in SPLITS}  # type: ignore[arg-type]
        return told | {"notes": [*told["notes"], *gaps], "counts": counts}

    def majority(self) -> float | None:
        return None

    def view(self, split: Split, i: int) -> str:
        """The text of an example; of a question ‖ stands before the answer."""
        question = self.dataset(split)[i]
        if isinstance(question, Continuation):
            return f"{self.spell(question.prompt)}‖{self.spell(question.answer)}"
        assert isinstance(question, Piece)
        return self.spell(question.labels)

    def spell(self, ids: np.ndarray) -> str:
        """Ids as text; the end symbol as ⟨end⟩."""
        end = self.specials.end
        told = "⟨end⟩" if len(ids) and ids[0] == end else ""
        return told + self.tokens.decode([int(i) - 1 for i in ids if 0 < i < end])


__all__ = ["AUTO", "CORPORA", "FILLER", "LanguageData", "Pieces", "RowOrder", "Words", "document_order"]
