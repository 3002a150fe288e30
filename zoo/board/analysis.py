"""What a trained model does with its context (zoo/spec/analysis.py): as text, and as charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo.spec.analysis import PLACES, AccuracyAt, AnalysisRecord, HeadScores, InductionAnalysis, LearningInContext


def best_head(induction: InductionAnalysis) -> HeadScores | None:
    """The head that matches prefixes most; None without heads."""
    return max(induction.heads, key=lambda head: head.prefix_matching, default=None)


def summaries(record: AnalysisRecord) -> list[tuple[str, str]]:
    """What each analysis comes to: a name and a few words."""
    lines: list[tuple[str, str]] = []
    if record.context is not None:
        found = record.context.effective
        length = f"{found:,} of {record.context.longest:,} tokens" if found else "more than one token gains nothing"
        lines.append(("effective context", length))
    if record.induction:
        last = record.induction[-1]
        head = best_head(last)
        if head is None:
            lines.append(("induction heads", "no attention heads over the whole input"))
        else:
            where = f"layer {head.layer}, head {head.head}"
            what = f"prefix matching {head.prefix_matching:.2f}, copying {head.copying:.2f} ({where})"
            lines.append(("best induction head", what))
        if last.in_context is not None:
            lines.append(("learning in context", _format_in_context(last.in_context)))
    if record.positions:
        worst, best = (pick(record.positions, key=lambda point: point.accuracy) for pick in (min, max))
        where = f"{100 * worst.accuracy:.1f} % ({_place(worst)})"
        if best.accuracy > worst.accuracy:
            where += f" to {100 * best.accuracy:.1f} % ({_place(best)})"
        lines.append((record.score.replace("_", " ") + " by position", where))
    return lines


def _format_in_context(found: LearningInContext) -> str:
    spread = f"{found.score:+.3f} ± {1.96 * found.stderr:.3f} nats"
    return f"{spread}, token {found.late} minus token {found.early} ({found.n} texts)"


def _place(point: AccuracyAt) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in point.at.items())


def analysis_tables(record: AnalysisRecord) -> list[tuple[str, list[str], list[list[str]]]]:
    """A table for each analysis: its title, headers and cells."""
    tables: list[tuple[str, list[str], list[list[str]]]] = []
    if record.context is not None:
        found = record.context
        shuffled = {point.tokens: point.loss for point in found.shuffled}
        cells = [[f"{point.tokens:,}", _nats(point.loss), _nats(shuffled[point.tokens])] for point in found.truncated]
        title = f"loss of {found.predictions:,} predictions, nats, by the last tokens"
        tables.append((title, ["tokens", "others cut off", "others shuffled"], cells))
    if record.induction and record.induction[-1].heads:
        scores = [
            [str(head.layer), str(head.head), f"{head.prefix_matching:.3f}", f"{head.copying:.3f}"]
            for head in record.induction[-1].heads
        ]
        tables.append(("attention heads", ["layer", "head", "prefix matching", "copying"], scores))
    if record.positions:
        rows = [
            [*(f"{value:g}" for value in point.at.values()), f"{100 * point.accuracy:.1f} %", _interval(point)]
            for point in record.positions
        ]
        headers = [*record.positions[0].at, record.score.replace("_", " "), "95 % interval"]
        tables.append((f"{record.positions[0].n} questions a place", headers, rows))
    return tables


def _nats(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def _interval(point: AccuracyAt) -> str:
    return f"{100 * point.low:.1f}–{100 * point.high:.1f} %"


def analysis_chart(record: AnalysisRecord) -> Any:
    """A chart of what a record holds, panel below panel. Returns an Altair chart."""
    import altair as alt

    from zoo.board.charts import styled

    panels = [*_context_panels(record), *_induction_panels(record), *_position_panels(record)]
    return styled(alt.vconcat(*panels).resolve_scale(color="independent", shape="independent"))


def _context_panels(record: AnalysisRecord) -> list[Any]:
    import altair as alt

    from zoo.board.charts import BLACK, COLORS, GREY, inline_data

    if record.context is None:
        return []
    found = record.context
    log = alt.Scale(type="log", base=2, nice=False)
    ways = {"others cut off": found.truncated, "others shuffled": found.shuffled}
    points = [{"way": way, "tokens": point.tokens, "loss": point.loss} for way, each in ways.items() for point in each]
    tokens = alt.X("tokens:Q", scale=log, title="the last tokens, as they were")
    color = alt.Color("way:N", scale=alt.Scale(domain=list(ways), range=[BLACK, COLORS[1]]), title=None)
    loss = alt.Y("loss:Q", scale=alt.Scale(zero=False), title="loss, nats")
    lines = alt.Chart(inline_data(points)).mark_line(point=True).encode(x=tokens, y=loss, color=color)
    effective = [] if found.effective is None else [{"tokens": found.effective}]
    rule = alt.Chart(inline_data(effective)).mark_rule(color=GREY, strokeDash=[4, 4]).encode(x=tokens)
    title = alt.Title(
        f"{record.architecture} on {record.task}: loss by context", subtitle=": ".join(summaries(record)[0])
    )
    norms = [
        {"distance": (span.start + span.stop + 1) / 2, "norm": span.norm} for span in found.gradient if span.norm > 0
    ]
    distance = alt.X("distance:Q", scale=log, title="tokens back, the last one 1")
    norm = alt.Y("norm:Q", scale=alt.Scale(type="log"), title="gradient norm")
    gradient = alt.Chart(inline_data(norms)).mark_line(point={"color": BLACK}, color=BLACK).encode(x=distance, y=norm)
    return [
        (rule + lines).properties(width=460, height=200, title=title),
        gradient.properties(width=460, height=140, title="gradient of the loss by an embedding, by distance"),
    ]


def _induction_panels(record: AnalysisRecord) -> list[Any]:
    import altair as alt

    from zoo.board.charts import COLORS, inline_data

    names = {"prefix_matching": "prefix matching", "copying": "copying"}
    color = alt.Color("score:N", scale=alt.Scale(domain=list(names.values()), range=COLORS[:2]), title=None)
    panels = []
    if record.induction and record.induction[-1].heads:
        heads = [
            {"head": f"{head.layer}.{head.head}", "score": names[name], "value": getattr(head, name)}
            for head in record.induction[-1].heads
            for name in names
        ]
        x = alt.X("head:N", sort=None, title="layer.head", axis=alt.Axis(labelAngle=0))
        y = alt.Y("value:Q", scale=alt.Scale(domain=[0, 1]), title=None)
        bars = alt.Chart(inline_data(heads)).mark_bar().encode(x=x, y=y, color=color, xOffset="score:N")
        panels.append(
            bars.properties(width=460, height=120, title=f"attention heads of {record.architecture} on {record.task}")
        )
    over = [each for each in record.induction if each.step is not None]
    if over and over[0].heads:
        points = [
            {"step": each.step, "score": names[name], "value": max(getattr(head, name) for head in each.heads)}
            for each in over
            for name in names
        ]
        y = alt.Y("value:Q", scale=alt.Scale(domain=[0, 1]), title="best head")
        line = alt.Chart(inline_data(points)).mark_line(point=True)
        chart = line.encode(x=alt.X("step:Q", title="step of training"), y=y, color=color)
        panels.append(chart.properties(width=460, height=120, title="over training"))
    return panels


def _position_panels(record: AnalysisRecord) -> list[Any]:
    import altair as alt

    from zoo.board.charts import COLORS, inline_data

    if not record.positions:
        return []
    place = next(name for name in PLACES if name in record.positions[0].at)
    other = next((name for name in record.positions[0].at if name != place), "")
    points = [
        {"place": point.at[place], "by": f"{other} {point.at[other]:g}" if other else ""}
        | {"accuracy": point.accuracy, "low": point.low, "high": point.high}
        for point in record.positions
    ]
    lines = list(dict.fromkeys(point["by"] for point in points))
    color = alt.Color("by:N", scale=alt.Scale(domain=lines, range=(COLORS * len(lines))[: len(lines)]), title=None)
    chart = alt.Chart(inline_data(points))
    x = alt.X("place:Q", title=f"{place} of the answer", scale=alt.Scale(nice=False))
    y = alt.Y("accuracy:Q", scale=alt.Scale(domain=[0, 1]), title=record.score.replace("_", " "))
    y = y.axis(format=".0%")
    bars = chart.mark_rule().encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=color)
    curve = chart.mark_line(point=True).encode(x=x, y=y, color=color)
    title = f"{record.architecture} on {record.task}: by where the answer stands"
    return [(curve + bars).properties(width=460, height=200, title=title)]


def attention_chart(words: Sequence[str], layers: Sequence[Any]) -> Any:
    """The attention maps of a prompt: weights (H, L, L) of each layer, a panel for each head. Returns an Altair
    chart."""
    import altair as alt

    from zoo.board.charts import COLORS, WHITE, inline_data, styled

    labels = [f"{place} {word!r}" for place, word in enumerate(words)]
    size, shade = max(5, min(14, 240 // len(words))) * len(words), alt.Scale(domain=[0, 1], range=[WHITE, COLORS[0]])
    rows = []
    for layer, weights in enumerate(layers):
        panels = []
        for head, own in enumerate(weights):
            cells = [
                {"from": labels[i], "to": labels[j], "weight": round(float(own[i, j]), 4)}
                for i in range(len(words))
                for j in range(len(words))
                if own[i, j] >= 0.005
            ]
            chart = alt.Chart(inline_data(cells)).mark_rect()
            axis = alt.Axis(labelFontSize=7, ticks=False, grid=False, title=None, labelOverlap=False)
            x = alt.X("to:N", scale=alt.Scale(domain=labels), axis=axis)
            y = alt.Y("from:N", scale=alt.Scale(domain=labels), axis=axis)
            weight = alt.Color("weight:Q", scale=shade, legend=None)
            title = f"layer {layer}, head {head}"
            panels.append(chart.encode(x=x, y=y, color=weight).properties(width=size, height=size, title=title))
        rows.append(alt.hconcat(*panels))
    return styled(alt.vconcat(*rows))
