"""The conformance suite over everything that is built in: one class per architecture, one test per check."""

from __future__ import annotations

import pytest

from zoo.spec.registry import BUILTINS, registry
from zoo.testing import ArchitectureSuite, run_checks

NINETEEN = (
    *("transformer", "transformer_xl", "compressive", "rmt", "memformer", "longformer", "bigbird", "linformer"),
    *("performer", "nystromformer", "perceiver", "s4", "s5", "h3", "hyena", "mamba", "retnet", "mega", "longt5"),
)
BUILT_IN = sorted(name for name, entry in registry().architectures.items() if entry.plugin.builtin)

for _name in BUILT_IN:
    _class = "Test" + "".join(part.capitalize() for part in _name.split("_"))
    globals()[_class] = type(_class, (ArchitectureSuite,), {"architecture": _name, "__module__": __name__})


def test_every_built_in_plugin_is_covered() -> None:
    broken = [f"{p.name}: {p.detail}" for p in registry().plugins if p.builtin and p.state != "ok"]
    assert not broken
    modules = {entry.plugin.entry_point for entry in registry().architectures.values()}
    tasks = {entry.plugin.entry_point for entry in registry().tasks.values()}
    readers = {entry.plugin.entry_point for entry in registry().readers.values()}
    assert modules | tasks | readers >= set(BUILTINS)
    assert sorted(NINETEEN) == BUILT_IN


@pytest.mark.parametrize("task", sorted(name for name, e in registry().tasks.items() if e.plugin.builtin))
def test_every_built_in_task_passes_all_checks_without_data_files(task: str) -> None:
    report = run_checks(task)
    assert report.ok, report.to_text()
    assert report.count("no_data") == 0
    assert [r.check for r in report.results if r.status == "not_declared"] in (
        ["chance_is_a_uniform_guess"],
        ["scores_match_declared_metrics"],
    )
