"""Options (`task.*`) of the tasks. No torch or NumPy here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from zoo import ConfigError, NonNegativeInt, PositiveInt

Source = Literal["auto", "published", "regenerated"]
Duplicates = Literal["drop", "keep"]
DASHES = {"curv_contour_length_14": (14, 4), "curv_contour_length_9": (9, 3), "curv_baseline": (6, 2)}
"""Difficulty of Pathfinder -> dashes of a contour and of a distractor."""
MOST_DASHES = 6
"""Of a contour in 16x16 pixels, which has room for no more."""
RESOLUTIONS = {256: 16, 1024: 32, 4096: 64, 16384: 128}
"""Pixels of a Pathfinder picture -> its side."""


@dataclass
class ListOpsOptions:
    """Which ListOps data set to use."""

    source: Source = "auto"
    """auto: the files under `path` if that is set; else, with the published lengths and sizes, lra_release/listops-1000
    in the data directory if it is there; else regenerated."""
    path: str = ""
    """Folder with the published basic_{train,val,test}.tsv (or one above it)."""
    data_seed: NonNegativeInt = 0
    """Seed of the regenerated examples."""
    train_size: PositiveInt = 96_000
    """Training examples; of published files at most this many, the first ones."""
    val_size: PositiveInt = 2_000
    """Validation examples."""
    test_size: PositiveInt = 2_000
    """Test examples. They do not change with the other sizes."""
    min_len: NonNegativeInt = 500
    """Regenerated expressions have more tokens than this (parentheses are not tokens)."""
    max_len: int = 2_000
    """Regenerated expressions have fewer tokens than this."""
    max_depth: Annotated[int, Interval(ge=1, le=100)] = 10
    """Depth of the deepest digits; operators end one above."""
    max_args: Annotated[int, Interval(ge=2, le=100)] = 10
    """Most operands of an operator; the least is 2."""
    seq_len: Annotated[int, Ge(2)] = 2_000
    """Longest input of the model; longer expressions (published files only) lose their end."""
    eos: bool = False
    """Append an end-of-sequence token, as the S4 code does; Long Range Arena does not."""
    brackets: bool = False
    """Keep the parentheses of the published files as two more tokens (a row of n tokens then has 3n - 2); every
    published result drops them."""

    def check(self) -> None:
        """Raise ConfigError for lengths that contradict each other."""
        if self.max_len < self.min_len + 2:
            raise ConfigError("max_len", f"no length lies between min_len {self.min_len} and max_len {self.max_len}")
        if self.generated:
            self.check_generated()

    def check_generated(self) -> None:
        """Raise ConfigError for generated expressions that the model would not see whole."""
        longest = (3 * (self.max_len - 1) - 2 if self.brackets else self.max_len - 1) + self.eos
        if longest > self.seq_len:
            raise ConfigError(
                "seq_len", f"{self.seq_len} would cut expressions of {longest} tokens; lower task.max_len or raise it"
            )

    @property
    def generated(self) -> bool:
        """Whether no published files are looked for."""
        return self.source == "regenerated" or (self.source == "auto" and not self.path and not self.as_published)

    @property
    def vocab_size(self) -> int:
        """Number of token ids: 17, and two more for "(" and ")"."""
        return 19 if self.brackets else 17

    @property
    def as_published(self) -> bool:
        """Whether lengths, shape and sizes are those of the published data set."""
        expressions = (self.min_len, self.max_len, self.max_depth, self.max_args) == (500, 2_000, 10, 10)
        return expressions and (self.train_size, self.val_size, self.test_size) == (96_000, 2_000, 2_000)


@dataclass
class PathfinderOptions:
    """Which Pathfinder data set to use."""

    source: Source = "auto"
    """auto: the files under `path` if that is set; else, with the published sizes,
    lra_release/pathfinder{R}/curv_contour_length_14 in the data directory if it is there; else regenerated."""
    path: str = ""
    """Folder curv_contour_length_14 of the published pictures, with imgs/ and metadata/ (or one above it)."""
    data_seed: NonNegativeInt = 0
    """Seed of the regenerated pictures. The split of published ones is fixed."""
    train_size: PositiveInt = 160_000
    """Training pictures; of published files at most this many."""
    val_size: PositiveInt = 20_000
    """Validation pictures."""
    test_size: PositiveInt = 20_000
    """Test pictures. Regenerated ones do not change with the other sizes."""
    seq_len: Literal[0, 256, 1024, 4096, 16384] = 0
    """Pixels: of 16x16 (ours, regenerated only), 32x32, 64x64 or 128x128 pictures; 0 = the task's own."""
    input: Literal["tokens", "values"] = "tokens"
    """tokens: pixels as ids 0 … 255 (0 is black, not padding). values: pixels as numbers in [0, 1]."""
    difficulty: Literal["curv_contour_length_14", "curv_contour_length_9", "curv_baseline"] = "curv_contour_length_14"
    """Which of the published sets, or which of them to regenerate: contours of 14, 9 or 6 dashes, distractors of 4, 3
    or 2. All published results are on the first."""
    target_dashes: Annotated[int, Interval(ge=0, le=14)] = 0
    """Dashes of a regenerated contour; 0 = as the difficulty has it, 3 in 16x16 pixels."""
    distractor_dashes: Annotated[int, Interval(ge=0, le=14)] = 0
    """Dashes of a regenerated distractor; 0 = as the difficulty has it, 2 in 16x16 pixels."""
    distractors: Annotated[int, Interval(ge=0, le=100)] | None = None
    """Regenerated distractors, at most: one that finds no room is left out; null = as the published pictures have."""

    def check(self) -> None:
        """Raise ConfigError for pictures that cannot be generated."""
        if self.own and (self.source == "published" or self.path):
            published = "task.target_dashes=0, task.distractor_dashes=0, task.distractors=null and seq_len not 256"
            raise ConfigError(
                "source", f"nobody published pictures of 16x16 pixels or with other contours; published: {published}"
            )
        if self.generated:
            self.check_generated()

    def check_generated(self) -> None:
        """Raise ConfigError for contours that do not fit into the picture."""
        for key, dashes in zip(("target_dashes", "distractor_dashes"), self.dashes, strict=True):
            if self.seq_len == 256 and dashes > MOST_DASHES:
                raise ConfigError(key, f"expected at most {MOST_DASHES} dashes in 16x16 pixels, got {dashes}")

    @property
    def dashes(self) -> tuple[int, int]:
        """Dashes of a contour and of a distractor."""
        target, distractor = (3, 2) if self.seq_len == 256 else DASHES[self.difficulty]
        return self.target_dashes or target, self.distractor_dashes or distractor

    @property
    def generated(self) -> bool:
        """Whether no published files are looked for."""
        hard = self.difficulty == "curv_contour_length_14"
        by_default = self.own or (not self.path and not self.as_published and hard)
        return self.source == "regenerated" or (self.source == "auto" and by_default)

    @property
    def own(self) -> bool:
        """Whether nobody published such pictures."""
        return self.seq_len == 256 or (self.target_dashes, self.distractor_dashes, self.distractors) != (0, 0, None)

    @property
    def as_published(self) -> bool:
        """Whether the sizes are those of the published data set."""
        return (self.train_size, self.val_size, self.test_size) == (160_000, 20_000, 20_000)


