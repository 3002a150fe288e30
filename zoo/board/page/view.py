"""What the page shows, as plain text and numbers: its tables, and of each row what its drawer holds."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote

import pandas as pd

from zoo.board.analysis import summaries
from zoo.board.costs import MODES, median_speed
from zoo.board.headings import options_line, section_heading, section_title, task_description, training_line
from zoo.board.metric import Metric
from zoo.board.results import REPRODUCTION, Section
from zoo.board.runs import validations
from zoo.board.tables import row_label, section_table
from zoo.board.words import BEYOND, INTERVALS, MEMORY, OBJECTIVES, describe_key
from zoo.spec.analysis import AnalysisRecord, LossAt
from zoo.spec.config import flatten, preset_values
from zoo.spec.record import Record
from zoo.spec.registry import Entry, registry
from zoo.spec.settings import NOT_IDENTITY
from zoo.spec.store import StoredRecord

SCORE = "score"
SHOWN = (
    *("rank", "architecture", SCORE, "95 % interval", "seeds", "rank range", "family"),
    *("train tokens/s", MEMORY, "parameters", "objective", BEYOND, "reported", "Δ", "notes"),
)
"""Columns that are shown at first: the score and how sure it is before the rest, which a narrow screen cuts off. The
others wait in the column chooser."""
SURE = ("95 % interval", "seeds")
"""Columns that take two lines on a narrow screen, so that they fit beside the score."""
LAST = ("notes",)
FACETS = ("task", "family", "capability", "objective", "hardware")
NOT_INSTALLED = "not installed here"


@dataclass
class Row:
    """A row of the table: its cells by column, what they are sorted by where that is a number, its record, and the
    number of its drawer."""

    cells: dict[str, str]
    keys: dict[str, float]
    record: str
    drawer: int


@dataclass
class Group:
    """The rows of one task: `about` are its metric, baselines and test set, `training` what they were trained with."""

    anchor: str
    title: str
    description: str
    about: str
    training: str
    rows: list[Row]
    sources: Sequence[str]


@dataclass
class Drawers:
    """What the rows' drawers hold, as JSON values: texts that many share are kept once, in `pool`. `analyses` are
    those of runs, by the ids of their records, and `files` what lies beside the page of each, by what it is."""

    analyses: Mapping[str, AnalysisRecord] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    pool: dict[str, int] = field(default_factory=dict)

    def shared(self, text: str) -> int:
        """The number of a text in the pool."""
        return self.pool.setdefault(text, len(self.pool))


def table_of(
    sections: Sequence[Section], stored: Sequence[StoredRecord], drawers: Drawers, link: Callable[[str], str]
) -> tuple[list[str], list[Group]]:
    """The columns and the rows, task by task, of the table of a protocol."""
    columns: dict[str, None] = {}
    groups = []
    for section in sections:
        table = section_table(section)
        title = section.metric.title
        names = [SCORE if name == title else name for name in table.headers]
        rows = []
        for (_, row), cells in zip(section.rows.iterrows(), table.rows, strict=True):
            # of speeds the median is enough here; README.md and board.csv have the quartiles
            speeds = {name: cells[k].partition(" ")[0] for k, name in enumerate(names) if name.endswith("tokens/s")}
            shown = dict(zip(names, cells, strict=True)) | speeds | {"family": row["family"]}
            if section.protocol != REPRODUCTION:
                shown.pop("reported", None)
            drawers.rows.append(_drawer(section, row, stored, drawers))
            rows.append(Row(shown, _keys(section, row), link(row["records"][0]), len(drawers.rows) - 1))
            columns |= dict.fromkeys(shown)
        about = f"{title}, {'higher' if section.metric.higher_is_better else 'lower'} is better"
        about = "; ".join(filter(None, (about, section_heading(section, explained=True))))
        sources = table.sources if section.protocol == REPRODUCTION else ()
        anchor = f"{section.protocol}-{section.task}"
        trained = "; ".join(filter(None, (training_line(section), options_line(section))))
        texts = (section_title(section), task_description(section), about, trained)
        groups.append(Group(anchor, *texts, rows, sources))
    order = [name for name in SHOWN if name in columns and name not in LAST]
    return [*order, *(name for name in columns if name not in SHOWN), *(n for n in LAST if n in columns)], groups


def _keys(section: Section, row: pd.Series) -> dict[str, float]:
    """What cells are sorted by, by column; of scores more is better."""
    sign = 1 if row["higher_is_better"] else -1
    keys = {
        "rank": row["rank"],
        "rank range": row["best_rank"],
        "parameters": row["parameters"],
        "seeds": row["seeds"],
        SCORE: sign * row["score"],
        "95 % interval": sign * (row["low"] if sign > 0 else row["high"]),
        "paired difference": row["difference"].mean if row["difference"] else math.nan,
        "Δ": sign * row["delta"],
        BEYOND: sign * row["length_generalization"],
        MEMORY: row["cost"].memory_bytes if row["cost"] else math.nan,
        **{f"{mode} tokens/s": median_speed(row["cost"], mode) for mode in MODES},
        **{Metric(name).title: value for name, value in row["other_scores"].items()},
    }
    return {name: float(f"{value:.6g}") for name, value in keys.items() if value is not None and not pd.isna(value)}


def _facets(row: pd.Series, record: Record) -> dict[str, list[str]]:
    return {
        "task": [record.task.name],
        "family": [record.architecture.family],
        "capability": capabilities(record.plugin.distribution, record.architecture.name),
        "objective": [OBJECTIVES[record.objective]],
        "hardware": row["hardware"] or ["none: no run ended well"],
    }


def installed(distribution: str, name: str) -> Entry[Any] | None:
    """The architecture of a record, if it is installed here."""
    known = registry().registered_as(distribution, name)
    return registry().architectures[known] if known else None


@cache
def capabilities(distribution: str, name: str) -> list[str]:
    """What the architecture is defined for, in words."""
    entry = installed(distribution, name)
    if entry is None:
        return [NOT_INSTALLED]
    can = entry.record.capabilities
    words = [*sorted(can.modes), f"state: {can.state}", f"length: {can.length}"]
    return words + ["step by step"] * can.step + ["in segments"] * can.segment


# -- drawers -------------------------------------------------------------------------------------------------------


def _drawer(section: Section, row: pd.Series, stored: Sequence[StoredRecord], drawers: Drawers) -> dict[str, Any]:
    """What is known of a row: facts, how to repeat it, its configuration against its preset, its runs with curves."""
    runs = [stored[run] for run in row["runs"]]
    record = runs[-1].record
    analysed = [found for one in runs if (found := drawers.analyses.get(one.record.id))]
    interval = describe_key(INTERVALS[row["interval"]], row["interval"]) if row["interval"] else ""
    facts = [*_facts(record), ("95 % interval", interval), *(summaries(analysed[-1]) if analysed else [])]
    metric = Metric(row["metric"], bool(row["higher_is_better"]))
    flat = flatten(record.config)
    preset = _preset(record)
    differing = [
        [key, _text(value), _text(preset[key])]
        for key, value in flat.items()
        if preset and key in preset and key not in NOT_IDENTITY and preset[key] != value
    ]
    return {
        "facets": _facets(row, record),
        "title": f"{row_label(row)} on {section_title(section)}, protocol {section.protocol}",
        "facts": [[drawers.shared(label), drawers.shared(text)] for label, text in facts if text],
        "repeat": _command(record, len(runs)),
        "preset": differing if preset else None,
        "config": [drawers.shared(f"{key} = {_text(value)}") for key, value in flat.items()],
        "metric": drawers.shared(metric.title),
        "share": metric.is_share,
        "analysis": _analysis(analysed[-1], drawers.files) if analysed else None,
        "runs": [
            {
                "seed": one.seed,
                "outcome": one.error or one.status
                if one.metrics is None
                else metric.format(one.metrics.test.scores[metric.name]),
                "record": path,
                "ended": one.ended[:10],
                "commit": drawers.shared(_commit(one)),
                "curve": [
                    [point.samples, round(point.seconds), float(f"{point.metric:.5g}")] for point in validations(one)
                ],
            }
            for path, one in runs
        ],
    }


def _analysis(record: AnalysisRecord, files: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The files of a run's analysis, and its losses by context: [log2 of the tokens, the tokens, the loss]."""

    def line(points: Sequence[LossAt]) -> list[list[float]]:
        return [[round(math.log2(p.tokens), 3), p.tokens, float(f"{p.loss:.5g}")] for p in points if p.loss is not None]

    found = record.context
    return {
        "files": [[name, quote(path)] for name, path in files.get(record.run, {}).items()],
        "context": [line(found.truncated), line(found.shuffled)] if found else [],
    }


