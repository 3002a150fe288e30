"""ListOps: the law, the labels, the published format."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
import pytest

import zoo
from tests.run.conftest import resolve_one
from zoo.data.batch import collate_sequences
from zoo.data.export import export
from zoo.data.module import SPLITS
from zoo.data.prepare import open_task
from zoo.data.rng import key
from zoo.data.store import StoredSplit
from zoo.model.models import SequenceClassifier
from zoo_lra.listops import GeneratedExpressions, ListOpsData
from zoo_lra.listops_generator import EOS, IDS, TOKENS, evaluate, to_published, trees
from zoo_lra.options import ListOpsOptions

FIXTURES = Path(__file__).parent / "fixtures" / "listops"
LAW = {"min_len": 500, "max_len": 2000, "max_depth": 10, "max_args": 10}
SHORT = {"train_size": 60, "val_size": 20, "test_size": 20, "min_len": 9, "max_len": 65, "seq_len": 64}


def task() -> zoo.Task:
    return zoo.registry().task("listops").record


def rows_of(family: str, n: int, **law: int) -> tuple[list[np.ndarray], np.ndarray]:
    data, lengths, labels = trees(key(family), 0, n, **law)
    return np.split(data, np.cumsum(lengths)[:-1]), labels


def reference(tokens: list[str]) -> tuple[int, int]:
    """(value, deepest operator) by recursion over Python objects."""

    def node(i: int, depth: int) -> tuple[int, int, int]:
        if not tokens[i].startswith("["):
            return int(tokens[i]), i + 1, 0
        operator, i, values, deepest = tokens[i], i + 1, [], depth
        while tokens[i] != "]":
            value, i, below = node(i, depth + 1)
            values.append(value)
            deepest = max(deepest, below)
        apply = {"[MIN": min, "[MAX": max, "[SM": lambda v: sum(v) % 10, "[MED": lambda v: int(median(v))}
        return apply[operator](values), i + 1, deepest

    value, end, deepest = node(0, 1)
    assert end == len(tokens)
    return value, deepest


def test_labels_lengths_and_depth_of_the_published_law() -> None:
    rows, labels = rows_of("test", 300, **LAW)
    for row, label in zip(rows, labels, strict=True):
        assert 500 < len(row) < 2000
        assert reference([TOKENS[i] for i in row]) == (label, 9)
        assert evaluate(row) == label


def exact_lengths() -> np.ndarray:
    """Share of the law's expressions with at most so many tokens, (2000,), by convolution over the depths.

    A tree at depth 10 is a digit; one above is a digit with probability 3/4, else 2 tokens and 2 to 10 trees below it.
    """
    longest, room = 1999, 4096
    law = np.zeros(longest + 1)
    law[1] = 1
    for _ in range(9):
        spectrum, power, inner = np.fft.rfft(law, room), law, np.zeros_like(law)
        for _ in range(9):
            power = np.fft.irfft(np.fft.rfft(power, room) * spectrum, room)[: longest + 1]
            inner += power / 9
        law = np.concatenate([np.zeros(2), 0.25 * inner[:-2]])
        law[1] = 0.75
    law[:501] = 0
    return np.cumsum(law) / law.sum()


@pytest.mark.parametrize("family", ["exact", "another seed"])
def test_lengths_are_exactly_those_of_the_law(family: str) -> None:
    n = 40_000
    lengths = np.concatenate([trees(key(family), first, 2_000, **LAW)[1] for first in range(0, n, 2_000)])
    share = np.searchsorted(np.sort(lengths), np.arange(2_000), "right") / n
    assert np.abs(share - exact_lengths()).max() < 2.2 / n**0.5  # of Kolmogorov's test, at a level of 1 in 10,000


def test_distribution_of_the_published_law() -> None:
    rows, labels = rows_of("distribution", 4000, **LAW)
    mean = np.mean([len(r) for r in rows])
    assert abs(mean - 1030.3) < 5 * 400 / 4000**0.5  # measured on the official generator's output
    share = np.bincount(labels, minlength=10) / len(labels)
    reference_share = [0.167, 0.093, 0.0793, 0.0809, 0.0883, 0.0853, 0.0781, 0.0722, 0.0874, 0.1685]
    assert np.abs(share - reference_share).max() < 0.03
    operators = Counter(TOKENS[i] for r in rows for i in r if 1 <= i <= 4)
    assert all(abs(n / operators.total() - 0.25) < 0.005 for n in operators.values())


def test_median_of_an_even_number_is_truncated() -> None:
    assert evaluate(np.array([IDS[t] for t in ["[MED", "1", "2", "]"]])) == 1
    assert evaluate(np.array([IDS[t] for t in ["[MED", "9", "0", "4", "7", "]"]])) == 5


@pytest.mark.parametrize("text", ["", "[MIN 1 2", "[MIN ]", "1 2", "] 1", "[MIN 1 ] ]"])
def test_what_is_no_expression_has_no_value(text: str) -> None:
    assert evaluate(np.array([IDS[t] for t in text.split()], np.uint8)) == -1


def test_labels_made_by_others() -> None:
    with (FIXTURES / "oracle.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 200
    for row in rows:
        ids = np.array([IDS[t] for t in row["Source"].split() if t not in "()"], np.uint8)
        assert str(evaluate(ids)) == row["Target"]
        assert to_published(ids) == row["Source"]


def test_golden_rows() -> None:
    """Version 1 gives these bytes for ever; other bytes need another version."""
    rows, labels = rows_of("golden", 50, **LAW)
    digest = hashlib.sha256(np.concatenate(rows).tobytes() + labels.tobytes()).hexdigest()
    assert digest == "9b6cda1713a0825148e52b1eaddf0ca48e23d86a65dd6845c46e33834f16dd9a"
    short = GeneratedExpressions(ListOpsOptions(**SHORT)).draw("train", 7, 1)[0]
    assert " ".join(TOKENS[i] for i in short) == "[MIN 9 3 1 2 6 5 [MED [MED 9 8 0 6 ] 7 ] ]"


def test_golden_rows_of_the_task(tmp_path: Path) -> None:
    """Version 1 as everybody runs it: the first tokens and labels of every split, generated and published."""
    assert task().version == "1"
    sizes = {"task.train_size": 3, "task.val_size": 2, "task.test_size": 2}
    found = []
    for settings in (sizes, {"task.path": str(FIXTURES)}):
        data = open_task(task(), "paper", settings, tmp_path)
        data.prepare()
        rows = [(data.dataset(split)[i]) for split in SPLITS for i in range(2)]
        found.append([("".join(f"{int(x):x}" for x in inputs[:12]), len(inputs), label) for inputs, label in rows])
    assert found == GOLDEN_ROWS


GOLDEN_ROWS = [
    [
        ("38f6ad23f1a6", 1103, 5),
        ("3aec6f83e171", 1076, 4),
        ("322c38bd91cc", 799, 8),
        ("2f1a4ee71ea6", 1314, 9),
        ("16f9372aa68f", 647, 0),
        ("3149aecfc121", 1773, 2),
    ],
    [
        ("349a9d8661f6", 873, 4),
        ("44e6e36f6e47", 704, 8),
        ("229bed9f8722", 895, 9),
        ("2c3894c39f41", 1047, 8),
        ("34f8d9a7d853", 1940, 6),
        ("21fa696ae2bf", 1901, 9),
    ],
]


def test_an_example_depends_on_its_index_alone() -> None:
    recipe = GeneratedExpressions(ListOpsOptions())
    together, lengths, _ = recipe.draw("val", 0, 9)
    alone, _, _ = recipe.draw("val", 8, 1)
    assert np.array_equal(together[-lengths[-1] :], alone)


def test_no_expression_occurs_twice(tmp_path: Path) -> None:
    options = ListOpsOptions(
        train_size=3000, val_size=300, test_size=300, min_len=3, max_len=6, max_depth=2, max_args=3, seq_len=5
    )
    data = ListOpsData(options, tmp_path)
    data.prepare()
    rows = [data.stored(s).row(i).tobytes() for s in SPLITS for i in range(len(data.stored(s)))]
    assert len(rows) == len(set(rows)) == 3600
    # 3600 of 4400 possible: without replacement by the stream's next tree this would never come out
    larger = ListOpsData(
        ListOpsOptions(
            train_size=3500, val_size=300, test_size=300, min_len=3, max_len=6, max_depth=2, max_args=3, seq_len=5
        ),
        tmp_path,
    )
    larger.prepare()
    assert bytes(larger.stored("test").data) == bytes(data.stored("test").data)


def test_impossible_laws_are_refused(tmp_path: Path) -> None:
    data = ListOpsData(ListOpsOptions(max_depth=2), tmp_path)
    with pytest.raises(zoo.ConfigError, match="500 < tokens < 2000"):
        data.prepare()
    with pytest.raises(zoo.ConfigError, match=r"task.seq_len: 20 would cut"):
        open_task(task(), "quick", {"task.seq_len": 20})
    paper = open_task(task(), "paper", {"task.seq_len": 100}, tmp_path)  # published files may be cut, if there are any
    with pytest.raises(zoo.ConfigError, match=r"task.seq_len: 100 would cut"):
        paper.prepare()


def test_published_files(tmp_path: Path) -> None:
    data = open_task(task(), "paper", {"task.path": str(FIXTURES)}, tmp_path)
    data.prepare()
    told = data.provenance()
    assert told["kind"] == "part"
    assert told["counts"] == {"train": 3, "val": 3, "test": 3}
    assert told["files"]["basic_val.tsv"] == hashlib.sha256((FIXTURES / "basic_val.tsv").read_bytes()).hexdigest()
    first = (FIXTURES / "basic_train.tsv").read_text().splitlines()[1].split("\t")
    inputs, label = data.dataset("train")[0]
    assert [TOKENS[i] for i in inputs] == [t for t in first[0].split() if t not in "()"]
    assert label == int(first[1])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_and_column_order(tmp_path: Path, end: str) -> None:
    for split in SPLITS:
        last = {"train": 2, "val": 3, "test": 4}[split]
        rows = ["Target\tSource", f"7\t( ( ( [MAX 7 ) {last} ) ] )", ""]
        (tmp_path / f"basic_{split}.tsv").write_bytes(end.join(rows).encode())
    data = open_task(task(), "paper", {"task.path": str(tmp_path)}, tmp_path / "root")
    data.prepare()
    assert data.dataset("val")[0][1] == 7
    assert data.dataset("val")[0][0].tolist() == [2, 13, 9, 5]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("( ( ( [MAX 7 ) 2 ) ] )\t6", "labelled '6', but the expression is 7"),
        ("( ( ( [MAX 7 ) 2\t7", "not a whole expression"),
        ("( ( ( [FIRST 7 ) 2 ) ] )\t7", r"unknown token '\[FIRST'"),
        ("( ( ( [MAX 7 ) 2 ) ] )", "1 columns"),
    ],
)
def test_damaged_published_rows_are_named(tmp_path: Path, row: str, complaint: str) -> None:
    for split in SPLITS:
        good = f"( ( ( [MAX 7 ) {3 + SPLITS.index(split)} ) ] )\t7"
        (tmp_path / f"basic_{split}.tsv").write_text(f"Source\tTarget\n{good}\n{row if split == 'val' else good}\n")
    data = open_task(task(), "paper", {"task.path": str(tmp_path)}, tmp_path / "root")
    with pytest.raises(zoo.DataError, match=rf"basic_val.tsv:3: .*{complaint}"):
        data.prepare()
    assert not data.prepared()


def test_missing_published_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(zoo.DataError, match=r"no basic_\{train,val,test\}.tsv"):
        open_task(task(), "paper", {"task.path": str(tmp_path)}).prepare()
    (tmp_path / "basic_train.tsv").write_text("Source\tTarget\n")
    with pytest.raises(zoo.DataError, match=r"basic_val\.tsv: no such file"):
        open_task(task(), "paper", {"task.path": str(tmp_path)}, tmp_path / "root").prepare()


def test_export_reads_back_as_published(tmp_path: Path) -> None:
    ours = ListOpsData(ListOpsOptions(**SHORT), tmp_path / "root")
    ours.prepare()
    assert export(ours, tmp_path / "out") == {"train": 60, "val": 20, "test": 20}
    text = (tmp_path / "out" / "basic_train.tsv").read_bytes()
    assert text.startswith(b"Source\tTarget\r\n( ( ")
    assert text.count(b"\r\n") == text.count(b"\n") == 61
    theirs = ListOpsData(ListOpsOptions(path=str(tmp_path / "out")), tmp_path / "root")
    theirs.prepare()
    for split in SPLITS:
        assert bytes(theirs.stored(split).data) == bytes(ours.stored(split).data)
        assert np.array_equal(theirs.labels(split), ours.labels(split))


def test_release_is_found_in_the_data_directory_only_for_its_own_law(tmp_path: Path) -> None:
    folder = tmp_path / "lra_release" / "listops-1000"
    folder.mkdir(parents=True)
    for split in SPLITS:
        (folder / f"basic_{split}.tsv").write_bytes((FIXTURES / f"basic_{split}.tsv").read_bytes())
    assert ListOpsData(ListOpsOptions(), tmp_path).find_published() == folder
    assert ListOpsData(ListOpsOptions(**SHORT), tmp_path).find_published() is None
    assert ListOpsData(ListOpsOptions(source="regenerated"), tmp_path).find_published() is None


def test_cutting_and_end_token(tmp_path: Path) -> None:
    options = ListOpsOptions(path=str(FIXTURES), seq_len=100, eos=True)
    data = ListOpsData(options, tmp_path)
    data.prepare()
    inputs, _ = data.dataset("train")[0]
    assert len(inputs) == 100
    assert inputs[-1] == EOS
    assert "9 expressions are longer" in data.provenance()["notes"][-1]


def test_batches_are_padded_and_masked(tmp_path: Path) -> None:
    data = open_task(task(), "smoke", {}, tmp_path)
    data.prepare()
    batch = collate_sequences([data.dataset("train")[i] for i in range(8)])
    assert batch.mask is not None
    assert (batch.inputs[~batch.mask] == 0).all()
    assert (batch.inputs[batch.mask] > 0).all()
    assert int(batch.inputs.max()) < task().vocab_size
    assert 0.1 < data.majority() < 0.35
    assert isinstance(data.stored("train"), StoredSplit)


def test_brackets_are_kept_when_asked_for(tmp_path: Path) -> None:
    plain, kept = (
        ListOpsData(ListOpsOptions(path=str(FIXTURES), seq_len=9_000, brackets=b), tmp_path) for b in (False, True)
    )
    plain.prepare()
    assert kept.folder == plain.folder
    rows = (FIXTURES / "basic_train.tsv").read_text().splitlines()[1:]
    for i, row in enumerate(rows):
        assert kept.view("train", i) == row.split("\t")[0]
    assert kept.lengths("train").tolist() == [len(kept.dataset("train")[i][0]) for i in range(3)]
    assert kept.lengths("train").tolist() == [3 * n - 2 for n in plain.lengths("train").tolist()]
    assert int(max(kept.dataset("train")[0][0])) == 18 < kept.options.vocab_size
    with pytest.raises(zoo.ConfigError, match="2000 would cut expressions of 5995 tokens"):
        open_task(task(), "paper", {"task.brackets": True}, tmp_path / "empty").prepare()


def test_a_model_of_brackets_has_their_embeddings() -> None:
    overrides = {"task.brackets": True, "task.seq_len": 200}
    experiment = resolve_one("linformer", "listops", protocol="smoke", overrides=overrides)
    assert experiment.vocab_size == 19
    assert SequenceClassifier(experiment.model_spec).encoder.embedding.weight.shape[0] == 19


def test_an_expression_in_two_splits_is_named(tmp_path: Path) -> None:
    for split in SPLITS:
        (tmp_path / f"basic_{split}.tsv").write_bytes((FIXTURES / f"basic_{split}.tsv").read_bytes())
    with (tmp_path / "basic_test.tsv").open("ab") as file:
        file.write((FIXTURES / "basic_val.tsv").read_bytes().splitlines(keepends=True)[2])
    data = open_task(task(), "paper", {"task.path": str(tmp_path)}, tmp_path / "root")
    with pytest.raises(zoo.DataError, match=r"basic_test\.tsv:5: the same expression as .*basic_val\.tsv:3"):
        data.prepare()
    assert not data.prepared()
