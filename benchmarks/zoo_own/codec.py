"""Inputs and labels as arrays, and as the bytes of a prepared row. L seq_len, C channels.

A codec is a dictionary of JSON values, which a run keeps with its model:
    columns     {"input": one or two names, "label": name}
    form, kind  of the inputs, and what is learned (zoo_own/settings.py)
    classes     names of the classes, in the order of their numbers
    vocabulary  tokens in the order of their ids from 2; 0 pads, 1 is a token that no training row has
    tokenizer   of texts
    mean, scale    of the channels of numbers over the training rows: the model reads (x - mean) / scale
    target      the same two of numbers to be predicted

A row holds, in bytes: the label (a class int32; a number float64; of positions int32 each), of pairs the length of the
first input (int32), then the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.tokens import dtype_of, load_tokenizer
from zoo_own import columns

PADS, UNKNOWN, FIRST = 0, 1, 2


class Codec:
    """Encodes by a codec's dictionary. Picklable."""

    def __init__(self, fields: Mapping[str, Any], seq_len: int = 0) -> None:
        self.fields, self.seq_len = fields, seq_len or None
        self.form, self.kind = fields["form"], fields["kind"]
        self.ids = {token: FIRST + k for k, token in enumerate(fields["vocabulary"])}
        self.numbers_of = {name: k for k, name in enumerate(fields["classes"])}
        self.mean, self.scale = (np.array(fields[key], np.float32) for key in ("mean", "scale"))
        if self.form == "text":
            self.dtype = dtype_of(load_tokenizer(fields["tokenizer"]).size)
        else:
            self.dtype = dtype_of(FIRST + len(self.ids)) if self.form == "tokens" else np.dtype("<f4")

    # -- cells -> arrays ---------------------------------------------------------------------------------------------

    def read(self, cell: Any) -> np.ndarray:
        """An input as it is stored: ids (L,), or numbers (L, C). Raises ValueError."""
        if self.form == "text":
            ids = load_tokenizer(self.fields["tokenizer"]).encode(columns.read_text(cell)).ids
            if not len(ids):
                raise ValueError("a text without tokens")
            return ids.astype(self.dtype)
        if self.form == "tokens":
            return np.array([self.ids.get(token, UNKNOWN) for token in columns.read_tokens(cell)], self.dtype)
        numbers = columns.read_numbers(cell)
        if numbers.shape[1] != len(self.mean):
            raise ValueError(f"{numbers.shape[1]} channels, the rows before have {len(self.mean)}")
        return numbers

    def read_label(self, cell: Any, length: int) -> np.ndarray:
        """A label as it is stored. Raises ValueError."""
        if self.kind == "regression":
            return np.array([columns.read_target(cell)], "<f8")
        names = columns.read_classes(cell) if self.kind == "token_classification" else [columns.read_class(cell)]
        if self.kind == "token_classification" and len(names) != length:
            raise ValueError(f"{len(names)} labels for {length} positions")
        return np.array([self.numbers_of[name] for name in names], "<i4")

    def pack(self, inputs: Sequence[np.ndarray], label: np.ndarray) -> bytes:
        """A row of a prepared folder."""
        first = [np.array([len(inputs[0])], "<i4")] if len(inputs) == 2 else []
        return b"".join(part.tobytes() for part in [label, *first, *inputs])

    # -- bytes -> examples ---------------------------------------------------------------------------------------------

    def unpack(self, row: np.ndarray) -> tuple[np.ndarray, Any]:
        """row (n,) uint8 -> what the model reads and its label, as the kind of the task takes them."""
        if self.kind == "token_classification":
            length = self.lengths(np.array([len(row)]))[0]
            labels = row[: 4 * length].view("<i4")[: self.seq_len].astype(np.int64)
            return self.present([self._stored(row[4 * length :])]), labels
        if self.kind == "regression":
            mean, scale = self.fields["target"]
            return self.present([self._stored(row[8:])]), (float(row[:8].view("<f8")[0]) - mean) / scale
        label = int(row[:4].view("<i4")[0])
        if self.kind == "classification":
            return self.present([self._stored(row[4:])]), label
        stored, first = row[8:].view(self.dtype), int(row[4:8].view("<i4")[0])
        return self.present([stored[:first], stored[first:]]), label

    def _stored(self, part: np.ndarray) -> np.ndarray:
        stored = part.view(self.dtype)
        return stored.reshape(-1, len(self.mean)) if self.form == "numbers" else stored

    def present(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Stored inputs as the model reads them: ids (L,), of pairs (2, L) padded, or standardised numbers (L, C)."""
        if self.form == "numbers":
            return (inputs[0][: self.seq_len] - self.mean) / self.scale
        shift = 1 if self.form == "text" else 0  # a tokenizer's ids begin at 0, which pads here
        rows = [part[: self.seq_len].astype(np.int64) + shift for part in inputs]
        if len(rows) == 1:
            return rows[0]
        padded = np.zeros((2, max(map(len, rows))), np.int64)
        for into, ids in zip(padded, rows, strict=True):
            into[: len(ids)] = ids
        return padded

    def lengths(self, sizes: np.ndarray) -> np.ndarray:
        """Positions of rows of these sizes in bytes (n,); of pairs those of both inputs together."""
        position = self.dtype.itemsize * (len(self.mean) if self.form == "numbers" else 1)
        if self.kind == "token_classification":
            return sizes // (position + 4)
        return (sizes - (4 if self.kind == "classification" else 8)) // position
