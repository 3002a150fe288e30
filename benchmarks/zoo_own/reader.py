"""From a folder or file to a task: read it once, infer what it is, prepare it, and say so."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo import DataError, UserError
from zoo.data import store
from zoo.data.files import file_stamps, oserror_as_data_error, write_atomically
from zoo.data.module import SPLITS
from zoo.data.paths import cache_dir, data_dir
from zoo.data.progress import notice, progress
from zoo.data.tokens import load_tokenizer, vocab_size
from zoo_own import text_data
from zoo_own.codec import FIRST
from zoo_own.naming import hashed, name_of
from zoo_own.scan import Scan, describe_splits, find_tables
from zoo_own.settings import DataSettings, protocols
from zoo_own.table_data import READER, TableRecipe, own_folder

WORDS = {
    "classification": "a class for each input",
    "pair_classification": "a class for each pair",
    "token_classification": "a class for each position",
    "regression": "a number for each input",
}


def declare(place: Path, settings: DataSettings) -> dict[str, Any]:
    """Prepare the data in a folder or file, unless it was done before, and return the fields of their task."""
    if not os.path.exists(place):
        raise UserError(f"--data {place}: no such folder or file")
    with oserror_as_data_error(place):
        tables, texts = find_tables(place) if place.is_dir() else [place], text_data.find_texts(place)
    running_text = settings.kind == "language_modeling" or (settings.kind == "auto" and texts and not _tables(tables))
    files = texts if running_text else tables
    if not files:
        expected = "*.txt" if running_text else "*.jsonl, *.csv, *.tsv, *.parquet or *.txt"
        raise DataError(f"--data {place}: no data there; expected {expected}")
    values: dict[str, Any] = {"reader": READER, "place": str(place.resolve()), "files": file_stamps(files)}
    values |= {"settings": asdict(settings), "tokenizer": load_tokenizer(settings.tokenizer).digest}
    values["budgets"] = [protocols(2, {}), protocols(2, {}, running_text=True)]  # which a later zoo may change
    index = cache_dir(data_dir()) / "own" / f"{hashed(values)}.json"
    known = _read_index(index)
    if known is None:
        known = (text_data.make if running_text else make)(place, settings)
        with oserror_as_data_error(index, ours=True):
            index.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(index, json.dumps(known))
    for line in known["shown"]:
        notice(f"{known['task']['name']}: {line}")
    return known["task"]


def _tables(paths: list[Path]) -> bool:
    return any(path.suffix != ".txt" for path in paths)


def _read_index(index: Path) -> dict[str, Any] | None:
    """What was inferred from these files before; None where they, or what was prepared, are no longer there."""
    try:
        known = json.loads(index.read_text("utf-8"))
        fingerprint = known["task"]["protocols"]["quick"]["task.fingerprint"]
    except (OSError, ValueError, KeyError):
        return None
    return known if own_folder(data_dir(), fingerprint).exists() else None


def make(place: Path, settings: DataSettings) -> dict[str, Any]:
    """Scan and prepare tables: {"task": fields of the Task, "shown": lines for the user}."""
    name = name_of(place, settings)
    with progress(f"reading {name}") as update:
        scan = Scan(place, settings, update)
    files = scan.files()
    recipe = TableRecipe(scan, files)
    codec = recipe.fields
    named = {path.name: split for path, split in scan.named.items()}
    identity = {key: codec[key] for key in ("columns", "form", "kind")} | {"files": files, "splits": named}
    identity |= {"seed": settings.seed if scan.held_out else 0, "duplicates": settings.duplicates, "reader": READER}
    identity |= {"tokenizer": load_tokenizer(settings.tokenizer).digest if scan.form == "text" else ""}
    fingerprint = hashed(identity)
    with progress(f"preparing {name}") as update:
        store.build(own_folder(data_dir(), fingerprint), recipe, update)
    counts = [int((scan.splits == code).sum()) for code in range(len(SPLITS))]
    classes = len(codec["classes"])
    regression = scan.kind == "regression"
    length = max(scan.longest, 2)
    words = {"text": vocab_size(settings.tokenizer), "tokens": FIRST + len(codec["vocabulary"]), "numbers": 0}
    task = {
        "name": name,
        "suite": "own",
        "title": name.replace("_", " ").capitalize(),
        "version": "1",
        "kind": scan.kind,
        "vocab_size": words[scan.form],
        "classes": 1 if regression else classes,
        "channels": scan.channels,
        "length": length,
        "metrics": ["mse", "r2"] if regression else ["accuracy"],
        "higher_is_better": not regression,
        "chance": None if regression else 1 / classes,
        "license": "your own",
        "source": {},
        "data": "zoo_own.table_data:TableData",
        "options": "zoo_own.settings:OwnOptions",
        "protocols": protocols(length, {"fingerprint": fingerprint}),
    }
    return {"task": task, "shown": _shown(scan, codec, counts, length)}


def _shown(scan: Scan, codec: Mapping[str, Any], counts: list[int], length: int) -> list[str]:
    """What was inferred, in words."""
    inputs = " and ".join(map(repr, codec["columns"]["input"]))
    what = {
        "text": f"texts of {scan.settings.tokenizer}",
        "tokens": f"tokens, {len(codec['vocabulary']):,} different",
        "numbers": f"numbers, {scan.channels} a position, standardised by the training rows",
    }[scan.form]
    others = "|".join(form for form in ("text", "tokens", "numbers") if form != scan.form)
    if scan.kind == "regression":
        labels = f"mean {codec['target'][0]:.4g}, standard deviation {codec['target'][1]:.4g}"
    else:
        names = ", ".join(codec["classes"][:8]) + (", …" if len(codec["classes"]) > 8 else "")
        labels = f"{len(codec['classes'])} classes: {names}"
    guessed = f" (data.read={others} reads them otherwise)" if scan.settings.read == "auto" else ""
    return [
        f"input {inputs}: {what}, at most {length:,} long{guessed}",
        f"label {scan.label!r}: {WORDS[scan.kind]}; {labels}",
        describe_splits(scan, counts),
    ]
