"""The page as a file: what it says without JavaScript, that it needs nothing else, that it is the same each time."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.board.conftest import HOSTILE, page_records
from tests.records import make
from zoo.board import build as board
from zoo.board.page.literature import literature
from zoo.board.results import make_board
from zoo.spec.record import Record
from zoo.spec.registry import registry
from zoo.spec.store import StoredRecord, write


class Reader(HTMLParser):
    """Tags with their attributes, and the text of each table cell by the table's label."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: dict[str, list[list[str]]] = {}
        self.label, self.inside = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.append((tag, given))
        if given.get("role") == "region":
            self.label = given["aria-label"] or ""
            self.cells[self.label] = []
        if tag == "tr":
            self.cells[self.label].append([])
        if tag in ("td", "th"):
            self.inside = True
            self.cells[self.label][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[self.label][-1][-1] += data


@pytest.fixture(scope="module")
def page(page_file: Path) -> Reader:
    return Reader(page_file.read_text(encoding="utf-8"))


def table(page: Reader, label: str) -> list[dict[str, str]]:
    heads, *lines = page.cells[label]
    return [dict(zip(heads, line, strict=True)) for line in lines if len(line) == len(heads)]


def test_every_row_is_in_the_table_without_javascript(page: Reader) -> None:
    rows = table(page, "All rows, quick")
    alpha = next(row for row in rows if row["architecture"] == "alpha" and row["score"] == "41.0 %")
    assert (alpha["rank"], alpha["family"], alpha["seeds"]) == ("2", "attention", "3 of 3 learned")
    assert {row["score"] for row in rows if row["architecture"] == "delta"} >= {"out-of-memory"}
    assert any(row["notes"] == "modified: model.d_model=256" for row in rows)


def test_reported_scores_stand_apart_but_for_the_protocol_that_repeats_them(page: Reader) -> None:
    assert not {"reported", "Δ"} & set(page.cells["All rows, quick"][0])
    reported = table(page, "Scores that the literature reports")
    s4 = next(row for row in reported if row["architecture"] == "s4")
    assert (s4["listops"], s4["pathx"]) == ("59.1 %", "96.07 %")
    assert s4["mean as printed"] == "85.86 % of 6"
    means = [row["mean as printed"] for row in reported if row["architecture"] == "transformer"]
    assert means == ["54.39 % of 5", "58.77 % of 5", "59.24 % of 5"]
    assert {row["architecture"] for row in reported} == set(registry().architectures)


def test_measured_paper_scores_stand_beside_the_reported_ones() -> None:
    one = make("s4", protocol="paper", accuracy=0.58)
    lines = [line for line in literature(make_board([StoredRecord("x.json", one)]))[0].lines if line.name == "s4"]
    assert [line.measured for line in lines] == [False, True]
    assert lines[1].cells[0] == "58.0 % [54.9, 61.0]"


def test_the_winner_of_a_task_is_told_with_who_could_be_as_good_and_the_cost(page: Reader) -> None:
    best = {row["task"]: row for row in table(page, "Best row of each task, quick")}
    assert best["listops"]["best"] == "beta"
    assert "alpha" in best["listops"]["could be as good"]
    assert best["listops"]["training speed"] == "5 % of gamma's, the fastest"
    assert best["wikitext"]["metric"] == "word perplexity\n(lower is better)"
    assert best["listops"]["trivial answer"] == "17.5 %\n(majority class)"
    assert best["listops"]["parameters"] == "120,000"
    assert best["pathfinder"]["training speed"] == "not measured"


def test_sentences_say_who_is_shown_to_be_the_best_or_who_could_be(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    assert re.search(
        r"<br>beta \(attention\) has the best score of \d+ rows, 41.5 % \(majority class, always the most frequent "
        r"label of training: 17.5 %\), but \w+",
        text,
    )
    assert "Synthetic tests of recall: the answer stands in the input" in text
    assert "Evaluate a nested expression over digits, such as [MAX 2 [MIN 4 7] 0], with MAX" in text
    assert re.search(r"\d+ runs in \d+ rows\. A row is one configuration", text)


def test_families_show_their_best_and_whether_it_may_be_the_best_of_all(page: Reader) -> None:
    rows = {row["family"]: row for row in table(page, "Best of each family, quick")}
    assert rows["attention"]["listops"].endswith("beta ★")
    assert rows[HOSTILE]["listops"] == '15.0 % x"><b>bold</b>:evil'


def test_nothing_is_fetched_from_elsewhere(page: Reader, page_file: Path) -> None:
    links = {"a", "link"}
    for tag, attributes in page.tags:
        assert "src" not in attributes, tag
        assert tag in links or not str(attributes.get("href", "")).startswith("http"), tag
    assert not re.search(r"url\((?!#)", page_file.read_text())
    assert "default-src 'none'" in page_file.read_text()


def test_names_of_others_are_text(page: Reader, page_file: Path) -> None:
    assert not [tag for tag, _ in page.tags if tag in ("img", "b")]
    assert [tag for tag, _ in page.tags].count("script") == 2
    data = json.loads(re.search(r'id="data">(.*?)</script>', page_file.read_text(), re.DOTALL)[1])
    assert any(HOSTILE in text for text in data["pool"])


def test_every_table_and_chart_has_a_name_and_a_sentence_below(page: Reader, page_file: Path) -> None:
    names = [attributes["aria-label"] for _, attributes in page.tags if attributes.get("role") == "region"]
    assert len(names) == len(set(names)) > 20
    assert [attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg"] != []
    tags = [tag for tag, _ in page.tags]
    assert tags.count("figure") == tags.count("figcaption") == tags.count("svg")
    assert page_file.read_text().count('href="#how"') > 10  # of those that speak of ranks or intervals


def test_charts_do_not_share_names_of_clip_paths(page: Reader) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_files_that_are_no_records_are_named(page_file: Path) -> None:
    assert "cut.json: not JSON" in page_file.read_text()


def test_the_links_lead_to_the_records(page: Reader, page_file: Path) -> None:
    records = [a["href"] for tag, a in page.tags if tag == "a" and str(a.get("href")).startswith("results/")]
    assert records
    assert all((page_file.parent / str(href)).is_file() for href in records)


def drawer(page_file: Path, title: str) -> dict[str, Any]:
    data = json.loads(re.search(r'id="data">(.*?)</script>', page_file.read_text(), re.DOTALL)[1])
    row = next(row for row in data["rows"] if row["title"].startswith(title))
    return row | {"facts": {data["pool"][label]: data["pool"][text] for label, text in row["facts"]}}


def test_a_drawer_knows_the_preset_of_an_architecture_that_is_installed(page_file: Path) -> None:
    mamba = drawer(page_file, "mamba on listops")
    assert ["arch.d_state", "99", "16"] in mamba["preset"]
    assert mamba["repeat"] == "zoo bench --arch mamba --task listops --protocol quick --seed 0"
    assert mamba["facts"]["arXiv"] == "https://arxiv.org/abs/2312.00752"
    assert mamba["runs"][0]["curve"] == [[32, 0, 0.2], [64, 1, 0.4], [96, 2, 0.5]]
    alpha = drawer(page_file, "alpha on listops")
    assert alpha["preset"] is None
    assert "not installed here" in alpha["facts"]["plugin"]


def test_charts_of_very_many_rows_show_the_first_and_say_so(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for k in range(61):
        write(make(accuracy=0.5, overrides={"optim.lr": k} if k else {}, config_hash=f"{k:012x}"), results)
    board.build(results, page=True)
    text = (tmp_path / "index.html").read_text()
    assert "The charts show the first 60 of 61 rows." in text
    assert text.count("<tr data-row=") == 61


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    pages = []
    for name in ("a", "b"):
        results = tmp_path / name / "leaderboard" / "results"
        for record in [make(), make("beta", accuracy=0.4)]:
            write(record, results)
        board.build(results, page=True)
        pages.append((results.parent / "index.html").read_bytes())
    assert pages[0] == pages[1]


def test_a_run_leaves_the_page_as_it_was(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write(make(), results)
    board.refresh(results)
    assert not (tmp_path / "index.html").exists()
    (tmp_path / "index.html").write_text(board.MARKER + "old")
    board.refresh(results)
    assert (tmp_path / "index.html").read_text().endswith("old")
    board.build(results, page=True)
    assert "<!doctype html>" in (tmp_path / "index.html").read_text()


def test_a_page_that_was_not_generated_is_not_replaced(tmp_path: Path) -> None:
    from zoo.spec.errors import UserError

    results = tmp_path / "results"
    write(make(), results)
    (tmp_path / "index.html").write_text("<h1>mine</h1>")
    with pytest.raises(UserError, match=r"index\.html"):
        board.build(results, page=True)


def test_without_records_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    board.build(tmp_path / "results", page=True)
    assert "No records yet." in (tmp_path / "index.html").read_text()


def test_samples_are_valid_and_hostile() -> None:
    assert any(isinstance(record, Record) and record.architecture.family == HOSTILE for record in page_records())
