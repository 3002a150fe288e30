"""A model beyond its training length, by the methods that extend its context: a table and two charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from zoo.spec.evaluation import AS_TRAINED, ExtensionRecord


def main_score(records: Sequence[ExtensionRecord]) -> str:
    """The score that is shown: perplexity of running text, else the task's first."""
    return next((name for record in records for name in record.scores), "perplexity")


def extension_table(records: Sequence[ExtensionRecord]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells: a row for each method, a column for each length; a length that cannot be read is a dash."""
    lengths = sorted({record.seq_len for record in records})
    score = main_score(records)
    cells = {(record.method, record.seq_len): _format(record, score) for record in records}
    methods = list(dict.fromkeys(record.method for record in records))
    rows = [[method, *(cells.get((method, length), "") for length in lengths)] for method in methods]
    return [score, *map(str, lengths)], rows


def _format(record: ExtensionRecord, score: str) -> str:
    value = record.scores.get(score)
    if record.error or value is None:
        return "-"
    return f"{value:.2f}" if "perplexity" in score else f"{100 * value:.2f} %"


def extension_chart(records: Sequence[ExtensionRecord]) -> Any:
    """The score over the length of the input, and of running text the loss over the position in the longest input; a
    line for each method. Returns an Altair chart."""
    import altair as alt

    from zoo.board.charts import BLACK, COLORS, GREY, inline_data, styled

    score, trained = main_score(records), records[0].trained_len
    methods = list(dict.fromkeys(record.method for record in records))
    hues = iter(COLORS)
    colors = [BLACK if method == AS_TRAINED else next(hues) for method in methods]
    color = alt.Color("method:N", sort=methods, scale=alt.Scale(domain=methods, range=colors), title="method")
    length = alt.X("length:Q", scale=alt.Scale(type="log", base=2), title="tokens of the input")
    kind: Literal["log", "linear"] = "log" if "perplexity" in score else "linear"
    points = [
        {"method": record.method, "length": record.seq_len, "score": record.scores[score]}
        for record in records
        if record.scores.get(score) is not None
    ]
    values = [record.scores[score] or 0.0 for record in records if record.scores.get(score) is not None]
    low, high = min(values), max(values)
    scale = alt.Scale(type=kind, domain=[low * 0.95, high * 1.05], nice=False)
    height = alt.Y("score:Q", scale=scale, title=score.replace("_", " "))
    rule = alt.Chart(inline_data([{"length": trained}])).mark_rule(color=GREY, strokeDash=[4, 4]).encode(x=length)
    lines = alt.Chart(inline_data(points)).mark_line(point=True).encode(x=length, y=height, color=color)
    panels = [
        (rule + lines).properties(width=460, height=240, title=f"{score.replace('_', ' ')} by length of the input")
    ]
    longest = max(record.seq_len for record in records)
    places = [
        {"method": record.method, "position": max(span.stop, 1), "loss": span.loss}
        for record in records
        if record.seq_len == longest
        for span in record.positions
        if span.loss is not None
    ]
    if places:
        at = alt.X("position:Q", scale=alt.Scale(type="log", base=2), title="position, up to")
        loss = alt.Y("loss:Q", scale=alt.Scale(zero=False), title="loss, nats")
        panels.append(
            alt.Chart(inline_data(places))
            .mark_line(point=True)
            .encode(x=at, y=loss, color=color)
            .properties(width=460, height=240, title=f"loss by position, input of {longest:,} tokens")
        )
    return styled(alt.vconcat(*panels))
