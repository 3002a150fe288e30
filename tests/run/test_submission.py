"""Records that others send: accepted as they were written, and refused by name however they are tampered with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.records import make_cost
from zoo.run.execute import execute
from zoo.run.request import BenchRequest, plan
from zoo.run.submission import check_changes
from zoo.spec.errors import UserError
from zoo.spec.record import pack_bits, unpack_bits
from zoo.spec.registry import registry
from zoo.spec.store import read

pytestmark = pytest.mark.usefixtures("toys")
WORKFLOW = ROOT / ".github" / "workflows" / "records.yml"
GH = '#!/bin/sh\necho "$@" > "$COMMENTS/arguments"\ncp comment.md "$COMMENTS/comment.md"\n'


def git(folder: Path, *args: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *who, *args], check=True, capture_output=True)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose base has a record of seed 0, with a record of seed 1 that is to be sent."""
    folder = tmp_path_factory.mktemp("submission")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_PLUGINS", "tests.run.toy")
        patch.setenv("ZOO_DATA_DIR", str(folder / "data"))
        registry.cache_clear()
        for seed in (0, 1):
            options: dict[str, Any] = {"seeds": [seed], "protocol": "smoke", "runs": str(folder / "runs")}
            options["results"] = str(folder / "repository" / "results")
            (job,) = plan(BenchRequest.parse("toy", "toytask", **options))
            execute(job)
            if seed == 0:
                git(folder, "init", "-q", "repository")
                git(folder / "repository", "add", "-A")
                git(folder / "repository", "commit", "-qm", "base")
        registry.cache_clear()
    return folder / "repository"


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "repository", symlinks=True))


def sent(repository: Path, seed: int = 1) -> Path:
    (path,) = (repository / "results").rglob(f"*-s{seed}.json")
    return path


def faults(repository: Path) -> dict[str, list[str]]:
    return {verdict.file: verdict.faults for verdict in check_changes(repository / "results", "HEAD")}


def test_a_record_as_it_was_written_is_accepted_committed_or_not(repository: Path) -> None:
    name = sent(repository).relative_to(repository).as_posix()
    assert faults(repository) == {name: []}
    git(repository, "checkout", "-qb", "sent")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "sent")
    verdicts = check_changes(repository / "results", "HEAD~1")
    assert [(verdict.file, verdict.faults) for verdict in verdicts] == [(name, [])]


def test_nothing_changed_is_nothing_to_judge(repository: Path) -> None:
    sent(repository).unlink()
    assert faults(repository) == {}


Change = Callable[[dict[str, Any]], None]


def put(*path: Any, value: Any) -> Change:
    def change(fields: dict[str, Any]) -> None:
        node: Any = fields
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return change


def own_data(fields: dict[str, Any]) -> None:
    fields["task"]["name"], fields["data"]["kind"] = "mine", "own"


def every_answer_right(fields: dict[str, Any]) -> None:
    fields["metrics"]["test"]["right"] = pack_bits([True] * fields["metrics"]["test"]["n"])


def better_score(fields: dict[str, Any]) -> None:
    fields["metrics"]["test"]["scores"]["accuracy"] = 1.0


def fewer_questions(fields: dict[str, Any]) -> None:
    test = fields["metrics"]["test"]
    right = unpack_bits(test["right"], test["n"])
    best = [bit for bit in right if bit]
    test |= {"n": len(best), "right": pack_bits(best)}
    test["scores"]["accuracy"] = 1.0


def hidden_override(fields: dict[str, Any]) -> None:
    fields["config"]["optim"]["lr"] = 0.5


def wider(fields: dict[str, Any]) -> None:
    fields["config"]["model"]["d_model"] = 64
    fields["overrides"] = {"model.d_model": 64}


