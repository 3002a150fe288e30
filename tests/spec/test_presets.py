"""Presets files: inheritance, sources and errors; and that every preset of a built-in plugin fits its configuration."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zoo import Preset, Reported, ZooError, registry
from zoo.spec import presets
from zoo.spec.config import sections, validate_layer
from zoo.spec.presets import load_presets

BUILTIN = {name: entry.record for name, entry in registry().architectures.items() if entry.plugin.builtin}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package `gadget` without a presets file, beside a package `base_recipes` with one."""
    for name in ("gadget", "base_recipes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "base_recipes" / "presets.toml").write_text(
        '[base.common]\nsource = "a paper"\noptim.eps = 1e-9\n'
        '[base.text]\ninherits = ["base.common"]\nsource = "its appendix"\n'
        'model = { d_model = 256, pool = "cls" }\noptim.lr = { value = 0.05, note = "at its peak" }\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    presets._read.cache_clear()
    load_presets.cache_clear()
    yield tmp_path / "gadget"
    for name in ("gadget", "base_recipes"):
        sys.modules.pop(name, None)


def write(package: Path, text: str) -> None:
    (package / "presets.toml").write_text(text, encoding="utf-8")


def test_a_section_inherits_values_with_their_sources(package: Path) -> None:
    write(
        package,
        """
        [base.own]
        source = "ours, because"
        arch.rank = "null"
        [text.paper]
        inherits = ["base.own", "base_recipes:base.text"]
        exclude = ["model.pool"]
        model.n_layers = 4
        optim.eps = { value = 0.0, source = "elsewhere" }
        [pathx.paper]
        inherits = ["text.paper"]
        source_prefix = "ours, as Text: "
        """,
    )
    found = load_presets("gadget").presets
    assert list(found) == [("text", "paper"), ("pathx", "paper")]
    text = found["text", "paper"]
    assert text.values == {
        "arch.rank": None,
        "optim.eps": 0.0,
        "model.d_model": 256,
        "optim.lr": 0.05,
        "model.n_layers": 4,
    }
    assert text.sources == {
        "arch.rank": "ours, because",
        "optim.eps": "elsewhere",
        "model.d_model": "its appendix",
        "optim.lr": "its appendix: at its peak",
        "model.n_layers": "its appendix",
    }
    pathx = found["pathx", "paper"]
    assert pathx.values == text.values
    assert pathx.sources["optim.lr"] == "ours, as Text: its appendix: at its peak"


def test_reported_scores(package: Path) -> None:
    write(
        package,
        '[[reported]]\nsource = "B"\ntable = "T 1"\nmetric = "accuracy"\nscores = { text = 0.6, image = 0.4 }\n',
    )
    common = {"metric": "accuracy", "source": "B", "table": "T 1"}
    expected = (Reported(task="text", value=0.6, **common), Reported(task="image", value=0.4, **common))
    assert load_presets("gadget").reported == expected


def test_reported_scores_may_have_the_mean_that_their_source_prints(package: Path) -> None:
    write(
        package,
        '[[reported]]\nsource = "B"\nmetric = "accuracy"\nscores = { text = 0.6, image = 0.4 }\naverage = 0.51\n',
    )
    assert [one.average for one in load_presets("gadget").reported] == [0.51, 0.51]


def test_the_file_may_be_absent(package: Path) -> None:
    assert load_presets("gadget") == ({}, ())
    with pytest.raises(ZooError, match="No module named 'no_such_package'"):
        load_presets("no_such_package")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[text.paper\n", r"gadget/presets\.toml: .*line 1"),
        ("[text.paper]\noptim.lr = 1\n", r"gadget/presets\.toml \[text\.paper\]: optim\.lr has no source"),
        ('[text.paper]\noptim.lr = { value = 1, note = "n" }\n', r"\[text\.paper\]: optim\.lr has no source"),
        (
            '[text.paper]\nsource = "s"\noptim.lr = { values = 1 }\n',
            r"\[text\.paper\]: optim\.lr: expected a value, or",
        ),
        ('[text.paper]\nsource = "s"\nlr = 1\n', r"\[text\.paper\]: unknown key 'lr'"),
        ('[text.paper]\nsouce = "s"\n', r"unknown key 'souce'; did you mean 'source'\?"),
        ('[text.paper]\nsource = "s"\noptim = 1\n', r"\[text\.paper\]: optim: expected a table, got 1"),
        ('[text]\npaper = "s"\n', r"\[text\.paper\]: expected a table"),
        ('text = "s"\n', r"presets\.toml \[text\]: expected a table"),
        (
            '[base.short]\n[text.paper]\ninherits = ["base.shrt"]\n',
            r"gadget/presets\.toml \[text\.paper\]: inherits \[base\.shrt\]: .*no section \[base\.shrt\]; did you mean",
        ),
        (
            '[text.paper]\ninherits = ["base_recipes:base.txt"]\n',
            r"base_recipes/presets\.toml has no section",
        ),
        ('[text.paper]\ninherits = ["no_such_package:base.text"]\n', r"\[text\.paper\]: .*no_such_package"),
        ('[a.quick]\ninherits = ["a.paper"]\n[a.paper]\ninherits = ["a.quick"]\n', r"\[a\.quick\]: inherits itself"),
        ('[text.paper]\nexclude = ["model.pool"]\n', r"\[text\.paper\]: excludes model\.pool, which is not inherited"),
        ('[[reported]]\nsource = "s"\n', r"gadget/presets\.toml \[\[reported\]\]: expected metric, source, scores"),
        (
            '[[reported]]\nsource = ""\nmetric = "accuracy"\nscores = { text = 0.6 }\n',
            r"gadget/presets\.toml \[\[reported\]\]: scores without a source",
        ),
    ],
)
def test_mistakes_name_the_file_and_the_section(package: Path, text: str, message: str) -> None:
    write(package, text)
    with pytest.raises(ZooError, match=message):
        load_presets("gadget")


@pytest.mark.parametrize("name", BUILTIN)
def test_built_in_presets_fit_the_configuration(name: str) -> None:
    record = BUILTIN[name]
    tasks = registry().tasks
    for (task, _), preset in record.load_presets().items():
        assert isinstance(preset, Preset)
        nodes = sections(record, tasks[task].record)
        assert validate_layer(preset.values, nodes, f"{name}, {task}") == preset.values
    assert {score.task for score in record.load_reported()} <= tasks.keys()


def test_long_range_arena_owns_its_recipes_once() -> None:
    """What its repository says of all models comes out the same in each plugin that inherits it."""
    rows = {name: BUILTIN[name].load_presets()["listops", "paper"] for name in ("transformer", "linformer", "bigbird")}
    for key in ("model.d_model", "arch.n_heads", "optim.lr", "train.max_samples"):
        assert len({(preset.values[key], preset.sources[key]) for preset in rows.values()}) == 1, key
    assert rows["transformer"].values["optim.lr"] == round(0.05 / 1000**0.5, 7)
    assert rows["transformer"].sources["optim.lr"].startswith("google-research/long-range-arena@cd31e5c lra_benchmarks")


def test_presets_are_read_without_torch() -> None:
    use = "[(e.record.load_presets(), e.record.load_reported()) for e in registry().architectures.values()]"
    code = f"import sys; from zoo import registry; {use}; assert not {{'torch', 'pydantic'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
