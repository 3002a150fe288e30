"""`--arch all` and `--task all` are what fits together; a pair that was named is an error if it does not."""

from __future__ import annotations

import pytest

from zoo import ConfigError, UserError, registry
from zoo.run.request import BenchRequest, resolve

NOT_CAUSAL = {name for name, e in registry().architectures.items() if "causal" not in e.record.capabilities.modes}


def pairs(arch: str, task: str, *overrides: str, protocol: str = "smoke") -> set[tuple[str, str]]:
    request = BenchRequest.parse(arch, task, protocol=protocol, overrides=overrides)
    return {(experiment.architecture, experiment.task) for experiment in resolve(request)}


@pytest.mark.parametrize("protocol", ["smoke", "paper"])
def test_all_leaves_out_impossible_pairs_and_names_them(protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = registry()
    fitting = {(a, t) for a in known.architectures for t in known.tasks if (t, a in NOT_CAUSAL) != ("wikitext", True)}
    assert pairs("all", "all", protocol=protocol) == fitting
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[2].strip() for line in lines] == [
        f"{a} on wikitext" for a in known.architectures if a in NOT_CAUSAL
    ]
    assert all(line.startswith("zoo: left out: ") and "needs a causal form" in line for line in lines)


def test_a_suite_leaves_out_what_does_not_fit() -> None:
    assert pairs("linformer", "language") == {("linformer", "lambada_openai"), ("linformer", "lambada_standard")}
    assert ("mamba", "mqar") not in pairs("all", "mqar", "model.mode=bidirectional")


@pytest.mark.parametrize(
    ("arch", "task"),
    [
        ("linformer", "wikitext"),
        ("mamba,linformer", "wikitext"),
        ("all,linformer", "wikitext"),
        ("linformer,all", "all,wikitext"),
    ],
)
def test_a_pair_that_was_named_is_an_error(arch: str, task: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.mode: wikitext offers causal_lm"):
        resolve(BenchRequest.parse(arch, task, protocol="smoke"))


def test_where_nothing_fits_the_first_reason_is_the_error() -> None:
    with pytest.raises(ConfigError, match="mamba is causal; it has no bidirectional form"):
        pairs("mamba", "lra", "model.mode=bidirectional")


@pytest.mark.parametrize("setting", ["optim.lr=x", "arch.nope=1", "model.n_layers=0", "task.seq_len=1"])
def test_mistakes_in_settings_are_no_impossible_pairs(setting: str) -> None:
    with pytest.raises(UserError, match=setting.partition("=")[0]):
        pairs("all", "lra", setting)
