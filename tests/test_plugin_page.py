"""docs/write-a-plugin.md, docs/examples and `zoo new`: what they give is installed as a stranger's, checked and run."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from tests.conftest import ROOT
from tests.environments import fresh_environment, install, made_once, run
from zoo.testing import ArchitectureSubject, run_checks

PAGE = (ROOT / "docs" / "write-a-plugin.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^\*\*`([^`]+)`\*\*\n\n```\w+\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
EXAMPLES = sorted(path.parent for path in (ROOT / "docs" / "examples").glob("*/pyproject.toml"))


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with zoo, the page's package, the examples and both packages of `zoo new`."""

    def make(folder: Path) -> None:
        python, page = fresh_environment(folder, wheel), folder / "page"
        for name, text in FILES.items():
            (page / name).parent.mkdir(parents=True, exist_ok=True)
            (page / name).write_text(text, encoding="utf-8")
        zoo = python.with_name("zoo")
        for kind, name in (("arch", "my_mixer"), ("task", "my_task")):
            written = json.loads(run(zoo, "new", kind, name, "--in", folder / "new", "--json", cwd=folder))
            assert written["distribution"] == f"zoo-{name.replace('_', '-')}"
        examples = [shutil.copytree(example, folder / example.name) for example in EXAMPLES]
        install(python, page, *examples, folder / "new" / "my_mixer", folder / "new" / "my_task", build=True)

    return made_once(tmp_path_factory, "stranger", make) / "bin" / "python"


def test_the_page_has_the_whole_package() -> None:
    files = {"__init__.py", "config.py", "backbone.py", "presets.toml", "README.md"}
    assert {f"zoo_my_gru/{name}" for name in files} | {"pyproject.toml", "tests/test_my_gru.py"} == set(FILES)
    assert len(PAGE.splitlines()) < 260


def test_the_plugins_are_listed_with_their_distribution(python: Path, tmp_path: Path) -> None:
    listed = json.loads(run(python.with_name("zoo"), "list", "--json", cwd=tmp_path))
    origin = {entry["name"]: entry["from"] for kind in ("architectures", "tasks") for entry in listed[kind]}
    assert origin["my_gru"] == "zoo-my-gru 1.2.3"
    assert origin["my_mixer"] == "zoo-my-mixer 0.1.0"
    assert origin["my_task"] == "zoo-my-task 0.1.0"
    assert {origin[name].split()[0] for name in ("mamba", "s4", "transformer", "listops")} == {"seqzoo"}
    where = run(python, "-c", "import zoo; print(zoo.__file__)", cwd=tmp_path)
    assert str(python.parents[1]) in where, "not of the wheel"


def test_zoo_check_finds_nothing(python: Path, tmp_path: Path) -> None:
    zoo, data = python.with_name("zoo"), str(tmp_path / "data")
    names = ["my_gru", "my_mixer", "my_task", "listops", *(example.name for example in EXAMPLES)]
    reports = json.loads(run(zoo, "check", *names, "--json", cwd=tmp_path, exit_code=1, ZOO_DATA_DIR=data))
    failed = {report["name"]: [each for each in report["details"] if each["status"] == "failed"] for report in reports}
    (card,) = failed.pop("my_mixer")  # nobody has written its card
    assert card["check"] == "card_is_written"
    assert "one sentence that says what mixes the tokens" in card["reason"]
    assert failed == {name: [] for name in names if name != "my_mixer"}
    assert all(report["passed"] >= 9 for report in reports)
    gru = reports[0]
    count = f"{len(gru['details'])} checks: {gru['passed']} passed, {gru['not_declared']} not declared"
    assert f"my_gru: {count}, 0 without data, 0 failed" in PAGE, f"the page says otherwise than {count}"


def test_zoo_bench_runs_them_and_the_record_says_whose_they_are(python: Path, tmp_path: Path) -> None:
    """And an architecture of the wheel; a task of it is checked above."""
    whose = {"my_gru": "zoo-my-gru 1.2.3", "my_mixer": "zoo-my-mixer 0.1.0", "transformer": f"seqzoo {zoo.__version__}"}
    whose |= {"min_gru": "zoo-min-gru 0.1.0", "gated_linear_attention": "zoo-gated-linear-attention 0.1.0"}
    made = json.loads(
        run(
            *(python.with_name("zoo"), "bench", "--arch", ",".join(whose), "--task", "my_task"),
            *("--protocol", "smoke", "--json"),
            cwd=tmp_path,
            ZOO_DATA_DIR=str(tmp_path / "data"),
            ZOO_RESULTS_DIR=str(tmp_path / "results"),
        )
    )
    assert [record["status"] for record in made] == ["ok"] * len(whose)
    for record in made:
        name, plugin = record["architecture"]["name"], record["plugin"]
        assert f"{plugin['distribution']} {plugin['version']}" == whose[name]
        assert plugin["entry_point"] == f"zoo_{name}"
    assert len(list((tmp_path / "results").rglob("*-s0.json"))) == len(whose)