@dataclass
class TextOptions:
    """Which form of the IMDB data set to use."""

    path: str = ""
    """Folder aclImdb, its archive, or a folder above them; empty = search the data directory."""
    train_size: PositiveInt = 22_500
    """At most this many training reviews: train without the tenth that is our validation split."""
    val_size: PositiveInt = 2_500
    """At most this many validation reviews. Long Range Arena validates on test; here test is only for the score."""
    test_size: PositiveInt = 25_000
    """At most this many test reviews."""
    seq_len: Annotated[int, Ge(2)] = 4_096
    """Longest input of the model; longer reviews lose their end."""
    eos: bool = False
    """Append an end-of-sequence token, as the S4 code does; Long Range Arena does not."""
    tokens: Literal["bytes", "characters"] = "bytes"
    """bytes are Long Range Arena's tokens; characters are the 131 frequent characters of the S4 code."""
    duplicates: Duplicates = "drop"
    """Training reviews that are in test too, of which the published set has 123."""

    @property
    def vocab_size(self) -> int:
        """Padding, 256 bytes and the end token; or padding, 131 characters, any other and the end token."""
        return 134 if self.tokens == "characters" else 258


@dataclass
class ImageOptions:
    """Which form of the grey CIFAR-10 data set to use."""

    path: str = ""
    """Folder cifar-10-batches-bin, its archive, a folder of parquet files, or one above them; empty = search the data
    directory."""
    train_size: PositiveInt = 45_000
    """At most this many training pictures: train without the tenth that is our validation split."""
    val_size: PositiveInt = 5_000
    """At most this many validation pictures."""
    test_size: PositiveInt = 10_000
    """At most this many test pictures."""
    seq_len: Literal[256, 1024] = 1_024
    """Pixels: 1024 as published; 256: 16x16, each the mean of 2x2 grey pixels, rounded."""
    input: Literal["tokens", "values"] = "tokens"
    """tokens: pixels as ids 0 … 255 (0 is black, not padding). values: as numbers, (x/255 - 0.481) / 0.239 as in the S4
    code."""
    grey: Literal["tensorflow", "pillow"] = "tensorflow"
    """Conversion to grey: tensorflow is Long Range Arena's, pillow that of the S4 code."""
    duplicates: Duplicates = "drop"
    """Training pictures that are in test too."""


@dataclass
class RetrievalOptions:
    """Which form of the AAN data set to use."""

    path: str = ""
    """Folder with new_aan_pairs.{train,eval,test}.tsv (or one above it); empty = search the data directory."""
    train_size: PositiveInt = 147_086
    """At most this many training pairs."""
    val_size: PositiveInt = 18_090
    """At most this many validation pairs (the published eval)."""
    test_size: PositiveInt = 17_437
    """At most this many test pairs; all are scored, also those of the last, smaller batch."""
    seq_len: Annotated[int, Interval(ge=2, le=10_000)] = 4_000
    """Longest document that the model reads; longer ones lose their end. 10,000 bytes of a document are stored."""
    eos: bool = False
    """Append an end-of-sequence token to each document, as the S4 code does; Long Range Arena does not."""
    duplicates: Duplicates = "drop"
    """Pairs that an earlier split (test, val, train) has too, in either order."""


@dataclass
class BooksOptions:
    """How pairs of passages are drawn from books."""

    path: str = ""
    """Folder of books: {train,validation,test}/*.txt or *.txt; empty = search the data directory for pg19."""
    data_seed: NonNegativeInt = 0
    """Seed of the pairs."""
    train_size: PositiveInt = 147_086
    """Training pairs."""
    val_size: PositiveInt = 18_090
    """Validation pairs."""
    test_size: PositiveInt = 17_437
    """Test pairs. They do not change with the other sizes."""
    seq_len: Annotated[int, Interval(ge=16, le=100_000)] = 4_000
    """Bytes of a passage, the end-of-sequence token included."""
    eos: bool = False
    """Append an end-of-sequence token to each passage."""
