"""The model of a finished run: kept in its folder, loaded in one line, asked for answers, exported."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F

import zoo
from zoo.data.batch import Batch
from zoo.run.execute import build_module, open_data
from zoo.run.export import export
from zoo.run.trained import load_trained
from zoo.spec.errors import DataError, UserError
from zoo.spec.record import Record
from zoo.spec.store import StoredRecord

pytestmark = pytest.mark.usefixtures("toys")
Bench = Callable[..., StoredRecord]


Key = tuple[str, str, str]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Key, StoredRecord]]:
    """Folder and records of the runs that tests of this module have made, by task, architecture and options."""
    return tmp_path_factory.mktemp("kept"), {}


@pytest.fixture
def bench(tmp_path: Path, kept: tuple[Path, dict[Key, StoredRecord]]) -> Bench:
    """Train, once for all tests; records and runs are copied to folders of the test's own."""

    def trained(task: str, arch: str = "toy", **options: Any) -> StoredRecord:
        folder, made = kept
        key = (task, arch, json.dumps(options))
        own = folder / f"{list(made).index(key) if key in made else len(made)}"
        if key not in made:
            (made[key],) = zoo.bench(
                arch, task, protocol="smoke", results=own / "results", runs=own / "runs", **options
            )
        stored = made[key]
        assert (stored.record.status, stored.record.error) == ("ok", "")
        shutil.copytree(own, tmp_path, dirs_exist_ok=True)
        return stored._replace(path=str(tmp_path / Path(stored.path).relative_to(own)))

    return trained


def folder_of(tmp_path: Path, record: Record) -> Path:
    return tmp_path / "runs" / record.id


def test_a_finished_run_keeps_its_model_once_and_as_safetensors(tmp_path: Path, bench: Bench) -> None:
    record = bench("toytask").record
    folder = folder_of(tmp_path, record)
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "run.json"} <= names
    assert not [name for name in names if name.endswith((".ckpt", ".tmp", ".partial"))]
    tensors = load_file(folder / "model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == record.parameters


@pytest.mark.parametrize("task", ["toytask", "toypairs", "toytext", "toyrecall", "toyregression"])
def test_the_loaded_model_has_the_test_score_of_its_record(tmp_path: Path, bench: Bench, task: str) -> None:
    record = bench(task).record
    trained = load_trained(folder_of(tmp_path, record))
    assert not trained.model.training
    module = build_module(trained.experiment)
    module.model = trained.model
    data = open_data(trained.experiment, module.schedule)
    module.setup_metrics(data)
    with torch.no_grad():
        for batch in data.eval_dataloader("test"):
            module._run("test", batch, 0)
    assert record.metrics is not None
    assert module.scores("test")["scores"][record.metric.name] == record.metrics.test.scores[record.metric.name]


def test_a_run_its_record_and_the_records_file_name_the_same_model(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = bench("toytask")
    weights = [zoo.load(folder_of(tmp_path, stored.record)).state_dict()]
    weights.append(zoo.load(str(folder_of(tmp_path, stored.record) / "model.safetensors")).state_dict())
    weights += [zoo.load(run, runs=tmp_path / "runs").state_dict() for run in (stored, stored.record, stored.path)]
    monkeypatch.setenv("ZOO_RUNS_DIR", str(tmp_path / "runs"))
    weights.append(zoo.load(stored.record).state_dict())
    for other in weights[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize(("task", "shape"), [("toytask", (3, 2)), ("toytext", (3, 7, 24))])
def test_logits_take_ids_and_are_what_batches_give(
    tmp_path: Path, bench: Bench, task: str, shape: tuple[int, ...]
) -> None:
    model: Any = zoo.load(folder_of(tmp_path, bench(task).record))
    ids = torch.randint(1, 5, (3, 7))
    mask = torch.arange(7) < torch.tensor([7, 4, 7])[:, None]
    logits = model.logits(ids, mask)
    assert logits.shape == shape
    labels = torch.zeros((3,) if len(shape) == 2 else (3, 7), dtype=torch.int64)
    expected = model(Batch(ids, mask, labels)).logits
    torch.testing.assert_close(logits if len(shape) == 2 else logits.flatten(0, 1), expected)


def test_a_record_of_an_earlier_run_is_not_given_a_later_runs_model(tmp_path: Path, bench: Bench) -> None:
    first = bench("toytask").record
    older = first.model_copy(update={"ended": "2020-01-01T00:00:00Z"})
    with pytest.raises(UserError, match="holds the model of a later run"):
        zoo.load(older, runs=tmp_path / "runs")


def test_what_is_no_finished_run_is_named(tmp_path: Path, bench: Bench) -> None:
    record = bench("toytask").record
    folder = folder_of(tmp_path, record)
    with pytest.raises(UserError, match="no such run"):
        zoo.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="neither the folder of a run nor a record"):
        zoo.load(folder / "run.json")
    with pytest.raises(UserError, match="made elsewhere"):
        zoo.load(record, runs=tmp_path / "other")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="has not ended well"):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("format", 9, "format: 9, this zoo reads 1"),
        ("architecture", {"name": "toy", "version": "7"}, "made by toy version 7, this zoo has toy version 1"),
        ("architecture", {"name": "mamba", "version": "1"}, "made by mamba version 1, this zoo has toy version 1"),
        ("task", {"name": "toytask", "version": "0"}, "made by toytask version 0"),
        ("experiment", {"architecture": "toy"}, "not the configuration of a run"),
    ],
)
def test_a_checkpoint_of_another_architecture_or_version_is_refused(
    tmp_path: Path, bench: Bench, key: str, value: Any, says: str
) -> None:
    folder = folder_of(tmp_path, bench("toytask").record)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(UserError, match=says) as caught:
        zoo.load(folder)
    assert str(folder / "config.json") in str(caught.value)


