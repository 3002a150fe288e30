"""The wheel holds everything: installed into a fresh environment, far from the checkout, it lists and it runs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from tests.conftest import ROOT
from tests.environments import fresh_environment, run


def test_wheel_holds_every_package_card_and_schema(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for folder in [*(ROOT / "plugins").iterdir(), *(ROOT / "benchmarks").glob("zoo_*")]:
        if (folder / "__init__.py").exists():
            assert f"{folder.name}/__init__.py" in names
            assert f"{folder.name}/README.md" in names
            if (folder / "presets.toml").exists():
                assert f"{folder.name}/presets.toml" in names
    assert {"zoo/spec/record.schema.json", "zoo/spec/cost.schema.json"} <= set(names)
    assert "zoo/py.typed" in names
    assert "zoo/scaffold/templates/arch/zoo_NAME/backbone.py.tmpl" in names
    assert not [n for n in names if n.startswith(("tests/", "plugins/", "benchmarks/", "efficiency/"))]


def test_zoo_from_the_wheel_lists_and_runs(wheel: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh_environment(fresh, wheel)
    zoo = fresh / "bin" / "zoo"
    where = run(fresh / "bin" / "python", "-c", "import zoo; print(zoo.__file__)", cwd=tmp_path)
    assert str(fresh) in where
    listed = json.loads(run(zoo, "list", "--json", cwd=tmp_path))
    assert {"mamba", "s4", "transformer"} <= {a["name"] for a in listed["architectures"]}
    made = json.loads(
        run(
            *(zoo, "bench", "--arch", "transformer", "--task", "listops", "--protocol", "smoke", "--json"),
            cwd=tmp_path,
            ZOO_DATA_DIR=str(tmp_path / "data"),
            ZOO_RESULTS_DIR=str(tmp_path / "results"),
        )
    )
    assert [r["status"] for r in made] == ["ok"]
    assert made[0]["plugin"]["distribution"] == "seqzoo"
    assert list((tmp_path / "results").rglob("*.json"))
