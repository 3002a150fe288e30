"""The wheel holds everything. Installed into a fresh environment, far from the checkout: tests/test_plugin_page.py."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tests.conftest import ROOT


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