def test_weights_that_do_not_fit_are_listed(tmp_path: Path, bench: Bench) -> None:
    wide = folder_of(tmp_path, bench("toytask", overrides={"model.d_model": 32}).record)
    folder = folder_of(tmp_path, bench("toytask").record)
    shutil.copy(wide / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(DataError, match=r"(?s)model.safetensors: .* do not fit:.*shape: encoder.embedding.weight"):
        zoo.load(folder)
    (folder / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(DataError, match=r"model.safetensors"):
        zoo.load(folder)


def test_a_full_disk_costs_the_model_but_not_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zoo.run.rundir.keep_model", full)
    (stored,) = zoo.bench("toy", "toytask", protocol="smoke", results=tmp_path / "results", runs=tmp_path / "runs")
    record = stored.record
    assert record.status == "ok"
    assert (folder_of(tmp_path, record) / "best.ckpt").exists()


# -- answers -----------------------------------------------------------------------------------------------------------


def zoo_command(*arguments: object) -> int:
    from typer.testing import CliRunner

    from zoo.cli import app

    done = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(done.exception, UserError):
        raise done.exception
    return done.exit_code


def predicted(folder: Path, source: Path, target: Path) -> list[dict[str, Any]]:
    assert zoo_command("predict", folder, "--input", source, "--output", target) == 0
    return [json.loads(line) for line in target.read_text().splitlines()]


def test_answers_are_the_models_labels_and_probabilities(tmp_path: Path, bench: Bench) -> None:
    folder = folder_of(tmp_path, bench("toytask").record)
    rows = [[1, 2, 3], [4], [1, 1, 1, 1, 2, 2, 2, 2]] * 15
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"input": row}) + "\n" for row in rows))
    answers = predicted(folder, source, tmp_path / "out.jsonl")
    model: Any = zoo.load(folder)
    assert [answer["row"] for answer in answers] == list(range(1, len(rows) + 1))
    for row, answer in zip(rows, answers, strict=True):
        shares = model.logits(torch.tensor([row])).softmax(-1)[0]
        assert list(answer["probabilities"].values()) == pytest.approx(shares.tolist(), abs=1e-6)
        assert answer["label"] == int(shares.argmax())


