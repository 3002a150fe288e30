"""Answers of a trained model to the inputs in a user's file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.data.files import decode_utf8 as decode
from zoo.data.files import read_file
from zoo.data.tables import is_table, read_rows, where
from zoo.run.trained import TrainedModel
from zoo.spec.errors import DataError, UserError
from zoo.spec.files import placed_atomically

BATCH = 32
TEXT_LIMIT = 1 << 28
"""Bytes of a text file that is one input."""
ENDINGS = (".jsonl", ".csv")


def predict(trained: TrainedModel, source: Path, target: Path) -> int:
    """Write the model's answer to each input of `source` into `target`, in the order of the rows; return their number.

    source  a table (zoo/data/tables.py) with the columns of the data's inputs; or, where these are one text, a text
            file, which is one input
    target  .jsonl or .csv, replaced whole or not at all; `row` is the line in which an input begins

    Raises UserError or DataError that names file and row; then nothing is written.
    """
    if target.suffix.lower() not in ENDINGS:
        raise UserError(f"--output {target}: expected a name that ends in {' or '.join(ENDINGS)}")
    kind, rows, n = trained.experiment.kind, _encoded(trained, source), 0
    with placed_atomically(target) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        with torch.inference_mode():
            while group := list(islice(rows, BATCH)):
                inputs = [encoded for _, encoded in group]
                answers = kind.predict(trained.model, trained.data, inputs, stateful=trained.experiment.stateful)
                for (number, _), answer in zip(group, answers, strict=True):
                    line = {"row": number, **answer}
                    if target.suffix.lower() == ".jsonl":
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
                        n += 1
                        continue
                    flat = _flat(line)
                    if not n:
                        writer.writerow(flat)
                    writer.writerow(flat.values())
                    n += 1
    return n


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """A row of a CSV file: {"probabilities": {"yes": 0.9}} -> {"probabilities.yes": 0.9}, lists as JSON."""
    flat: dict[str, Any] = {}
    for key, value in line.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": part for name, part in value.items()}
        else:
            flat[key] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return flat


def _encoded(trained: TrainedModel, source: Path) -> Iterator[tuple[int, Any]]:
    """The number and the encoded input of each row."""
    data = trained.data
    if not is_table(source) and data.input_columns == ("text",):
        text = decode(read_file(source, TEXT_LIMIT), source)
        yield 1, _encode(trained, [text], str(source))
        return
    for number, row in read_rows(source):
        columns = data.input_columns
        if len(columns) == len(row) == 1:
            columns = tuple(row)
        missing = [column for column in columns if column not in row]
        if missing:
            raise DataError(f"{where(source, number)}: no column {missing[0]!r}; there are {', '.join(row)}")
        yield number, _encode(trained, [row[column] for column in columns], where(source, number))


def _encode(trained: TrainedModel, values: list[Any], place: str) -> Any:
    """Encode an input. Raises DataError that names its place."""
    experiment = trained.experiment
    try:
        encoded = trained.data.encode(values)
        if isinstance(encoded, np.ndarray):
            numbers = np.issubdtype(encoded.dtype, np.floating)
            length = encoded.shape[0 if numbers else -1]
            if length > experiment.max_len:
                raise ValueError(f"{length:,} tokens, the model reads at most {experiment.max_len:,}")
            if not numbers and not 0 <= encoded.min() <= encoded.max() < experiment.vocab_size:
                raise ValueError(
                    f"token ids {encoded.min()} … {encoded.max()}, expected 0 … {experiment.vocab_size - 1}"
                )
            if numbers != bool(experiment.model_spec.channels):
                raise ValueError("expected " + ("token ids" if numbers else "real numbers"))
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{place}: {error}") from error
    return encoded
