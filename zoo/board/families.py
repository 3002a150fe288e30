"""The mark of each family in the charts of scores: a colour and a shape, so that neither is needed alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from zoo.board.results import Section

COLORS = [
    *("#332288", "#88ccee", "#44aa99", "#117733", "#999933"),
    *("#ddcc77", "#cc6677", "#882255", "#aa4499"),
]
"""Paul Tol's colour-blind-safe scheme "muted"; drawn with an outline, since some are pale on white and some dark on
black."""
SHAPES = [
    *("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"),
    "M0,-1.1L0.26,-0.36L1.05,-0.34L0.42,0.14L0.65,0.89L0,0.45L-0.65,0.89L-0.42,0.14L-1.05,-0.34L-0.26,-0.36Z",
]
"""Of Vega, and a star."""


def families_of(sections: Iterable[Section]) -> list[str]:
    """The families of all rows, in order."""
    return sorted({family for section in sections for family in section.rows["family"]})


class FamilyMarks:
    """The marks of families, in alphabetical order, so that the same families have the same marks in every chart."""

    def __init__(self, families: Iterable[str]):
        self.names: Sequence[str] = sorted(set(families))
        count = range(len(self.names))
        self.colors = [COLORS[k % len(COLORS)] for k in count]
        # one further in every round: no two of 81 families have both in common
        self.shapes = [SHAPES[(k + k // len(COLORS)) % len(SHAPES)] for k in count]

    def encode(self, legend: alt.Legend | None, outline: str) -> dict[str, Any]:
        """Fill, shape and outline by the field `family`."""
        ranges = {"fill": self.colors, "shape": self.shapes, "stroke": [outline]}
        channels = {"fill": alt.Fill, "shape": alt.Shape, "stroke": alt.Stroke}
        return {
            name: channel("family:N", scale=alt.Scale(domain=self.names, range=ranges[name]), legend=legend)
            for name, channel in channels.items()
        }
