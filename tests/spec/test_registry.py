"""Plugins from real distributions: good ones load, each broken one is a row with its cause."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.spec import packages
from zoo import UserError
from zoo.spec.errors import UnknownName
from zoo.spec.registry import BUILTINS, Plugin, Registry, discover

PRINT_REGISTRY = """
import json, sys
from dataclasses import asdict
from zoo.spec.registry import registry
r = registry()
r2 = registry()
table = lambda t: {n: asdict(e.plugin) for n, e in t.items()}
json.dump({"plugins": [asdict(s) for s in r.plugins], "architectures": table(r.architectures), "tasks": table(r.tasks),
           "torch": sorted({"torch", "lightning", "numpy"} & set(sys.modules)), "once": r is r2}, sys.stdout)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages.pip_install(tmp_path_factory.mktemp("third"))


def run_python(site: Path, code: str = PRINT_REGISTRY, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("ZOO_")} | environment
    env["PYTHONPATH"] = str(site)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)


@pytest.fixture(scope="module")
def registered(site: Path) -> dict[str, Any]:
    """The registry of a fresh interpreter with all packages installed."""
    done = run_python(site)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "stderr": done.stderr}


def statuses(registered: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [p for p in registered["plugins"] if p["name"] == name]


def test_good_plugins_load_beside_the_broken_ones(registered: dict[str, Any]) -> None:
    for name in ("good_arch", "noisy_arch", "class_arch", "half_arch", "twice_arch"):
        assert name in registered["architectures"]
    assert "good_task" in registered["tasks"]
    (good,) = statuses(registered, "good")
    assert good["state"] == "ok"
    assert good["provides"] == ["good_arch", "good_task"]
    assert good["distribution"] == "zoo-third-good"
    assert good["version"] == "1.2"
    assert registered["architectures"]["good_arch"]["entry_point"] == "third_good"
    assert {p["name"] for p in registered["plugins"]} >= set(packages.PACKAGES) | set(BUILTINS)


def test_builtins_are_as_they_are_without_third_parties(registered: dict[str, Any], tmp_path: Path) -> None:
    alone = json.loads(run_python(tmp_path).stdout)
    for table in ("architectures", "tasks"):
        ours = {n: e for n, e in registered[table].items() if e["builtin"]}
        assert ours == {n: e for n, e in alone[table].items() if e["builtin"]}
        assert ours or table == "tasks"
    builtin = [p for p in registered["plugins"] if p["builtin"]]
    assert builtin == [p for p in alone["plugins"] if p["builtin"]]


@pytest.mark.parametrize(
    ("name", "state", "cause"),
    [
        ("import-error", "error", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
        ("syntax-error", "error", "SyntaxError: "),
        ("sys-exit", "error", "called sys.exit(3) while loading"),
        ("misspelt", "error", "unknown hook 'zoo_architecture'"),
        ("raising-hook", "error", "zoo_architectures: RuntimeError: the hook broke"),
        ("half-raising", "partial", "zoo_tasks: KeyError: 'no tasks today'"),
        ("exiting-hook", "error", "zoo_architectures: called sys.exit('bye')"),
        ("newer-api", "error", "newer_arch: written for interface 99, this is 1; upgrade seqzoo with pip"),
        ("older-api", "error", "older_arch: written for interface 0, this is 1; upgrade zoo-third-older-api with pip"),
        ("wrong-type", "error", "zoo_architectures: yielded dict, expected Architecture"),
        ("not-iterable", "error", "TypeError: 'int' object is not iterable"),
        ("unknown-argument", "error", "config"),
        ("bad-name", "error", "architecture name 'Bad Name'"),
        ("bad-mode", "error", "modes ['sideways']"),
        ("no-hooks", "error", "implements none of zoo_architectures, zoo_tasks"),
        ("twice", "partial", "twice_arch: registered twice by zoo-third-twice"),
        ("a-broken-class", "error", "ValueError: cannot be made"),
        ("missing-attribute", "error", "AttributeError: "),
    ],
)
def test_a_broken_plugin_is_a_row_with_its_cause(registered: dict[str, Any], name: str, state: str, cause: str) -> None:
    (status,) = statuses(registered, name)
    assert status["state"] == state
    assert cause in status["detail"]
    assert "\n" not in status["detail"]
    lines = [line for line in registered["stderr"].splitlines() if f"plugin {name} (zoo-third-{name} 1.2)" in line]
    assert len(lines) == 1, "one line on stderr, once"
    assert cause in lines[0]


def test_syntax_errors_name_file_and_line(registered: dict[str, Any]) -> None:
    (status,) = statuses(registered, "syntax-error")
    assert "third_syntax_error.py, line 1" in status["detail"]


def test_nothing_else_on_stderr_or_stdout(registered: dict[str, Any]) -> None:
    """Output of plugins while they load is swallowed (that stdout is JSON says that of stdout)."""
    assert all(line.startswith("zoo: plugin ") for line in registered["stderr"].splitlines())
    assert "loading" not in registered["stderr"].replace("while loading", "")


def test_listing_imports_no_torch(registered: dict[str, Any]) -> None:
    assert registered["torch"] == []
    assert registered["once"]


def test_clashing_third_parties_are_reachable_by_distribution(registered: dict[str, Any]) -> None:
    assert "clashing" not in registered["architectures"]
    for name in ("one", "two", "three"):
        assert f"zoo-third-clash-{name}:clashing" in registered["architectures"]
    details = [p["detail"] for p in registered["plugins"] if p["name"].startswith("clash-") and p["state"] == "partial"]
    assert len([d for d in details if "'clashing'" in d]) == 2
    assert all("name clash" in d for d in details)


def test_builtins_win_clashes(registered: dict[str, Any]) -> None:
    assert registered["architectures"]["mamba"]["builtin"]
    assert registered["architectures"]["zoo-third-clash-builtin:mamba"]["distribution"] == "zoo-third-clash-builtin"
    assert any("'mamba' is a built-in name" in p["detail"] for p in statuses(registered, "clash-builtin"))


LOOK_UP = """
import sys
from zoo import registry
try:
    print(registry().{kind}({name!r}).record.name)
except Exception as error:
    print(type(error).__name__, error.exit_code, error)
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("good_arhc", "did you mean 'good_arch'"),
        ("Mamba", "did you mean 'mamba'"),
        (
            "clashing",
            "claimed by several plugins; say zoo-third-clash-one:clashing or zoo-third-clash-three:clashing",
        ),
        ("import-error", "No module named 'a_module_that_nobody_has'"),
        ("zoo-third-clash-two:clashing", "clashing"),
    ],
)
def test_lookup_by_name(site: Path, name: str, message: str) -> None:
    done = run_python(site, LOOK_UP.format(kind="architecture", name=name))
    assert message in done.stdout
    if ":" not in name:
        assert " 2 " in done.stdout, "a user's mistake: exit code 2"
        assert len(done.stdout.splitlines()) == 1


def test_disabling(site: Path) -> None:
    done = run_python(site, ZOO_DISABLE="sys-exit,zoo-third-good")
    registered = json.loads(done.stdout)
    assert "good_arch" not in registered["architectures"]
    for name in ("sys-exit", "good"):
        assert [s["state"] for s in statuses(registered, name)] == ["disabled"]
        assert f"plugin {name} " not in done.stderr


def test_strict_raises_for_the_author(site: Path) -> None:
    only = ",".join(name for name in packages.PACKAGES if name != "raising-hook")
    done = run_python(site, ZOO_STRICT="1", ZOO_DISABLE=f"{only},{','.join(BUILTINS)}")
    assert done.returncode == 1
    assert "RuntimeError: the hook broke" in done.stderr
    assert "third_raising_hook.py" in done.stderr


def test_a_module_on_the_path(site: Path, tmp_path: Path) -> None:
    (tmp_path / "my_mixer_plugin.py").write_text(packages.hook("path_arch"))
    registered = json.loads(run_python(tmp_path, ZOO_PLUGINS="my_mixer_plugin,no_such_plugin").stdout)
    assert registered["architectures"]["path_arch"]["version"] == "0+path"
    assert "No module named 'no_such_plugin'" in statuses(registered, "no_such_plugin")[0]["detail"]


# -- in this process ---------------------------------------------------------------------------------------------------


def test_one_module_under_two_entry_points_keeps_its_records() -> None:
    known = discover(Plugin(name, "third", "1", "tests.spec.plugin_in_process") for name in ("first", "second"))
    assert list(known.architectures) == ["in_process"]
    assert [s.state for s in known.plugins] == ["ok", "error"]


def test_an_empty_registry_says_so() -> None:
    with pytest.raises(UnknownName, match="unknown task 'listops'"):
        Registry().task("listops")
    assert issubclass(UnknownName, UserError)


def test_keyboard_interrupt_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_plugin.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        discover([Plugin("slow", "third", "1", "slow_plugin")])