TAMPERED: list[tuple[str, Change, str]] = [
    ("a field that there is not", put("verified", value=True), "verified: Extra inputs"),
    ("a field missing", lambda fields: fields.pop("baselines"), "baselines: Field required"),
    ("a newer schema", put("schema_version", value=3), "schema_version: 3; this zoo reads 2"),
    ("a metric above one", put("metrics", "test", "scores", "accuracy", value=1.2), "metrics.test.scores: accuracy"),
    ("a better score", better_score, "metrics.test.right: "),
    ("every answer right", every_answer_right, "metrics.test.right: "),
    ("questions left out", fewer_questions, "metrics.test.n: "),
    ("a better validation", put("metrics", "val", "scores", "accuracy", value=1.0), "metrics.val.scores.accuracy: "),
    ("metrics of a failed run", put("status", value="failed"), "metrics: expected null"),
    ("another hash", put("config_hash", value="0123456789ab"), "config_hash: "),
    ("a setting changed in secret", hidden_override, "config.optim.lr: 0.5"),
    ("a width changed without its parameters", wider, "parameters: "),
    ("other parameters", put("parameters", value=7), "parameters: 7, the model has "),
    ("an override that was not made", put("overrides", value={"optim.lr": 0.9}), "config.optim.lr: "),
    ("an override that is none", put("overrides", value={"optim.lr": 0.001}), "overrides: "),
    ("an unknown override", put("overrides", value={"optim.speed": 9}), "overrides: optim.speed: unknown key"),
    ("matched with a baseline", put("match", value={"architecture": "toy", "parameters": 9}), "match: "),
    ("another family", put("architecture", "family", value="<b>best</b>"), "architecture.family: "),
    ("another version", put("architecture", "version", value="9"), "architecture.version: "),
    ("a plugin that is not here", put("plugin", "distribution", value="evil"), "plugin: evil "),
    ("a task that is not here", put("task", "name", value="easy"), "task: easy is not installed here"),
    ("data of one's own", own_data, "task: mine is not installed here; data of one's own cannot be repeated by others"),
    ("another suite", put("task", "suite", value="lra"), "task.suite: "),
    ("another protocol version", put("protocol_version", value="9"), "protocol_version: "),
    ("a path for a protocol", put("protocol", value="../quick"), "protocol: String should match pattern"),
    ("less is better", put("metric", "higher_is_better", value=False), "metric.higher_is_better: "),
    ("a lower baseline", put("baselines", "chance", value=0.01), "baselines.chance: "),
    ("another mode", put("mode", value="bidirectional"), "mode: "),
    ("fewer samples", put("samples", value=24), "samples: "),
    ("faster", put("tokens_per_second", value=1e9), "tokens_per_second: "),
    ("ended before it began", put("ended", value="2020-01-01T00:00:00+00:00"), "ended: "),
    ("from the future", put("ended", value="2222-01-01T00:00:00+00:00"), "ended: "),
    ("a sweep without it", put("sweep", value={"seed": 1, "trials": [{"optim.lr": 9.0}]}), "sweep: "),
]


@pytest.mark.parametrize(("change", "says"), [case[1:] for case in TAMPERED], ids=[case[0] for case in TAMPERED])
def test_a_record_that_was_tampered_with_is_refused_by_name(repository: Path, change: Change, says: str) -> None:
    path = sent(repository)
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n")
    (found,) = faults(repository).values()
    assert any(fault.startswith(says) for fault in found), found


def test_a_whole_lie_with_its_own_hash_is_refused_for_what_it_does_not_say(repository: Path) -> None:
    """The hash recomputed over a changed configuration, but nothing said of the change."""
    from zoo.spec.config import config_hash

    path = sent(repository)
    fields = json.loads(path.read_text())
    hidden_override(fields)
    known = registry()
    fields["config_hash"] = config_hash(known.architecture("toy"), known.task("toytask"), "smoke", fields["config"])
    path.unlink()
    path = path.with_name(f"{fields['config_hash']}-s1.json")
    path.write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n")
    (found,) = faults(repository).values()
    assert any(fault.startswith("config.optim.lr: 0.5, here ") for fault in found)


def altered(repository: Path) -> None:
    sent(repository, 0).write_text(sent(repository, 0).read_text().replace('"ok"', '"failed"'))