def test_answers_as_csv_have_a_column_for_each_class(tmp_path: Path, bench: Bench) -> None:
    folder = folder_of(tmp_path, bench("toytask").record)
    (tmp_path / "in.jsonl").write_text('{"input": [1, 2]}\n{"input": [3]}\n')
    target = tmp_path / "out.csv"
    assert zoo_command("predict", folder, "--input", tmp_path / "in.jsonl", "--output", target) == 0
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "label", "probabilities.0", "probabilities.1"]
    assert sum(float(rows[1][f"probabilities.{k}"]) for k in (0, 1)) == pytest.approx(1)


@pytest.mark.parametrize("arch", ["transformer", "retnet"])  # the second carries a state from piece to piece
def test_perplexities_of_a_text_are_those_of_all_its_tokens(tmp_path: Path, bench: Bench, arch: str) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"It was a fine day, the {k}th of the year.\n\n" for k in range(400)))
    settings = {"task.corpus": str(corpus), "task.seq_len": 64, "train.max_samples": 16, "model.d_model": 16}
    folder = folder_of(tmp_path, bench("wikitext", arch, overrides=settings).record)
    text = "It was a fine day, but not for everybody, and then it began to rain a little. " * 2
    (tmp_path / "one.txt").write_text(text)
    (answer,) = predicted(folder, tmp_path / "one.txt", tmp_path / "out.jsonl")
    trained = load_trained(folder)
    model: Any = trained.model
    ids = torch.tensor([[trained.data.specials.end, *(byte + 1 for byte in text.encode())]])
    if trained.experiment.stateful:
        logits = model.logits(ids[:, :-1])
    else:
        logits = torch.cat([model.logits(piece) for piece in ids[:, :-1].split(64, dim=1)], 1)
    nats = F.cross_entropy(logits[0], ids[0, 1:], reduction="sum").item()
    assert answer["tokens"] == len(text)
    assert answer["bits_per_byte"] == pytest.approx(nats / len(text) / 0.6931471805599453, rel=1e-4)
    assert answer["word_perplexity"] == pytest.approx(2.718281828459045 ** (nats / len(text.split())), rel=1e-3)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"input": [1, 9]}', r"in.jsonl:2: token ids 1 … 9, expected 0 … 4"),
        ('{"input": []}', r"in.jsonl:2: expected a list of the numbers"),
        ('{"input": "abc"}', r"in.jsonl:2: expected a list of the numbers"),
        ('{"input": [0.5]}', r"in.jsonl:2: expected token ids"),
        ('{"input": [1,1,1,1,1,1,1,1,1,1,1,1,1]}', r"in.jsonl:2: 13 tokens, the model reads at most 12"),
        ('{"inputs": [1], "other": 2}', r"in.jsonl:2: no column 'input'; there are inputs, other"),
        ("{", r"in.jsonl:2: not JSON"),
    ],
)
def test_an_input_at_fault_is_named_and_nothing_is_written(tmp_path: Path, bench: Bench, line: str, says: str) -> None:
    folder = folder_of(tmp_path, bench("toytask").record)
    (tmp_path / "in.jsonl").write_text('{"input": [1, 2]}\n' + line + "\n")
    with pytest.raises(DataError, match=says):
        zoo_command("predict", folder, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("*out.jsonl*"))


def test_a_file_is_not_replaced_without_force(tmp_path: Path, bench: Bench) -> None:
    folder = folder_of(tmp_path, bench("toytask").record)
    (tmp_path / "in.jsonl").write_text('{"input": [1, 2]}\n')
    target = tmp_path / "out.jsonl"
    target.write_text("mine")
    arguments = ("predict", folder, "--input", tmp_path / "in.jsonl", "--output", target)
    with pytest.raises(UserError, match="exists already; --force replaces it"):
        zoo_command(*arguments)
    assert target.read_text() == "mine"
    assert zoo_command(*arguments, "--force") == 0
    assert json.loads(target.read_text())["row"] == 1
    with pytest.raises(UserError, match=r"ends in .jsonl or .csv"):
        zoo_command(*arguments[:-1], tmp_path / "out.xlsx")
    recall = folder_of(tmp_path, bench("toyrecall").record)
    with pytest.raises(UserError, match="answers to inputs of this kind are not written"):
        zoo_command("predict", recall, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "recall.jsonl")


