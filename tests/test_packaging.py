"""The wheel holds everything: installed into a fresh environment, far from the checkout, it lists and it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(*args: str | Path, cwd: Path, **env: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | env
    done = subprocess.run([str(a) for a in args], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return next(out.glob("*.whl"))


def test_wheel_holds_every_package_card_and_schema(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for folder in [*(ROOT / "plugins").iterdir(), *(ROOT / "benchmarks").glob("zoo_*")]:
        if (folder / "__init__.py").exists():
            assert f"{folder.name}/__init__.py" in names
            assert f"{folder.name}/README.md" in names
    assert "zoo/interface/record.schema.json" in names
    assert "zoo/py.typed" in names
    assert not [n for n in names if n.startswith(("tests/", "plugins/", "benchmarks/", "efficiency/"))]


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; its dependencies are those of this one, so that no network is needed."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder


def test_zoo_from_the_wheel_lists_and_runs(fresh: Path, tmp_path: Path) -> None:
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
    assert [r["outcome"] for r in made] == ["ok"]
    assert made[0]["plugin"]["distribution"] == "seqzoo"
    assert list((tmp_path / "results").rglob("*.json"))
