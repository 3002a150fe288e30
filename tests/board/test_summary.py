"""What a board says first: the best rows, how sure that is, at what cost, and what the tasks test."""

from __future__ import annotations

from tests.board.samples import mqar, section, sections
from tests.records import language, make, make_cost
from zoo.board.summary import ONCE, families, suites, winners, winners_note
from zoo.spec.record import Record
from zoo.spec.registry import registry

BASELINES = {"baselines": {"chance": 1000.0, "majority": 400.0}}
WIKITEXT = [language("alpha", nats=3.0, parameters=90_000, **BASELINES), language("beta", nats=4.0, **BASELINES)]


def verdicts(records: list[Record]) -> dict[str, str]:
    return {line.task: line.verdict for suite in suites(sections(records)) for line in suite.tasks}


def test_the_table_has_direction_trivial_answer_and_parameters_of_a_perplexity() -> None:
    table = winners(sections(WIKITEXT, costs=[make_cost(WIKITEXT[0])]))
    (line,) = (dict(zip(table.headers, row, strict=True)) for row in table.rows)
    assert line["best"] == "alpha"
    assert line["metric"] == "word perplexity\n(lower is better)"
    assert line["trivial answer"] == "400.0"  # the better of the two, which is the lower
    assert line["parameters"] == "90,000\n(90,000–120,000)"
    assert line["training speed"] == "the fastest"
    assert line["could be as good"] == "no other"


def test_a_verdict_says_whether_one_row_is_shown_to_be_better() -> None:
    assert verdicts(WIKITEXT)["wikitext"] == (
        "alpha (attention) is better than beta, the only other row: word perplexity 20.09, lower is better (trivial "
        "answer, each token as likely as it is in the training text, whatever precedes it: 400.0)."
    )
    assert verdicts(WIKITEXT[:1])["wikitext"].startswith("Only alpha was run: word perplexity 20.09")
    near = [make("alpha", accuracy=0.5), make("beta", accuracy=0.51), make("gamma", accuracy=0.52)]
    assert verdicts(near)["listops"] == (
        "gamma (attention) has the best score of 3 rows, 52.0 % (majority class, always the most frequent label of "
        "training: 17.5 %), but beta or alpha could be as good."
    )
    other = make(
        "omega", accuracy=0.53, architecture={"name": "omega", "title": "Omega", "family": "new", "version": "1"}
    )
    assert verdicts([*near, other])["listops"].endswith(" They are of 2 families: new, attention.")
    assert verdicts([*near, make("delta", accuracy=0.9)])["listops"].startswith("delta (attention) is better than the ")


def test_rows_whose_scores_are_written_alike_are_best_together() -> None:
    records = [make(name, accuracy=a, n=100_000) for name, a in (("alpha", 0.99996), ("beta", 1.0), ("gamma", 0.9))]
    table = winners(sections(records, costs=[make_cost(records[0])]))
    line = dict(zip(table.headers, table.rows[0], strict=True))
    assert (line["best"], line["could be as good"], line["trained"]) == ("beta, alpha", "no other", "with 1 seed")
    assert verdicts(records)["listops"].startswith(
        "beta and alpha (attention) share the best score of 3 rows, 100.0 % ("
    )


def test_a_list_of_tasks_says_what_rows_were_trained_with() -> None:
    configs = ({"model": {"d_model": 48, "n_layers": 2}}, {"model": {"d_model": 192, "n_layers": 2}})
    records = [make(name, config=config) for name, config in zip(("alpha", "beta"), configs, strict=True)]
    (suite,) = suites(sections(records))
    assert suite.tasks[0].training == (
        "Trained on 96 samples in 2 s (wall clock, whatever else ran), width (d_model) 48–192, depth (n_layers) 2."
    )


def test_one_training_each_is_said_once_or_where_it_holds() -> None:
    once = [make("alpha"), make("beta", accuracy=0.4)]
    assert ONCE in winners_note(sections(once))
    assert "trained with one seed" not in verdicts(once)["listops"]
    mixed = [*once, *(mqar("alpha", accuracy, None, seed=k) for k, accuracy in enumerate((0.8, 0.81)))]
    assert ONCE not in winners_note(sections(mixed))
    assert verdicts(mixed)["listops"].endswith(" Every row was trained with one seed.")
    assert "trained with one seed" not in verdicts(mixed)["mqar"]


def test_tasks_stand_by_suite_with_what_they_test() -> None:
    (lra,) = suites(sections([make("alpha"), make("alpha", "text", suite="lra")]))
    assert (lra.name, lra.description) == ("lra", registry().suite_description("lra"))
    assert {line.task: line.description for line in lra.tasks} == {
        name: registry().task(name).record.description for name in ("listops", "text")
    }
    (other,) = suites(sections([make("alpha", "unknown_task", suite="unknown")]))
    assert (other.description, other.tasks[0].description) == ("", "")


def test_every_task_and_suite_here_is_explained() -> None:
    for name, entry in registry().tasks.items():
        assert len(entry.record.description) > 40, name
        assert len(entry.record.trivial_answer) > 20, name
        assert registry().suite_description(entry.record.suite) == entry.record.suite_description != "", name


def test_families_name_the_metric_of_a_task_where_less_is_better() -> None:
    assert families([section(WIKITEXT)]).headers == ["family", "wikitext\n(word perplexity, lower is better)"]
