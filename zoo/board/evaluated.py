"""Trained models and checkpoints that `zoo eval` evaluated: a table, and scores by position with a chart.

They never stand among ranked rows: nothing is known to be equal between them but the questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo.board.metric import Metric, sorted_names
from zoo.board.tables import NONE, Table
from zoo.spec.evaluation import EvaluatedGroup, EvaluationRecord

SENTENCE = (
    "Trained models and checkpoints, evaluated without further training. Sizes, training texts and tokens differ, and "
    "so may the options of a task: nothing here is ranked. Intervals, 95 %, are over test questions."
)


def metric_of(record: EvaluationRecord) -> Metric:
    """The score that intervals are of."""
    return Metric(record.metric.name, record.metric.higher_is_better)


def _scored(metric: Metric, part: EvaluationRecord | EvaluatedGroup) -> str:
    value, interval = part.scores.get(metric.name), part.interval
    if value is None or interval is None:
        return metric.format(value)
    return metric.format_with(value, interval.low, interval.high)


def evaluated_table(records: Sequence[EvaluationRecord]) -> Table:
    """A row for each evaluation, by task and name."""
    names = sorted_names(name for record in records for name in record.scores)
    headers = ["task", "checkpoint", "architecture", "weights", "tokens", "options changed", "n", *names]
    rows = []
    for record in sorted(records, key=lambda each: (each.task, each.checkpoint, each.file)):
        ranked = metric_of(record)
        scores = [
            _scored(ranked, record)
            if name == ranked.name
            else Metric(name).format(record.scores[name])
            if name in record.scores
            else NONE
            for name in names
        ]
        changed = ", ".join(f"{key}={value}" for key, value in record.overrides.items()) or NONE
        tokens = record.tokenizer.name if record.tokenizer else NONE
        rows.append(
            [
                *(record.task, record.checkpoint, record.architecture, record.weights[:12], tokens, changed),
                *(f"{record.n:,}", *scores),
            ]
        )
    return Table(headers, rows)


def _key(groups: Sequence[EvaluatedGroup]) -> str:
    """What the groups are placed along: the last of their attributes, position, depth …"""
    return list(groups[0].at)[-1]


def _others(group: EvaluatedGroup) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in list(group.at.items())[:-1])


def positions_table(record: EvaluationRecord) -> Table | None:
    """The ranked score by position (depth, number of pairs …), with intervals; None where the questions have none."""
    if not record.groups:
        return None
    key, metric = _key(record.groups), metric_of(record)
    places = sorted({group.at[key] for group in record.groups})
    rows: dict[str, dict[float, str]] = {}
    for group in record.groups:
        rows.setdefault(_others(group), {})[group.at[key]] = _scored(metric, group)
    lines = [[name, *(cells.get(place, "") for place in places)] for name, cells in rows.items()]
    return Table([f"{metric.title} by {key}", *(f"{place:g}" for place in places)], lines)


def evaluated_tasks(records: Sequence[EvaluationRecord]) -> dict[str, list[EvaluationRecord]]:
    """The evaluations by task whose questions have positions, each in the order of the table."""
    tasks: dict[str, list[EvaluationRecord]] = {}
    for record in sorted(records, key=lambda each: (each.task, each.checkpoint, each.file)):
        if record.groups:
            tasks.setdefault(record.task, []).append(record)
    return tasks


def positions_charts(records: Sequence[EvaluationRecord]) -> dict[str, Any]:
    """A chart for each task whose questions have positions."""
    return {task: positions_chart(each) for task, each in evaluated_tasks(records).items()}


def positions_chart(records: Sequence[EvaluationRecord]) -> Any:
    """The ranked score of one task's questions by position, a line for each checkpoint and length, with intervals.
    Returns an Altair chart; None where no questions have positions."""
    import altair as alt

    from zoo.board.charts import COLORS, inline_data, styled

    records = [record for record in records if record.groups]
    if not records:
        return None
    key, metric = _key(records[0].groups), metric_of(records[0])
    points = [
        {
            "line": ", ".join(filter(None, [record.checkpoint, _others(group)])),
            "at": group.at[key],
            "score": group.scores[metric.name],
            "low": group.interval.low if group.interval else None,
            "high": group.interval.high if group.interval else None,
        }
        for record in records
        for group in record.groups
        if group.scores.get(metric.name) is not None and _key(record.groups) == key
    ]
    names = list(dict.fromkeys(str(point["line"]) for point in points))
    scale = alt.Scale(domain=[0, 1]) if metric.is_share else alt.Scale(zero=False)
    x = alt.X("at:Q", title=key)
    legend = alt.Legend(title="checkpoint", labelLimit=0, columns=1)
    color = alt.Color("line:N", sort=names, scale=alt.Scale(domain=names, range=list(COLORS)), legend=legend)
    base = alt.Chart(inline_data(points)).encode(x=x, color=color)
    lines = base.mark_line(point=True).encode(y=alt.Y("score:Q", scale=scale, title=metric.title))
    bars = base.mark_rule().encode(y=alt.Y("low:Q", scale=scale, title=metric.title), y2="high:Q")
    title = f"{records[0].task}: {metric.title} by {key}, 95 % intervals"
    return styled((lines + bars).properties(width=460, height=240, title=title))
