"""Charts of what runs did: learning curves and agreement."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from tests.board.conftest import curved
from tests.board.samples import section, stored
from tests.records import language, make
from zoo.board.charts import to_svg
from zoo.board.curves import agreement_chart, learning_curves, validation_curve
from zoo.board.results import compare
from zoo.board.runs import validations
from zoo.spec.record import Record, pack_bits


def seeds() -> list[Record]:
    later = [{"step": 32, "samples": 32, "seconds": 1.5, "split": "val", "loss": 1.5, "metric": 0.4}]
    return [curved(make(seed=0, accuracy=0.5)), curved(make(seed=1, accuracy=0.52), history=later)]


def test_seeds_are_averaged_where_both_were_validated_and_the_band_is_from_worst_to_best() -> None:
    records = stored(seeds())
    (only,) = compare(records).sections()
    curve = validation_curve(only, only.rows.iloc[0], records)
    assert list(curve["samples"]) == [32, 64, 96]
    assert list(curve["score"]) == pytest.approx([0.3, 0.4, 0.5])
    assert (curve["low"][0], curve["high"][0]) == (0.2, 0.4)
    assert list(curve["seconds"]) == [1.0, 1.0, 1.5]


def test_what_is_validated_by_another_score_than_the_ranked_one_has_no_curve() -> None:
    """LAMBADA ranked by perplexity is validated on text, by the accuracy of its tokens, which may be 0."""
    points = [{"step": 1, "samples": 8, "seconds": 1.0, "split": "val", "loss": 2.3, "metric": 0.0}]
    words = language("alpha")
    other = words.model_dump(mode="json") | {"history": points}
    other["metrics"]["val"]["scores"] = {"accuracy": 0.0}
    for record in (other, other | {"metrics": None, "status": "timeout", "error": "cut"}):
        assert validations(Record.model_validate(record)) == []
    records = stored([Record.model_validate(other)])
    (only,) = compare(records).sections()
    assert learning_curves(only, records, "samples") is None
    assert len(validations(curved(make()))) > 0


@pytest.mark.parametrize("along", ["samples", "seconds"])
def test_a_panel_per_ranked_row_names_its_axis_and_the_baselines(along: str) -> None:
    records = stored(
        [*seeds(), curved(make("beta", accuracy=0.4)), make("beta", overrides={"a.b": 1}, config_hash="f" * 12)]
    )
    (only,) = compare(records).sections()
    text = "".join(ElementTree.fromstring(to_svg(learning_curves(only, records, along))).itertext())
    assert text.count(along) == 3  # the title, and two panels
    for word in ("1  alpha", "2  beta", "chance 10.0 %"):
        assert word in text.replace("\xa0", " ")
    assert "modified" not in text


def test_runs_without_validation_have_no_curves() -> None:
    records = stored([curved(make(), history=[])])
    (only,) = compare(records).sections()
    assert learning_curves(only, records, "samples") is None


def answering(arch: str, right: list[bool]) -> Record:
    fields = make(arch, accuracy=sum(right) / len(right), n=len(right)).model_dump(mode="json")
    fields["metrics"]["test"]["right"] = pack_bits(right)
    return Record.model_validate(fields)


def test_agreement_is_the_share_of_questions_answered_alike() -> None:
    chart = agreement_chart(section([answering("a", [True, True, False, False]), answering("b", [True] * 4)]))
    cells = {(cell["row"], cell["other"]): cell["text"] for cell in chart.to_dict()["data"]["values"]}
    assert cells == {("a", "a"): "–", ("a", "b"): "50", ("b", "a"): "50", ("b", "b"): "–"}


def test_one_row_agrees_with_nobody() -> None:
    assert agreement_chart(section([answering("a", [True, False])])) is None
