"""The board as one HTML page, index.html, which opens from disk without network. The same records give the same bytes.

Tables are HTML and charts SVG, so that all of it reads without JavaScript; page.js adds tabs, sorting, filters and
drawers. It is written by hand: the libraries for tables (DataTables, Tabulator, Grid.js) draw tables of their own in
place of the document's. Nor are the charts interactive Vega: its bundle has 0.9 MB, and every chart would be computed
anew on opening.

Names come from records and plugins of others: the template escapes them, the script sets them as text, and a content
security policy lets the page load nothing and run no other script.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from zoo.board.breakdown import placed_groups
from zoo.board.charts import breakdown_chart, choose_view, scores_chart, to_svg
from zoo.board.curves import agreement_chart, learning_curves
from zoo.board.evaluated import SENTENCE as EVALUATED
from zoo.board.evaluated import evaluated_table, evaluated_tasks, positions_charts, positions_table
from zoo.board.families import families_of
from zoo.board.overall import overall_lines, overall_table, overall_title, overalls
from zoo.board.page.literature import literature
from zoo.board.page.view import FACETS, SHOWN, SURE, Drawers, Group, table_of
from zoo.board.part import Part
from zoo.board.results import REPRODUCTION, Board, Section
from zoo.board.summary import CONDITIONS, FAMILIES, Suite, families, suites, winners, winners_note
from zoo.board.tables import Table, breakdown_remark, breakdown_tables, problem_lines, questions_lines, remarks
from zoo.board.takeaways import STATE, TIME, takeaways
from zoo.board.tradeoffs import cost_chart, state_chart
from zoo.board.words import LEGEND, column_meaning
from zoo.spec.analysis import AnalysisRecord
from zoo.spec.evaluation import EvaluationRecord
from zoo.spec.store import Problem, StoredRecord

SENTENCES = {
    "overall": "The mean over tasks holds for these tasks only.",
    "rows": "Every configuration that was run, task by task; choose a name for its runs, its configuration and how to "
    "repeat it. Scores of different tasks are not comparable, so sorting stays within a task.",
    "scores": "Means with their 95 % interval, each with the mark of its family, the same in all charts; grey: not "
    "ranked; hollow dots: single seeds. Where the intervals come from single runs they say nothing about other seeds.",
    "cost": "The score, its 95 % interval in grey, against the time of training, measured apart on one machine: on "
    "another the order can differ. No row is both better and faster than those on the dashed line. A dotted line leads "
    "from a point to its name; one without a name had no room for it, and is named under the pointer.",
    "state": "The score, its 95 % interval in grey, against what an architecture carries from one part of a "
    "sequence to the next. A small state does not mean a small model.",
    "curves": "The score on validation during training, of several seeds their mean in a band from the worst to the "
    "best. A curve that still rises says that the budget was too small, not how it would go on.",
    "seconds": "The same by seconds: those of the runs themselves, whatever else the machine did meanwhile.",
    "agreement": "How many of the test questions two rows answer alike, both right or both wrong. Two good rows agree "
    "for that reason alone.",
    "breakdown": "The score over groups of test questions. Lengths beyond training are in no average and no rank.",
    "evaluated": EVALUATED,
    "positions": "The score by where the answer stands in the input; bars: 95 % intervals, Wilson's, over the "
    "questions of each place.",
}
"""What each table or chart shows, and what it cannot."""
DRAWN = 60
"""Rows of a task that its charts show."""


@dataclass
class Figure:
    """A chart, what it says (`takeaways`), and how to read it; `paper`: it stays on white in a dark page."""

    name: str
    alt: str
    svg: str
    text: str
    paper: bool
    takeaways: Sequence[str] = ()


@dataclass
class Task:
    """What the page says of a task beside its rows."""

    group: Group
    remarks: list[str]
    figures: list[Figure]
    tables: list[tuple[str, Table]]
    breakdown: str
    questions: list[str]


@dataclass
class Protocol:
    """A tab."""

    name: str
    links: list[tuple[str, str]]
    winners: Table
    winners_note: str
    suites: list[Suite]
    families: Table
    overalls: list[tuple[str, Table, str]]
    figures: list[Figure]
    parts: list[tuple[Part, Figure | None]]
    columns: list[str]
    groups: list[Group]
    tasks: list[Task]


def render_page(
    board: Board,
    stored: Sequence[StoredRecord],
    problems: Sequence[Problem] = (),
    *,
    records: str = "results/",
    evaluations: Sequence[EvaluationRecord] = (),
    parts: Sequence[Part] = (),
    analyses: Sequence[AnalysisRecord] = (),
    analysis_files: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> tuple[str, list[str]]:
    """The page, and messages for the user. `stored` are exactly the records of the board; `records` is where they lie,
    as seen from the page, and `analysis_files` the files of each run's analysis, by what they are."""
    drawers = Drawers(analyses={analysis.run: analysis for analysis in analyses}, files=analysis_files)
    families = families_of(board.sections())
    protocols = [
        _protocol(name, sections, stored, drawers, lambda path: quote(records + path), parts, families)
        for name, sections in board.protocols()
    ]
    table, messages = literature(board)
    environment = Environment(
        loader=PackageLoader("zoo.board.page", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "ensure_ascii": False, "separators": (",", ":")}
    files = importlib.resources.files(__name__)
    script, style = (files.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("page.html.jinja").render(
        protocols=protocols,
        literature=table,
        evaluated=_evaluated(evaluations),
        data={"facets": FACETS, "rows": drawers.rows, "pool": list(drawers.pool)},
        shown=SHOWN,
        sure=SURE,
        legend=LEGEND,
        meaning=column_meaning,
        sentences=SENTENCES | {"families": FAMILIES},
        conditions=CONDITIONS,
        problems=problem_lines(problems),
        count=len(stored),
        rows=sum(len(group.rows) for protocol in protocols for group in protocol.groups),
        newest=max((record.ended for _, record in stored), default="")[:16].replace("T", " "),
        script=script,
        script_hash=digest,
        style=style,
    )
    return page, messages


def _evaluated(records: Sequence[EvaluationRecord]) -> dict[str, Any]:
    """The section of evaluated checkpoints: its table, charts and scores by position; empty without any."""
    if not records:
        return {}
    charts = positions_charts(records).items()
    places = [each for several in evaluated_tasks(records).values() for each in several]
    return {
        "table": evaluated_table(records),
        "figures": [_figure(f"evaluated-{task}", f"{task}: by position", chart, "positions") for task, chart in charts],
        "tables": [(f"{each.task}: {each.checkpoint}", positions_table(each)) for each in places],
    }


def _protocol(
    name: str,
    sections: list[Section],
    stored: Sequence[StoredRecord],
    drawers: Drawers,
    link: Callable[[str], str],
    parts: Sequence[Part],
    marked: Sequence[str],
) -> Protocol:
    columns, groups = table_of(sections, stored, drawers, link)
    tables = [(overall_title(o), overall_table(o), " ".join(overall_lines(o))) for o in overalls(sections)]
    charts = []
    for kind, what, draw, cost in (
        ("cost", "the time of training", cost_chart, TIME),
        ("state", "the size of the state", state_chart, STATE),
    ):
        alt, lines = f"{name}: scores against {what}", takeaways(sections, cost)
        charts.append(_figure(f"{name}-{kind}", alt, draw(sections, marked), kind, lines))
    figures = [figure for figure in charts if figure]
    drawn = [(part, _figure(part.chart[:-4], part.title, part.draw(), "")) for part in parts if part.protocol == name]
    tasks = [_task(section, group, stored, marked) for section, group in zip(sections, groups, strict=True)]
    best = winners(sections)
    return Protocol(
        name=name,
        links=_links(name, bool(best.rows), tables, figures, drawn, groups),
        winners=best,
        winners_note=winners_note(sections),
        suites=suites(sections),
        families=families(sections),
        overalls=tables,
        figures=figures,
        parts=drawn,
        columns=columns,
        groups=groups,
        tasks=tasks,
    )


def _links(
    name: str,
    ranked: bool,
    overall: Sequence[tuple[str, Table, str]],
    figures: Sequence[Figure],
    parts: Sequence[tuple[Part, Figure | None]],
    groups: Sequence[Group],
) -> list[tuple[str, str]]:
    """The parts of a protocol's tab: their ids, and what the list at its head calls them; of like parts the first."""
    links = [(f"{name}.best", "who is best"), (f"{name}.tasks", "tasks"), (f"{name}.families", "families")] * ranked
    links += [(f"{name}.overall-{k}", title) for k, (title, _, _) in enumerate(overall, 1)]
    links += [(figure.name, figure.alt.partition(": ")[2]) for figure in figures]
    links += [(f"{name}.rows", "all rows")]
    titles: dict[str, int] = {}
    for k, (part, _) in enumerate(parts, 1):
        titles.setdefault(part.title.partition(":")[0].lower(), k)
    links += [(f"{name}.part-{k}", title) for title, k in titles.items()]
    return links + [(group.anchor, group.title) for group in groups]


def _task(section: Section, group: Group, stored: Sequence[StoredRecord], marked: Sequence[str]) -> Task:
    shown = section.current and not section.cost_only
    what = f"{section.protocol}, {section.task}"
    rows = section.rows.head(DRAWN)
    drawn = replace(section, rows=rows, groups=section.groups[section.groups["row"].isin(rows.index)])
    view = choose_view(placed_groups(drawn)) if shown else None
    lines = [line.replace("`", "") for line in remarks(section) if _concerns(line, section)]
    if len(rows) < len(section.rows):
        lines.append(f"The charts show the first {len(rows)} of {len(section.rows):,} rows.")
    charts: list[tuple[str, str, Callable[[], Any], bool]] = [
        ("scores", "scores with intervals", lambda: scores_chart([drawn], marked), False),
        ("curves", "learning curves by samples", lambda: learning_curves(drawn, stored, "samples"), False),
        ("seconds", "learning curves by seconds", lambda: learning_curves(drawn, stored, "seconds"), False),
        ("breakdown", "scores by groups of questions", lambda: breakdown_chart(drawn), bool(view and view.heat_map)),
        ("agreement", "agreement of rows", lambda: agreement_chart(drawn), True),
    ]
    figures = [
        _figure(f"{group.anchor}-{name}", f"{what}: {alt}", draw(), name, paper=paper)
        for name, alt, draw, paper in charts
        if shown
    ]
    return Task(
        group=group,
        remarks=lines,
        figures=[figure for figure in figures if figure],
        tables=breakdown_tables(section) if view else [],
        breakdown=breakdown_remark(section) if view else "",
        questions=questions_lines(section) if shown and section.answers else [],
    )


def _concerns(remark: str, section: Section) -> bool:
    """Whether a remark is of something that the page shows: reported scores stand beside those of one protocol only."""
    return section.protocol == REPRODUCTION or not remark.startswith("Reported scores")


def _figure(
    name: str, alt: str, chart: Any, sentence: str, lines: Sequence[str] = (), *, paper: bool = False
) -> Figure | None:
    """A chart as SVG that can stand among others: names of clip paths are its own. To a screen reader it is one
    picture; what vega says of each mark becomes `data-tip`, which the script shows under the pointer."""
    if chart is None:
        return None

    def rename(tag: re.Match[str]) -> str:
        is_mark = re.search(r'aria-roledescription="(point|[a-z ]+ mark)"', tag[0])
        plain = re.sub(r' role="graphics-[a-z]+"| aria-(hidden|roledescription)="[^"]*"', "", tag[0])
        return re.sub(r' aria-label=("[^"]*")', r" data-tip=\1" if is_mark else "", plain)

    svg = re.sub(r"\bclip(\d+)\b", rf"{name}-clip\1", to_svg(chart).strip())
    svg = re.sub(r"<[^<>]+>", rename, svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)
    return Figure(name, alt, svg, SENTENCES.get(sentence, sentence), paper, lines)
