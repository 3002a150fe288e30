"""The workflow that judges records of pull requests, run step by step on a repository with such a pull request."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.run.test_submission import git, sent, template  # noqa: F401

WORKFLOW = ROOT / ".github" / "workflows" / "records.yml"
GH = '#!/bin/sh\necho "$@" > "$COMMENTS/arguments"\ncp comment.md "$COMMENTS/comment.md"\n'


@pytest.fixture
def origin(template: Path, tmp_path: Path) -> Path:  # noqa: F811
    """A repository whose pull request 7 adds a record, alters another, and brings a package that shadows zoo."""
    origin = tmp_path / "origin"
    git(tmp_path, "init", "-q", "-b", "main", "origin")
    new, old = sent(template), sent(template, 0)
    (origin / "leaderboard").mkdir()
    shutil.copytree(template / "results", origin / "leaderboard" / "results")
    added = origin / "leaderboard" / new.relative_to(template)
    added.unlink()
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "base")
    git(origin, "checkout", "-qb", "theirs")
    shutil.copy(new, added)
    changed = origin / "leaderboard" / old.relative_to(template)
    changed.write_text(changed.read_text().replace('"seconds": ', '"seconds": 1'))
    (origin / "zoo").mkdir()
    (origin / "zoo" / "__init__.py").write_text("raise SystemExit('code of the pull request was run')\n")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "theirs")
    git(origin, "update-ref", "refs/pull/7/merge", "HEAD")
    git(origin, "checkout", "-q", "main")
    return origin


def test_the_steps_judge_each_record_of_a_pull_request_and_run_none_of_its_code(origin: Path, tmp_path: Path) -> None:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["validate"]["steps"]
    by_name = {step["name"]: step["run"] for step in steps if "name" in step}
    assert list(by_name) == ["Take the records of the pull request", "Validate", "Comment"]
    subprocess.run(["git", "clone", "-q", origin, tmp_path / "checkout"], check=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "gh").write_text(GH)
    (tools / "zoo").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m zoo "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    env = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}:{ROOT / 'benchmarks'}",
        "ZOO_PLUGINS": "tests.run.toy",
        "NUMBER": "7",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_REPOSITORY": "somebody/zoo",
        "COMMENTS": str(tmp_path),
    }
    del env["ZOO_RESULTS_DIR"]
    for name, script in by_name.items():
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=tmp_path / "checkout",
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (name, done.stdout, done.stderr)
    assert not (tmp_path / "checkout" / "zoo").exists()  # of the pull request, records alone were checked out
    assert (tmp_path / "output").read_text() == "code=2\n"
    assert (tmp_path / "arguments").read_text() == "pr comment 7 --repo somebody/zoo --body-file comment.md\n"
    lines = (tmp_path / "comment.md").read_text().splitlines()
    verdicts = [line.split()[0] for line in lines if "leaderboard/results/" in line]
    assert sorted(verdicts) == ["accepted", "refused"], lines
    assert "2 changed files: 1 accepted, 1 refused" in lines