def removed(repository: Path) -> None:
    sent(repository, 0).unlink()


def renamed(repository: Path) -> None:
    git(repository, "mv", str(sent(repository, 0)), str(sent(repository, 0).with_name("best.json")))


def misplaced(repository: Path) -> None:
    sent(repository).rename(repository / "results" / "best.json")


def linked(repository: Path) -> None:
    path = sent(repository)
    path.rename(repository / "elsewhere.json")
    path.symlink_to(repository / "elsewhere.json")


def cut(repository: Path) -> None:
    sent(repository).write_text(sent(repository).read_text()[:200])


def twice(repository: Path) -> None:
    text = sent(repository).read_text()
    sent(repository).write_text(text.replace('"seed": 1,', '"seed": 0,\n "seed": 1,'))


def large(repository: Path) -> None:
    sent(repository).write_text(sent(repository).read_text() + " " * 1_000_000)


def foreign(repository: Path) -> None:
    sent(repository).with_suffix(".py").write_text("print()")


def copied(repository: Path) -> None:
    fields = json.loads(sent(repository, 0).read_text()) | {"seed": 2}
    path = sent(repository, 0)
    path.with_name(path.name.replace("-s0", "-s2")).write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n")


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (altered, "altered: "),
        (removed, "removed: "),
        (renamed, "removed: "),
        (misplaced, "path: expected smoke/toytask/toy/"),
        (linked, "a link, not a file"),
        (cut, "not JSON: "),
        (twice, "text: not as zoo writes it"),
        (large, "bytes; a record has less than"),
        (foreign, "not a record: only .json files lie here"),
        (copied, "metrics: to the last digit those of smoke/toytask/toy/"),
    ],
)
def test_files_that_were_tampered_with_are_refused_by_name(
    repository: Path, tamper: Callable[[Path], None], says: str
) -> None:
    tamper(repository)
    found = [fault for own in faults(repository).values() for fault in own]
    assert any(says in fault for fault in found), found


def test_costs_may_be_measured_anew_but_must_be_costs(repository: Path) -> None:
    record = read(sent(repository, 0))
    assert not isinstance(record, str)
    path = make_cost(record).write(repository / "results")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "costs")
    make_cost(record, train=0.5).write(repository / "results")
    (found,) = faults(repository).values()
    assert found == ["measured: not after the measurement that it replaces (2026-01-02T03:04:05+00:00)"]
    later = make_cost(record, train=0.5, measured="2026-01-03T00:00:00+00:00")
    assert later.write(repository / "results") == path
    assert faults(repository) == {path.relative_to(repository).as_posix(): []}
    path.write_text(path.read_text().replace('"memory_bytes"', '"memory"'))
    (found,) = faults(repository).values()
    assert "memory_bytes: Field required" in found


def test_mistakes_with_git_are_told_in_a_line(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--base: git merge-base: .*nowhere"):
        check_changes(repository / "results", "nowhere")
    (tmp_path / "plain" / "results").mkdir(parents=True)
    with pytest.raises(UserError, match="not a git repository"):
        check_changes(tmp_path / "plain" / "results", "HEAD")


def test_the_command_prints_a_verdict_for_each_file(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.board.test_cli import zoo

    monkeypatch.chdir(repository)
    name = os.path.relpath(sent(repository), repository)
    assert zoo(monkeypatch, "--results", "results", "validate", "--base", "HEAD") == 0
    out = capsys.readouterr().out
    assert f"accepted  {name}\n" in out
    assert "1 changed files: 1 accepted, 0 refused" in out
    altered(repository)
    assert zoo(monkeypatch, "--results", "results", "validate", "--base", "HEAD", "--json") == 2
    shown = json.loads(capsys.readouterr().out)
    assert (shown["accepted"], shown["refused"]) == (1, 1)


# -- the workflow that judges pull requests, run step by step ---------------------------------------------------------


@pytest.fixture
def origin(template: Path, tmp_path: Path) -> Path:
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
