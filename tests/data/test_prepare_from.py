"""`zoo data prepare --from` with settings: whatever `--set task.path` prepares, it prepares, and runs find it again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.benchmarks.test_recall_files import layout
from zoo import registry
from zoo.cli import app

FIXTURES = Path(__file__).parents[1] / "benchmarks" / "fixtures"
KEY_VALUES = (
    "task.form=text",
    "task.seq_len=900",
    "task.train_pairs=5",
    "task.test_pairs=5",
    "task.generalization_pairs=9",
)
SETTINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "listops": (
        *(("task.brackets=true",), ("task.seq_len=1000",), ("task.eos=true",), ("task.source=published",)),
        *(("task.brackets=true", "task.seq_len=50"), ("task.train_size=2",), ("task.max_depth=5",)),
    ),
    "pathfinder": (
        *(("task.difficulty=curv_baseline",), ("task.difficulty=curv_contour_length_9",), ("task.source=published",)),
        *(("task.input=values",), ("task.seq_len=4096",), ("task.train_size=3",)),
        ("task.difficulty=curv_baseline", "task.seq_len=4096"),
    ),
    "text": (("task.tokens=characters",), ("task.seq_len=100", "task.eos=true"), ("task.duplicates=keep",)),
    "retrieval": (("task.eos=true",), ("task.seq_len=10",), ("task.duplicates=keep",)),
    "image": (("task.grey=pillow",), ("task.input=values",), ("task.duplicates=keep",)),
    "retrieval_books": (("task.seq_len=300", "task.eos=true"), ("task.seq_len=300", "task.data_seed=3")),
    "lambada_openai": (("task.slots=40",), ("task.corpus=wikitext-2",), ("task.seq_len=600",)),
    "lambada_standard": (("task.corpus=auto",), ("task.val_size=0",), ("task.test_size=5",)),
    "wikitext": (("task.stride=16",), ("task.corpus=wikitext-2",), ("task.seq_len=600",)),
    "kv_retrieval": (
        *((*KEY_VALUES, f"task.generalization_pairs={pairs}") for pairs in ("9", "[]")),
        ("task.form=symbols",),
    ),
}
CASES = [(task, settings) for task, several in SETTINGS.items() for settings in several]


def bring(task: str, folder: Path) -> Path:
    """Small files of a task in its published layout."""
    if task == "listops":
        shutil.copytree(FIXTURES / "listops", folder / "listops-1000")
    elif task == "pathfinder":
        for source in FIXTURES.glob("pathfinder/pathfinder*/*"):
            for level in ("curv_baseline", "curv_contour_length_9", source.name):
                shutil.copytree(source, folder / source.parent.name / level)
    elif task == "kv_retrieval":
        for pairs in (5, 9):
            layout(folder, pairs)
    else:
        registry().task(task).record.write_sample_files(folder)
    return folder


def prepare(*args: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["data", "prepare", *args, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)[0]


def test_every_task_that_reads_files_has_cases() -> None:
    readers = {n for n, e in registry().tasks.items() if "path" in e.record.load_options().__dataclass_fields__}
    assert readers - {"pathx"} == set(SETTINGS)  # pathx is pathfinder with other pictures


@pytest.mark.parametrize("protocol", ["quick", "smoke"])
@pytest.mark.parametrize(("task", "settings"), CASES, ids=[f"{task}-{','.join(s)}" for task, s in CASES])
def test_from_with_settings_prepares_what_task_path_does(
    task: str, settings: tuple[str, ...], protocol: str, tmp_path: Path
) -> None:
    folder = bring(task, tmp_path / "my files")
    if task == "pathfinder" and protocol == "quick":  # whose own pictures nobody published
        settings = ("task.seq_len=1024", "task.target_dashes=0", "task.distractors=null", *settings)
    options = [word for setting in settings for word in ("--set", setting)] + ["--protocol", protocol]
    named = prepare(task, *options, "--set", f"task.path={folder}")
    found = prepare(task, *options, "--from", str(folder))
    assert found.get("folder") == named.get("folder")
    assert found["provenance"] == named["provenance"]


@pytest.mark.parametrize("level", ["curv_baseline", "curv_contour_length_9"])
def test_an_easier_difficulty_is_drawn_until_its_files_are_brought_and_then_found_again(
    level: str, tmp_path: Path
) -> None:
    options = ["pathfinder", "--protocol", "smoke", "--set", f"task.difficulty={level}"]
    drawn = prepare(*options)["folder"]
    folder = prepare(*options, "--from", str(bring("pathfinder", tmp_path / "mine")))["folder"]
    assert prepare(*options)["folder"] == folder != drawn


def test_files_that_a_run_does_not_find_again_are_told(tmp_path: Path) -> None:
    folder = bring("listops", tmp_path / "it's mine")
    done = CliRunner().invoke(app, ["data", "prepare", "listops", "--from", str(folder)], catch_exceptions=False)
    assert f"""only with --set 'task.path={tmp_path}/it'"'"'s mine'""" in done.stderr


def test_where_a_protocol_reads_no_files_from_says_so_and_prepares_what_the_protocol_has(tmp_path: Path) -> None:
    """As the pictures of 16x16 pixels of quick, of which nobody published any."""
    folder = bring("pathfinder", bring("listops", tmp_path / "mine"))
    sizes = [word for split in ("train", "val", "test") for word in ("--set", f"task.{split}_size=9")]
    command = ["data", "prepare", "pathfinder,listops", "--from", str(folder), *sizes]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "pathfinder: under quick no files are read: task.source: nobody published" in done.stderr
    kinds = dict(line.split()[::2][:2] for line in done.stdout.splitlines()[1:])
    assert kinds == {"pathfinder": "regenerated", "listops": "part"}
