"""The board as one Markdown document. The same records give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from tabulate import tabulate

from zoo.board.evaluated import SENTENCE, evaluated_table, evaluated_tasks, positions_table
from zoo.board.headings import options_line, section_heading, section_title, task_description, training_line
from zoo.board.overall import overall_lines, overall_table, overall_title, overalls
from zoo.board.part import Part
from zoo.board.results import Board, Section
from zoo.board.summary import CONDITIONS, FAMILIES, families, suites, winners, winners_note
from zoo.board.tables import Table, breakdown_remark, breakdown_tables, one_line, problem_lines, remarks, section_table
from zoo.board.takeaways import STATE, TIME, takeaways
from zoo.board.words import LEGEND
from zoo.spec.evaluation import EvaluationRecord
from zoo.spec.store import Problem


def markdown(
    board: Board,
    problems: Sequence[Problem] = (),
    *,
    chart: str = "",
    breakdown_chart: Callable[[Section], str] = lambda section: "",
    charts: Collection[str] = (),
    evaluations: Sequence[EvaluationRecord] = (),
    parts: Sequence[Part] = (),
) -> str:
    """The board as a Markdown document. `chart` is the name of an image file beside it, `breakdown_chart` gives that of
    a section's breakdown; empty where there is none. `charts` are the names of all. `parts` are shown
    where their protocol has sections."""
    lines = ["# Leaderboard", ""]
    if len(board.results):
        lines += ["[What the columns mean](#what-the-columns-mean). To sort and filter: `zoo leaderboard serve`.", ""]
    if board.results.empty:
        lines += ["No records yet.", ""]
    for protocol, sections in board.protocols():
        lines += [f"## Protocol `{protocol}`", ""]
        lines += [CONDITIONS[protocol], ""] if protocol in CONDITIONS else []
        lines += _summary(sections)
        if superseded := sum(section.rows["superseded"].sum() for section in sections):
            lines += [f"Repeated runs superseded by later ones: {superseded}.", ""]
        for overall in overalls(sections):
            lines += [f"### {overall_title(overall)}", "", " ".join(overall_lines(overall)), ""]
            lines += [*_pipes(overall_table(overall)), ""]
        for name, what, cost in (("cost", "the time of training", TIME), ("state", "the size of the state", STATE)):
            if f"{name}-{protocol}.svg" in charts:
                lines += [f"![Scores against {what}]({name}-{protocol}.svg)", ""]
                lines += [f"{_escaped(line)}\n" for line in takeaways(sections, cost)]
        for section in sections:
            table = section_table(section)
            about = ". ".join(
                f"{text[0].upper()}{text[1:]}"
                for text in (section_heading(section, explained=True), training_line(section), options_line(section))
                if text
            )
            heading = [f"{_escaped(about)}.", ""] if about else []
            lines += [f"### {section_title(section)}", ""]
            lines += [_escaped(text), ""] if (text := task_description(section)) else []
            lines += [*heading, *_pipes(table), ""]
            lines += [f"{remark}\n" for remark in remarks(section)]
            lines += [f"[{k}] {_escaped(source)}\n" for k, source in enumerate(table.sources, start=1)]
            if section.current:
                lines += _breakdowns(section, breakdown_chart(section))
        for part in parts:
            if part.protocol == protocol:
                picture = [f"![{part.title}]({part.chart})", ""] if part.chart in charts else []
                lines += [f"### {part.title}", "", part.text, "", *picture, *_pipes(part.table), ""]
    lines += _evaluated(evaluations, charts)
    if len(board.results):
        lines += [f"## All scores\n\n![Scores with intervals, task by task]({chart})", ""] if chart else []
        lines += ["## What the columns mean", "", *(f"- **{name}**: {text}" for name, text in LEGEND.items()), ""]
    if problems:
        count, *named = problem_lines(problems)
        lines += ["## Skipped files", "", count, "", *(f"- {_escaped(line)}" for line in named), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _summary(sections: Sequence[Section]) -> list[str]:
    """Who is best, what the tasks test, and the best of each family."""
    best = winners(sections)
    if not best.rows:
        return []
    lines = ["### Who is best, and how sure that is", "", *_pipes(best), "", winners_note(sections), ""]
    lines += ["### What the tasks test, and what the results say", ""]
    for suite in suites(sections):
        lines += [f"**{_escaped(suite.name)}**{': ' * bool(suite.description)}{_escaped(suite.description)}", ""]
        for line in suite.tasks:
            text = " ".join(filter(None, [f"{line.task}:", line.description, line.verdict, line.training]))
            lines.append(f"- {_escaped(text)}")
        lines.append("")
    return [*lines, "### Families", "", *_pipes(families(sections)), "", FAMILIES, ""]


def _breakdowns(section: Section, chart: str) -> list[str]:
    tables = breakdown_tables(section)
    if not tables:
        return []
    lines = [f"![{section.task}: {section.metric.title} by group]({chart})", ""] if chart else []
    lines += [f"{breakdown_remark(section)} Scores of every group and seed: groups.csv.", ""]
    for title, table in tables:
        lines += [f"#### {title}", "", *_pipes(table), ""]
    return lines


def _evaluated(records: Sequence[EvaluationRecord], charts: Collection[str]) -> list[str]:
    if not records:
        return []
    lines = ["## Evaluated checkpoints", "", SENTENCE, "", *_pipes(evaluated_table(records)), ""]
    for task, several in evaluated_tasks(records).items():
        if f"evaluated-{task}.svg" in charts:
            lines += [f"![{task}: scores by position](evaluated-{task}.svg)", ""]
        for record in several:
            if table := positions_table(record):
                lines += [f"#### {task}: {_escaped(record.checkpoint)}", "", *_pipes(table), ""]
    return lines


def _pipes(table: Table) -> list[str]:
    rows = [[_escaped(cell) for cell in row] for row in table.rows]
    headers = [_escaped(header) for header in table.headers]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True).split("\n")


def _escaped(text: str) -> str:
    """Text of a record or a plugin must not become structure."""
    for char, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`"), ("*", "\\*")):
        text = text.replace(char, safe)
    return one_line(text)