def _facts(record: Record) -> list[tuple[str, str]]:
    plugin, data, hardware = record.plugin, record.data, record.hardware
    entry = installed(plugin.distribution, record.architecture.name)
    files = [f"{name}: {digest}" for name, digest in (data.files or {}).items()]
    paper = entry.record.paper if entry else None
    away = "" if entry else ", not installed here"
    matched = f", matched with {record.match.architecture}" if record.match else ""
    return [
        ("architecture", f"{record.architecture.title}, {record.architecture.family}"),
        ("paper", f"{paper.authors}: {paper.title}. {paper.venue} {paper.year}" if paper else ""),
        ("arXiv", f"https://arxiv.org/abs/{paper.arxiv}" if paper and paper.arxiv else ""),
        ("card", f"zoo show {record.architecture.name}" if entry else ""),
        ("plugin", f"{plugin.distribution} {plugin.version} ({plugin.entry_point}){away}"),
        ("plugin's page", home_page(plugin.distribution) if entry else ""),
        ("source hash", plugin.source_hash),
        ("configuration hash", record.config_hash),
        ("architecture version", record.architecture.version),
        ("task and protocol version", f"{record.task.version}, {record.protocol_version}"),
        ("parameters", f"{record.parameters:,}{matched}"),
        ("objective", describe_key(OBJECTIVES[record.objective], record.objective)),
        ("state", f"{record.state_size:,} numbers per sequence" if record.state_size else ""),
        ("training", f"{record.samples:,} samples, {record.tokens:,} tokens, {record.seconds.train:,.0f} s"),
        ("floating-point operations", f"{record.flops:.3g}" if record.flops else ""),
        ("segments", ", ".join(f"{k} {_text(v)}" for k, v in (record.segment_plan or {}).items())),
        ("hardware", ", ".join(f"{key}: {_text(value)}" for key, value in hardware.items())),
        ("packages", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("forms of operators", ", ".join(f"{op}: {form}" for op, form in record.op_backends.items())),
        ("data", f"{data.kind}, version {data.version}" + ("" if data.seed is None else f", seed {data.seed}")),
        ("data fingerprints", "; ".join(files)),
        ("examples", ", ".join(f"{split} {count:,}" for split, count in data.counts.items())),
    ]


@cache
def home_page(distribution: str) -> str:
    """The web page that an installed distribution names; "" for none."""
    from importlib import metadata

    try:
        about = metadata.metadata(distribution)
    except metadata.PackageNotFoundError:
        return ""
    links = [url.partition(",")[2].strip() for url in about.get_all("Project-URL") or []]
    pages = [*(about.get_all("Home-page") or []), *links]
    return next((url for url in pages if url.startswith(("https://", "http://"))), "")


def _commit(record: Record) -> str:
    git = record.git
    return f"{git.commit[:12]}{' with changes' if git.dirty else ''}" if git.commit else "installed package"


def _command(record: Record, seeds: int) -> str:
    """The command that trains the same again."""
    words = ["zoo", "bench", "--arch", record.architecture.name, "--task", record.task.name]
    words += ["--protocol", record.protocol]
    words += ["--seeds", str(seeds)] if seeds > 1 else ["--seed", str(record.seed)]
    for key, value in record.overrides.items():
        words += ["--init", _text(value)] if key == "init" else ["--set", f"{key}={_text(value)}"]
    return shlex.join(words)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _preset(record: Record) -> dict[str, Any]:
    """The values that its architecture has for the task and protocol of a record; empty where they are not known."""
    return _known_preset(
        *(record.plugin.distribution, record.architecture.name, record.architecture.version),
        *(record.task.name, record.task.version, record.protocol),
    )


@cache
def _known_preset(
    distribution: str, name: str, version: str, task: str, task_version: str, protocol: str
) -> dict[str, Any]:
    architecture, entry = installed(distribution, name), registry().tasks.get(task)
    if architecture is None or entry is None or protocol not in entry.record.protocols:
        return {}
    if (architecture.record.version, entry.record.version) != (version, task_version):
        return {}
    values = preset_values(architecture.record, entry.record, protocol)
    return json.loads(json.dumps(values, default=str))
