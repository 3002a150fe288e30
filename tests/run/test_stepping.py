"""What one more token costs by context: bytes are exact, and times are measured where they are asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.board.samples import classification_records
from zoo.board import build as board
from zoo.board.charts import to_svg
from zoo.board.generation import format_bytes, generation_chart, latest
from zoo.cli import main
from zoo.nn.state import leaves
from zoo.run import stepping
from zoo.spec.generation import GenerationCost
from zoo.spec.registry import registry
from zoo.spec.store import write

from .conftest import resolve_one


def measure(arch: str, contexts: list[int], *, latency: bool = False, **overrides: object) -> GenerationCost:
    from dataclasses import asdict

    experiment = resolve_one(arch, "mqar", protocol="smoke", overrides={"model.d_model": 16, **overrides})
    value = stepping.measure_generation(
        lambda fields: None, experiment=asdict(experiment), contexts=contexts, latency=latency
    )
    return GenerationCost.model_validate(value, strict=False)


def test_a_cache_grows_with_every_token_and_a_state_does_not() -> None:
    cache = measure("transformer", [8, 64, 512], **{"arch.n_heads": 2, "model.n_layers": 2})
    # keys and values of 16 numbers in float32, and whether the token is real, in each of two layers
    assert [point.state_bytes for point in cache.points] == [2 * n * (2 * 16 * 4 + 1) for n in (8, 64, 512)]
    grouped = measure("transformer", [8], **{"arch.n_heads": 2, "arch.n_kv_heads": 1, "model.n_layers": 2})
    assert grouped.points[0].state_bytes == 2 * 8 * (2 * 8 * 4 + 1)
    for arch in ("s5", "mamba"):
        sizes = {point.state_bytes for point in measure(arch, [8, 64, 512]).points}
        assert len(sizes) == 1
        assert sizes.pop() > 0
    assert (cache.machine, cache.points[0].latency) == ("", None)


WINDOWS: list[tuple[str, dict[str, object], int]] = [
    ("longformer", {"arch.window": [32]}, 16),
    ("mega", {"arch.chunk_size": 16}, 15),
]


@pytest.mark.parametrize(("arch", "settings", "held"), WINDOWS)
def test_a_window_is_carried_whole_from_the_first_token_on(arch: str, settings: dict[str, object], held: int) -> None:
    window = measure(arch, [4, 64, 256], **settings)
    assert len({point.state_bytes for point in window.points}) == 1


@pytest.mark.parametrize(("arch", "settings", "held"), WINDOWS)
def test_steps_never_carry_more_than_the_window(arch: str, settings: dict[str, object], held: int) -> None:
    experiment = resolve_one(arch, "mqar", protocol="smoke", overrides={"model.d_model": 24, **settings})
    backbone = experiment.arch_spec.build(experiment.arch_config, experiment.dims).double().eval()
    x = torch.randn(1, 5 * held, 24, dtype=torch.float64)
    with torch.inference_mode():
        whole, state, sizes = backbone(x).hidden, None, set[int]()
        for t in range(x.shape[1]):
            y, state = backbone.step(x[:, t], state)
            torch.testing.assert_close(y, whole[:, t])
            sizes.add(stepping.state_bytes(state))
    assert len(sizes) == 1
    keys = [leaf for leaf in leaves(state) if leaf.is_floating_point() and leaf.shape[-2] == held]
    assert len(keys) == 2 * experiment.dims.n_layers  # keys and values of each layer
    assert backbone.state_size(10 * held) == backbone.state_size(held)


def test_a_memory_is_carried_whole_and_a_segment_as_far_as_it_has_come() -> None:
    settings = {"arch.n_heads": 2, "model.n_layers": 2, "segments.length": 8}
    sizes = [point.state_bytes for point in measure("transformer_xl", [8, 11, 67, 71], **settings).points]
    # of each row 16 numbers in float32 in each of two layers, and whether it is real
    assert sizes == [n * (2 * 16 * 4 + 1) for n in (8, 8 + 3, 8 + 3, 8 + 7)]


def test_what_reads_the_text_again_carries_nothing_and_an_encoder_decoder_its_source() -> None:
    for arch in ("bigbird", "hyena", "perceiver"):
        assert [point.state_bytes for point in measure(arch, [8, 16]).points] == [0, 0]
    near, far = measure("longt5", [8, 64], **{"arch.n_heads": 2}).points
    assert far.state_bytes - near.state_bytes == 56 * 16 * 4  # of each token of the source a vector in float32


def test_every_architecture_that_generates_has_a_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "SECONDS", 0.001)
    for name, entry in registry().architectures.items():
        if entry.record.capabilities.modes & {"causal", "seq2seq"}:
            (point,) = measure(name, [12], latency=True, **{"model.d_model": 32}).points
            assert point.latency is not None, name


def test_latencies_say_where_they_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "SECONDS", 0.01)
    cost = measure("s5", [4, 8], latency=True)
    assert cost.machine
    for point in cost.points:
        assert point.latency is not None
        assert 0 < point.latency.low <= point.latency.seconds <= point.latency.high
    assert "time of the next token on" in to_svg(generation_chart([cost]))


def test_the_command_shows_them_on_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "leaderboard" / "results"
    for record in classification_records():
        write(record, results)

    def run(*arguments: str) -> tuple[int, str, str]:
        place = ["--protocol", "quick", "--results", str(results)]
        monkeypatch.setattr(sys, "argv", ["zoo", "cost", *arguments, "--task", "mqar", *place])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            main()
        return int(ending.value.code or 0), *capsys.readouterr()

    code, out, _ = run("--arch", "s5,linformer,transformer", "--generation", "state", "--contexts", "8,16", "--json")
    assert code == 0
    assert [each["architecture"]["name"] for each in json.loads(out)] == ["s5", "transformer"]
    costs, problems = GenerationCost.read_all(results)
    assert (len(costs), problems) == (2, [])
    text = (results.parent / "README.md").read_text()
    assert "### Generation: bytes of the state by context, at the size for mqar" in text
    assert "](generation-quick-mqar.svg)" in text
    before = {path.name: path.read_bytes() for path in board.board_paths(results)}
    board.build(results)
    assert {path.name: path.read_bytes() for path in board.board_paths(results)} == before
    for bad, says in (
        (("--generation", "stat"), "--generation 'stat': unknown; did you mean 'state'"),
        (("--generation", "state", "--contexts", "8,8"), "--contexts '8,8': expected different whole numbers from 1"),
        (("--generation", "state", "--arch", "linformer"), "none of them predicts the next token"),
    ):
        code, out, err = run(*(("--arch", "s5") if "--arch" not in bad else ()), *bad)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert says in err


def test_of_two_shapes_of_an_architecture_the_last_measured_is_shown() -> None:
    old = measure("s5", [4])
    new = old.model_copy(update={"shape": "ab" * 6, "measured": "2099-01-01T00:00:00+00:00"})
    assert latest([new, old]) == [[new]]
    assert [format_bytes(n) for n in (512, 1024, 33_792, 3 << 19)] == ["512 B", "1 KiB", "33 KiB", "1.5 MiB"]