def test_the_pages_own_suite_and_the_examples_recurrences_pass_under_pytest(python: Path, tmp_path: Path) -> None:
    """Of the page's suite what is quick, of the examples that their layers are the recurrences of their papers."""
    (tmp_path / "test_my_gru.py").write_text(FILES["tests/test_my_gru.py"])
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # not this repository's, with its two workers
    only = "token_by_token or (test_my_gru and (causal or step_equals or spec_without))"
    tests = [tmp_path / "test_my_gru.py", *(example / "tests" for example in EXAMPLES)]
    options = ("-c", "pytest.ini", "-v", "-p", "no:cacheprovider", "-k", only)
    out = run(python, "-m", "pytest", *options, *tests, cwd=tmp_path)
    passed = [line for line in out.splitlines() if " PASSED" in line]
    assert sum("token_by_token" in line for line in passed) == len(EXAMPLES), out
    assert sum("test_my_gru.py" in line for line in passed) in (3, 4), out


FAULTS = {
    "a future leak": (
        "return h.to(x.dtype), h[:, -1]",
        "return (h + 1e-6 * h.roll(-1, 1)).to(x.dtype), h[:, -1]",
        {"causal", "causal_with_state"},
    ),
    "a padding leak": (
        "last = h[torch.arange(len(h), device=h.device), (lengths - 1).clamp_min(0)]",
        "last = h[:, -1]",
        {"pads_do_not_enter_the_state"},
    ),
    "a step that differs": (
        "    def init_state(",
        "    def step(self, x_t, state):\n        y_t, state = super().step(x_t, state)\n"
        "        return 0.999 * y_t, state\n\n    def init_state(",
        {"step_equals_forward"},
    ),
    "a state that mixes rows": (
        "first = torch.zeros_like(wide[:, 0]) if state is None else state.to(wide.dtype)",
        "first = torch.zeros_like(wide[:, 0]) if state is None else (state + state.mean(0)).to(wide.dtype)",
        {"rows_of_the_state_do_not_mix"},
    ),
    "a parameter without gradient": (
        "self.gru = nn.GRU(d_model, d_model, batch_first=True)",
        "self.gru = nn.GRU(d_model, d_model, batch_first=True)\n        self.unused = nn.Linear(d_model, d_model)",
        {"every_parameter_gets_a_gradient"},
    ),
}


def faulty(fault: str, folder: Path) -> str:
    """The page's package with a fault planted, under a name of its own; that name."""
    before, after, _ = FAULTS[fault]
    assert FILES["zoo_my_gru/backbone.py"].count(before) == 1
    package = "zoo_with_" + fault.replace(" ", "_")
    for name, text in FILES.items():
        path = folder / name.replace("zoo_my_gru", package)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = text.replace(before, after) if name.endswith("backbone.py") else text
        path.write_text(text.replace("zoo_my_gru", package))
    return package


@pytest.mark.parametrize("fault", FAULTS)
def test_the_suite_finds_what_is_planted(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = faulty(fault, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (record,) = importlib.import_module(package).zoo_architectures()
    report = run_checks(ArchitectureSubject(record, entry_point=package), only=sorted(FAULTS[fault][2]))
    failed = {result.check: result.reason for result in report.results if result.status == "failed"}
    assert FAULTS[fault][2] <= set(failed), failed
    assert all(failed.values())
    assert not report.ok


def test_zoo_check_tells_of_it_and_exits_with_1(tmp_path: Path) -> None:
    package = faulty("a future leak", tmp_path)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "ZOO_PLUGINS": package,
    }
    command = [sys.executable, "-m", "zoo", "check", "my_gru"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert re.search(
        r"my_gru: \d+ checks: \d+ passed, \d+ not declared, 0 without data, [1-9]\d* failed", done.stdout
    ), done.stdout
    assert "  causal (mode causal): " in done.stdout
