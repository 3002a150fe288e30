"""Values of a table's cells as inputs and labels, and what they are where nobody said so. L seq_len, C channels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo import ConfigError
from zoo_own.settings import DataSettings, Form, Kind

INPUTS = ("input", "inputs", "text", "sequence", "tokens", "sentence", "values", "x")
PAIRS = (("input1", "input2"), ("text1", "text2"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("a", "b"))
LABELS = ("label", "labels", "target", "class", "tags", "y")
MAX_CLASSES = 1_000
"""More different labels are taken for a mistake."""


def choose_columns(settings: DataSettings, row: dict[str, Any], file: str) -> tuple[tuple[str, ...], str]:
    """The columns of the inputs and of the label. Raises ConfigError that says what there is."""
    there = ", ".join(map(repr, row))
    for key, names in (("data.input", settings.input), ("data.label", [settings.label] if settings.label else [])):
        for name in names:
            if name not in row:
                raise ConfigError(key, f"{file} has no column {name!r}; there are {there}", origin="--set")
    if len(settings.input) > 2:
        raise ConfigError("data.input", f"one column, or two of pairs, not {len(settings.input)}", origin="--set")
    label = settings.label or next((name for name in LABELS if name in row and name not in settings.input), "")
    rest = [name for name in row if name != label]
    inputs = tuple(settings.input)
    inputs = inputs or next((pair for pair in PAIRS if set(pair) <= set(rest)), ())
    inputs = inputs or next(((name,) for name in INPUTS if name in rest), ())
    if not inputs and len(rest) == 1 and label:
        inputs = (rest[0],)
    if not label and len(inputs) == 1 and len(row) == 2:
        label = next(name for name in row if name not in inputs)
    if not inputs:
        raise ConfigError("data.input", f"which column of {file} has the inputs? There are {there}")
    if not label:
        raise ConfigError("data.label", f"which column of {file} has the labels? There are {there}")
    return inputs, label


# -- inputs --------------------------------------------------------------------------------------------------------


def guess_form(cells: Sequence[Any]) -> Form:
    """What the first inputs are: texts if any is, else numbers if any is no integer, else tokens. A cell of text that
    is a list of numbers is that list. What is none of these decides nothing: it is an error of its row."""
    forms = {_form_of(cell) for cell in cells}
    return next((form for form in ("text", "numbers") if form in forms), "tokens")


def _form_of(cell: Any) -> str:
    if isinstance(cell, str):
        cell = _list_in(cell)
        if cell is None:
            return "text"
    if not isinstance(cell, list) or not cell:
        return ""
    if all(_is_token(item) for item in cell):
        return "tokens"
    return "numbers" if all(isinstance(item, list | int | float) for item in cell) else ""


def _list_in(cell: Any) -> list[Any] | None:
    """The list that a text stands for: "[1, 2]", "0.5 1.5"; None for any other."""
    if not isinstance(cell, str):
        return None
    text = cell.strip()
    if text.startswith("["):
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, list) else None
    words = text.replace(",", " ").split()
    if len(words) < 2:
        return None
    try:
        return [int(word) if word.lstrip("+-").isdecimal() else float(word) for word in words]
    except ValueError:
        return None


def _is_token(item: Any) -> bool:
    return isinstance(item, str) or (isinstance(item, int) and not isinstance(item, bool))


def read_text(cell: Any) -> str:
    """A text. Raises ValueError."""
    if not isinstance(cell, str):
        raise ValueError(f"expected a text, got {_show(cell)}")
    if not cell.strip():
        raise ValueError("an empty text")
    return cell


def read_tokens(cell: Any) -> list[str]:
    """A list of tokens: strings or integers in a list, or separated by white space. Raises ValueError."""
    items = (
        (_list_in(cell) if cell.lstrip().startswith("[") else None) or cell.split() if isinstance(cell, str) else cell
    )
    if not isinstance(items, list):
        raise ValueError(f"expected a list of tokens, got {_show(cell)}")
    if not items:
        raise ValueError("no tokens")
    for position, item in enumerate(items):
        if not _is_token(item):
            raise ValueError(f"expected text or an integer at position {position}, got {_show(item)}")
    return [str(item) for item in items]


def read_numbers(cell: Any) -> np.ndarray:
    """Numbers (L, C) float32: a list of numbers, or of lists of as many. Raises ValueError."""
    items = _list_in(cell) if isinstance(cell, str) else cell
    if not isinstance(items, list):
        raise ValueError(f"expected a list of numbers, got {_show(cell)}")
    if not items:
        raise ValueError("no numbers")
    rows = [item if isinstance(item, list) else [item] for item in items]
    channels = len(rows[0])
    for position, row in enumerate(rows):
        if len(row) != channels or not channels:
            raise ValueError(f"ragged channels: {len(row)} at position {position}, {channels} at the first")
        for value in row:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"expected a finite number at position {position}, got {_show(value)}")
    with np.errstate(over="ignore"):
        array = np.array(rows, np.float32)
    if not np.isfinite(array).all():
        raise ValueError("a number that is too large for 32 bits")
    return array


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


# -- labels --------------------------------------------------------------------------------------------------------


def guess_kind(cells: Sequence[Any], pairs: bool) -> Kind:
    """What is learned, by the first labels: lists are labels of positions, fractions are to be predicted."""
    if all(isinstance(cell, list) or (isinstance(cell, str) and cell.lstrip().startswith("[")) for cell in cells):
        return "token_classification"
    if all(_is_number(cell) for cell in cells) and not all(_is_integer(cell) for cell in cells) and not pairs:
        return "regression"
    return "pair_classification" if pairs else "classification"


def _is_number(cell: Any) -> bool:
    try:
        return not isinstance(cell, bool) and float(cell) is not None
    except (TypeError, ValueError):
        return False


def _is_integer(cell: Any) -> bool:
    return isinstance(cell, int) or (isinstance(cell, str) and cell.strip().lstrip("+-").isdecimal())


def read_class(cell: Any) -> str:
    """The name of a class. Raises ValueError."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    if not isinstance(cell, str | int) or cell == "":
        raise ValueError(f"expected a label, got {_show(cell)}")
    return str(cell).strip() if not isinstance(cell, bool) else str(cell).lower()


def read_classes(cell: Any) -> list[str]:
    """The names of the classes of positions. Raises ValueError."""
    items = cell
    if isinstance(cell, str):
        items = json.loads(cell) if cell.lstrip().startswith("[") else cell.split()
    if not isinstance(items, list):
        raise ValueError(f"expected a list of labels, got {_show(cell)}")
    return [read_class(item) for item in items]


def read_target(cell: Any) -> float:
    """A number to be predicted. Raises ValueError."""
    if not _is_number(cell) or not math.isfinite(float(cell)):
        raise ValueError(f"expected a finite number, got {_show(cell)}")
    return float(cell)


def sorted_names(names: Sequence[str]) -> list[str]:
    """Names in their order: of numbers if all are, else of text."""
    if all(name.lstrip("+-").isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