# -- exports -----------------------------------------------------------------------------------------------------------


def test_exported_weights_carry_their_configuration(tmp_path: Path, bench: Bench) -> None:
    folder = folder_of(tmp_path, bench("toytask").record)
    target = tmp_path / "toy.safetensors"
    assert zoo_command("export", folder, "--output", target) == 0
    weights, own = load_file(target), zoo.load(folder).state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in own.items())
    with safe_open(target, "pt") as file:
        config = json.loads(file.metadata()["config"])
    assert config == json.loads((folder / "config.json").read_text())
    with pytest.raises(UserError, match="--force"):
        zoo_command("export", folder, "--output", target)
    with pytest.raises(UserError, match="did you mean 'pt2'"):
        zoo_command("export", folder, "--format", "pt", "--output", target)


@pytest.mark.parametrize("arch", ["transformer", "s4"])
def test_an_exported_program_gives_the_models_outputs_for_other_batches_and_lengths(
    tmp_path: Path, bench: Bench, arch: str
) -> None:
    folder = folder_of(tmp_path, bench("toytask", arch).record)
    target = tmp_path / "program.pt2"
    assert zoo_command("export", folder, "--format", "pt2", "--output", target) == 0
    program, model = torch.export.load(target).module(), zoo.load(folder)
    for rows, length in ((1, 12), (4, 12), (4, 7)) if arch == "transformer" else ((1, 12), (4, 12)):
        ids = torch.randint(1, 5, (rows, length))
        mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1))
        torch.testing.assert_close(program(ids, mask), model.logits(ids, mask), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_exported_is_said_and_leaves_no_file(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = load_trained(folder_of(tmp_path, bench("toytask").record))

    def refuses(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no form for this\nand more")

    monkeypatch.setattr("torch.export.export", refuses)
    with pytest.raises(UserError, match=r"toy cannot be exported as pt2: RuntimeError: no form for this$"):
        export(trained, "pt2", tmp_path / "program.pt2")
    assert not list(tmp_path.glob("*.pt2")) + list(tmp_path.glob(".*"))


def test_a_program_whose_outputs_differ_is_not_kept(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = load_trained(folder_of(tmp_path, bench("toytask").record))
    monkeypatch.setattr("zoo.run.export._write_pt2", lambda module, *rest: lambda *inputs: module(*inputs) + 1)
    with pytest.raises(UserError, match=r"the program's outputs for shape .* differ"):
        export(trained, "pt2", tmp_path / "program.pt2")
    assert not list(tmp_path.glob("*.pt2"))


def test_a_program_takes_what_a_format_has_a_form_for(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here neither masks nor inputs whose shape may vary."""
    trained = load_trained(folder_of(tmp_path, bench("toytask").record))

    def write(module: Any, inputs: Any, axes: Any, target: Path) -> Any:
        if len(inputs) == 2 or axes:
            raise RuntimeError("no form for this")

        def program(ids: torch.Tensor) -> torch.Tensor:
            assert ids.shape == inputs[0].shape
            return module(ids)

        target.write_text("program")
        return program

    monkeypatch.setattr("zoo.run.export._write_pt2", write)
    said = export(trained, "pt2", tmp_path / "program.pt2")
    assert said == "inputs without pads, batches of 2, length 12"
    assert (tmp_path / "program.pt2").read_text() == "program"


def test_onnx_gives_the_models_outputs(tmp_path: Path, bench: Bench) -> None:
    import onnxruntime

    folder = folder_of(tmp_path, bench("toytask", "transformer").record)
    target = tmp_path / "program.onnx"
    assert zoo_command("export", folder, "--format", "onnx", "--output", target) == 0
    ids = torch.randint(1, 5, (3, 7))
    mask = torch.arange(7) < torch.tensor([7, 4, 7])[:, None]
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"inputs": ids.numpy(), "mask": mask.numpy()})
    model: Any = zoo.load(folder)
    torch.testing.assert_close(torch.from_numpy(logits), model.logits(ids, mask).detach(), rtol=1e-4, atol=1e-5)
