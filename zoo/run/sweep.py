"""Many experiments: names to experiments, then one after the other. No torch here.

A single experiment runs in this process. Several run each in a process of its own: peak memory is then the run's
own, and a run that the system kills for memory is a record, not the end of the sweep.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.run.compose import Experiment, compose
from zoo.spec.errors import MissingFiles, UserError
from zoo.spec.registry import Registry, registry

Names = str | Sequence[str]


COMMAND = "ZOO_COMMAND"
"""Environment variable by which a sweep tells its processes what the user typed."""


def command() -> str:
    """The command line that led here, for the record."""
    return os.environ.get(COMMAND) or shlex.join(["zoo", *sys.argv[1:]])


def sweep(
    arch: Names,
    task: Names,
    *,
    protocol: str = "quick",
    seeds: int | Sequence[int] = 1,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    config: str | Path | None = None,
    results: str | Path | None = None,
    runs: str | Path | None = None,
    max_time: float | None = None,
    force: bool = False,
    on_record: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Run the product of architectures, tasks and seeds; arguments as in `zoo.bench`.

    `on_record` is called with each record as it comes. Stops after an interrupted run.
    """
    experiments = resolve(arch, task, protocol=protocol, seeds=seeds, overrides=overrides, config=config)
    places = {"results": str(results_dir(results)), "runs": str(runs_dir(runs))}
    for what, place in places.items():
        _must_hold_files(what, Path(place))
    _must_have_files(experiments)
    alone = len(experiments) == 1
    done: list[dict[str, Any]] = []
    for experiment in experiments:
        record = (
            _here(experiment, places, max_time, force)
            if alone
            else _apart(experiment, places, max_time, force, overrides, config)
        )
        done.append(record)
        if on_record is not None:
            on_record(record)
        if record["status"] == "interrupted":
            break
    return done


def resolve(
    arch: Names,
    task: Names,
    *,
    protocol: str = "quick",
    seeds: int | Sequence[int] = 1,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    config: str | Path | None = None,
) -> list[Experiment]:
    """Every experiment of the product, composed and checked. Tasks vary slowest, seeds fastest."""
    known = registry()
    chosen = range(seeds) if isinstance(seeds, int) else seeds
    if not list(chosen):
        raise UserError("no seeds: --seeds takes a number above 0")
    for seed in chosen if not isinstance(seeds, int) else ():
        if not 0 <= seed < 2**32:
            raise UserError(f"seed {seed}: expected a number from 0 to {2**32 - 1}")
    file = Path(config) if config else None
    return [
        compose(known.architecture(a), known.task(t), protocol=protocol, seed=seed, file=file, overrides=overrides)
        for t in task_names(task, known)
        for a in arch_names(arch, known)
        for seed in chosen
    ]


def _split(names: Names) -> list[str]:
    items = names.split(",") if isinstance(names, str) else list(names)
    found = [item.strip() for item in items if item.strip()]
    if not found:
        raise UserError("no name given; `zoo list` shows what there is")
    return found


def arch_names(names: Names, known: Registry) -> list[str]:
    """Architectures named, in the order given; "all" is every one."""
    found: dict[str, None] = {}
    for name in _split(names):
        found.update(dict.fromkeys(known.architectures if name == "all" else [name]))
        if name != "all":
            known.architecture(name)
    return list(found)


def task_names(names: Names, known: Registry) -> list[str]:
    """Tasks named, in the order given; "all" is every one, a suite's name its tasks."""
    found: dict[str, None] = {}
    for name in _split(names):
        suite = known.suite(name)
        named = list(known.tasks) if name == "all" else suite or [known.resolve_alias(name)]
        found.update(dict.fromkeys(named))
        if name != "all" and not suite:
            known.task(name)
    return list(found)


def results_dir(given: str | Path | None) -> Path:
    """Where records go."""
    from zoo.spec.record import default_results_dir

    return Path(given) if given else default_results_dir()


def runs_dir(given: str | Path | None) -> Path:
    """Where checkpoints and logs go: `ZOO_RUNS_DIR`, else ./runs."""
    return Path(given or os.environ.get("ZOO_RUNS_DIR") or "runs")


def _must_hold_files(what: str, folder: Path) -> None:
    """Raise UserError now, not after hours of training, where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--{what} {folder}: cannot be written to: {error.strerror or error}") from error


def _must_have_files(experiments: Sequence[Experiment]) -> None:
    """Raise MissingFiles now, for every task whose files are not there, not after the runs of the other tasks."""
    missing: dict[str, str] = {}
    for experiment in experiments:
        task = experiment.task.record
        if task.needs and task.name not in missing:
            from zoo.data.cached import CachedData
            from zoo.data.paths import data_dir

            data = task.load_data()(experiment.task_options, data_dir())
            try:
                if isinstance(data, CachedData):
                    data.folder_name()
            except MissingFiles as error:
                missing[task.name] = str(error)
    if missing:
        raise MissingFiles("\n".join(missing.values()))


def _here(experiment: Experiment, places: dict[str, str], max_time: float | None, force: bool) -> dict[str, Any]:
    from zoo.run.execute import run
    from zoo.run.rundir import Places, finished

    where = Places(Path(places["results"]), Path(places["runs"]))
    if not force:
        record = finished(experiment, where)
        if record is not None:
            print(f"zoo: {experiment.name} is done already ({record['path']}); --force runs it again", file=sys.stderr)
            return record
    return run(experiment, where, max_time=max_time, force=force)


def _apart(
    experiment: Experiment,
    places: dict[str, str],
    max_time: float | None,
    force: bool,
    overrides: Sequence[str] | Mapping[str, Any],
    config: str | Path | None,
) -> dict[str, Any]:
    spec = {
        "arch": _name_in(registry().architectures, experiment.architecture),
        "task": _name_in(registry().tasks, experiment.task),
        "protocol": experiment.protocol,
        "seed": experiment.seed,
        "overrides": dict(overrides) if isinstance(overrides, Mapping) else list(overrides),
        "config": str(config) if config else None,
        "max_time": max_time,
        "force": force,
        "command": command(),
        **places,
    }
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        answer = Path(folder) / "answer.json"
        spec["answer"] = str(answer)
        process = subprocess.Popen([sys.executable, "-m", "zoo.run.worker", json.dumps(spec)], stdout=sys.stderr)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # the child had the same signal and is writing its record
            code = process.wait()
        if answer.exists():
            reply = json.loads(answer.read_text())
            if "error" in reply:
                raise UserError(reply["error"])
            return reply["record"]
        return _lost(experiment, places, code)


def _lost(experiment: Experiment, places: dict[str, str], code: int) -> dict[str, Any]:
    """The record of a run whose process vanished without one."""
    from zoo.run.execute import record_lost
    from zoo.run.rundir import Places

    if code == -signal.SIGKILL:
        status, detail = "out-of-memory", "the process was killed (SIGKILL); the system does so when memory runs out"
    else:
        status, detail = "failed", f"the process ended with status {code} and wrote no record"
    return record_lost(experiment, Places(Path(places["results"]), Path(places["runs"])), status, detail)


def _name_in(table: Mapping[str, Any], entry: Any) -> str:
    """The name (perhaps `distribution:name`) that reaches this entry."""
    return next(name for name, other in table.items() if other is entry)
