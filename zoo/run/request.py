"""From what a user requests to jobs, and from jobs to records. Imports no torch before a job runs."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.run.compose import Experiment, Job, compose
from zoo.run.display import Refresher
from zoo.run.estimate import Estimate, estimate_all, tell_cost_only
from zoo.run.finished import find_finished
from zoo.run.initial import Initial, load_initial
from zoo.run.own import Layers, declare_data
from zoo.run.pool import execute_all
from zoo.run.sweep import Trials, parse_sweep
from zoo.run.validate import validate
from zoo.spec.config import describe_values, flatten
from zoo.spec.errors import ConfigError, MissingFiles, UserError, did_you_mean
from zoo.spec.files import check_writable, default_results_dir, default_runs_dir
from zoo.spec.registry import Registry, registry
from zoo.spec.store import REPEATABLE, best_trial, ended_trials, in_order, read_all
from zoo.spec.written import parse_overrides, read_yaml, user_layers

if TYPE_CHECKING:
    from zoo.spec.store import StoredRecord


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """A request to train, test and record the product of architectures, tasks and seeds; plain values only.

    arch       names of architectures; "all" is every one that fits the task
    task       names of tasks; a suite's name stands for its tasks, "all" for every one; empty with `data`
    data       a folder or file of the user's own data, in place of a task; "" = none
    protocol   "smoke" | "quick" | "paper"
    seeds      which seeds
    overrides  dotted configuration keys and their values
    config     a YAML file of configuration keys, which `overrides` override
    origin     what the overrides were given with, for messages
    sweep      keys and values of each trial; of every pair the best trial on validation, with the first seed, runs with
               the further seeds
    init       the folder of a run or checkpoint whose weights the runs begin with; "" = they begin anew
    results    where records go (`ZOO_RESULTS_DIR`, else leaderboard/results); the board is built beside it
    runs       where checkpoints and logs go (`ZOO_RUNS_DIR`, else runs)
    max_time   seconds that one run may take; it is then recorded as "timeout" and goes on with the next call
    force      run again, from the beginning, where a record of the same experiment by the same code exists
    jobs       how many runs at once; None = as many as there are cores for their threads, one on a GPU
    skip_recorded  leave out runs that have a record of status ok, diverged or out-of-memory, by whatever code
    command    the command line that led here, for the records
    """

    arch: tuple[str, ...]
    task: tuple[str, ...]
    protocol: str = "quick"
    seeds: tuple[int, ...] = (0,)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    config: str = ""
    sweep: Trials = ()
    results: str = ""
    runs: str = ""
    max_time: float | None = None
    force: bool = False
    jobs: int | None = None
    skip_recorded: bool = False
    command: str = ""
    data: str = ""
    init: str = ""
    origin: str = "--set"

    def __post_init__(self) -> None:
        if bool(self.task) == bool(self.data):
            raise UserError("a task or data of your own: one of the two")
        if self.jobs is not None and self.jobs < 1:
            raise UserError(f"--jobs {self.jobs}: expected a number above 0")
        if not self.seeds:
            raise UserError("no seeds: --seeds takes a number above 0")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise UserError(f"seed {seed}: expected a number from 0 to {2**32 - 1}")
        object.__setattr__(self, "results", str(self.results or default_results_dir()))
        object.__setattr__(self, "runs", str(self.runs or default_runs_dir()))
        object.__setattr__(self, "command", self.command or shlex.join(["zoo", *sys.argv[1:]]))

    @classmethod
    def parse(
        cls,
        arch: str | Sequence[str],
        task: str | Sequence[str] = (),
        *,
        data: str | Path = "",
        seeds: int | Sequence[int] = 1,
        overrides: Mapping[str, Any] | Sequence[str] = (),
        sweep: Mapping[str, Any] | Sequence[str] = (),
        sweep_samples: int | None = None,
        **fields: Any,
    ) -> BenchRequest:
        """Build a request from what a person writes: comma-separated names, a number of seeds (from 0), "key=value"
        strings, a sweep as `parse_sweep` reads it. `fields` are the request's other fields."""
        given: dict[str, Any] = {k: str(v) if isinstance(v, Path) else v for k, v in fields.items() if v is not None}
        return replace(
            cls(arch=split_names(arch), task=split_names(task) if task or not data else (), data=str(data)),
            seeds=tuple(range(seeds) if isinstance(seeds, int) else seeds),
            overrides=parse_overrides(overrides),
            sweep=parse_sweep(sweep, sweep_samples),
            **given,
        )

    @classmethod
    def read_plan(cls, path: Path | str, **fields: Any) -> BenchRequest:
        """Build a request from a plan: a YAML file of arch and task (or data) and, if they are to be other than by
        default, protocol, seeds (how many), overrides, and sweep (lists of values by key). It skips what has a record.
        `fields` are the request's other fields."""
        written, origin = read_yaml("--plan", Path(path)), f"--plan {path}"
        nested = {key: written.get(key, {}) for key in ("overrides", "sweep")}
        seeds = str(written.get("seeds", "1"))
        try:
            for key in written:
                if key not in PLAN_KEYS:
                    raise UserError(f"{key}: unknown key{did_you_mean(key, PLAN_KEYS)}")
            for key, missing in (("arch", "arch" not in written), ("task", not {"task", "data"} & written.keys())):
                if missing:
                    raise UserError(f"{key} is missing")
            for key, value in nested.items():
                if not isinstance(value, Mapping):
                    raise UserError(f"{key}: expected configuration keys and their values")
            if not seeds.isdecimal():
                raise UserError(f"seeds: expected a number, got {seeds!r}")
            fields |= {key: str(written[key]) for key in ("protocol", "data") if key in written}
            fields |= {key: flatten(value) for key, value in nested.items()}
            fields |= {"seeds": int(seeds), "skip_recorded": True, "origin": origin}
            return cls.parse(written["arch"], written.get("task", ()), **fields)
        except UserError as error:
            raise UserError(f"{origin}: {error}") from error


PUBLISHED = "paper"
"""The protocol with the published budgets."""
MAX_ESTIMATES = 2
"""Up to this many cost-only pairs, `zoo bench` estimates the published budget before it runs."""
PLAN_KEYS = ("arch", "task", "data", "protocol", "seeds", "overrides", "sweep")
"""Keys of a plan's file."""


def resolve(request: BenchRequest) -> list[Experiment]:
    """Compose, match and validate every experiment of a request. Seeds vary slowest, trials of a sweep fastest; of a
    sweep only those of the first seed are known before they have run.

    Of "all" and of a suite, pairs that do not fit together are left out, with a line on stderr each, if others do.
    Raises UserError or ConfigError for anything else that is known to be impossible before data are looked at.
    """
    known = registry()
    layers: Layers = user_layers(request.config, request.overrides, request.origin)
    tasks, architectures = task_names(request.task, known), _architecture_names(request.arch, known)
    if request.data:
        layers, tasks = declare_data(request.data, layers, known)
    initial = load_initial(request.init) if request.init else None
    experiments: list[Experiment] = []
    left_out: dict[str, UserError] = {}
    for task, task_named in tasks.items():
        for arch, arch_named in architectures.items():
            try:
                trials = _resolve_trials(arch, task, request, layers, initial)
            except UserError as error:
                if (arch_named and task_named) or not _never_fits(error, arch, task, request.protocol):
                    raise
                left_out[f"{arch} on {task}"] = error
            else:
                experiments += trials
    if not experiments:
        raise next(iter(left_out.values()))
    for pair, reason in left_out.items():
        print(f"zoo: left out: {pair}: {reason}", file=sys.stderr)
    seeds = request.seeds[:1] if request.sweep else request.seeds
    return [replace(experiment, seed=seed) for seed in seeds for experiment in experiments]


def _resolve_trials(
    arch: str, task: str, request: BenchRequest, layers: Layers, initial: Initial | None
) -> list[Experiment]:
    """The experiment of a pair, or its trials. A budget too small to learn the task leaves nothing to choose by."""
    if not request.sweep or request.protocol in registry().task(task).record.cost_only:
        return [resolve_pair(arch, task, request.protocol, layers, initial)]
    swept = [[*layers, ("--sweep", trial)] for trial in request.sweep]
    several = [resolve_pair(arch, task, request.protocol, each, initial) for each in swept]
    configs = [flatten(each.config) for each in several]
    trials = [{key: config[key] for key in request.sweep[0]} for config in configs]
    for k, trial in enumerate(trials):
        if trial in trials[:k]:
            raise UserError(f"--sweep: {describe_values(trial, trial)} is there twice, written in two ways")
    sweep = {"seed": request.seeds[0], "trials": trials}
    return [replace(each, sweep=sweep) for each in several]


def resolve_pair(arch: str, task: str, protocol: str, layers: Layers, initial: Initial | None = None) -> Experiment:
    """The experiment of a pair with what the user set: composed, matched, validated."""
    layers = initial.layers(arch, task, layers) if initial else layers
    experiment = compose(arch, task, protocol=protocol, layers=layers)
    if experiment.baseline not in ("", arch):
        from zoo.run.match import match_width

        experiment = match_width(experiment, layers)
    validate(experiment)
    return experiment.begun_with(initial.record) if initial else experiment


def _never_fits(error: UserError, arch: str, task: str, protocol: str) -> bool:
    """Whether a pair fails for want of a mode, or whatever the user's settings are: not by a mistake in these."""
    if isinstance(error, ConfigError) and error.key == "model.mode":
        return True
    try:
        resolve_pair(arch, task, protocol, ())
    except UserError:
        return True
    return False


def plan(request: BenchRequest) -> list[Job]:
    """The jobs of a request, in the order of `resolve`.

    Raises what `resolve` raises, UserError where a folder cannot be written to, and MissingFiles for every task whose
    files are not on this machine.
    """
    return _plan(request, resolve(request))


def _plan(request: BenchRequest, experiments: Sequence[Experiment]) -> list[Job]:
    for option, folder in (("results", request.results), ("runs", request.runs)):
        check_writable(option, Path(folder))
    _check_files(experiments)
    shared = {name: getattr(request, name) for name in ("results", "runs", "max_time", "force", "command")}
    return [Job(experiment=experiment, **shared) for experiment in left_to_run(request, experiments)]


def left_to_run(request: BenchRequest, experiments: Sequence[Experiment]) -> list[Experiment]:
    """The experiments without those that have a record, where the request skips them."""
    if not request.skip_recorded or request.force:
        return list(experiments)
    recorded = {record.id for _, record in read_all(request.results)[0] if record.status in REPEATABLE}
    left = [experiment for experiment in experiments if experiment.id not in recorded]
    print(f"zoo: {len(experiments) - len(left)} of {len(experiments)} runs have a record", file=sys.stderr)
    return left


def bench(
    arch: str | Sequence[str],
    task: str | Sequence[str] = (),
    *,
    on_record: Callable[[StoredRecord], None] | None = None,
    **options: Any,
) -> list[StoredRecord]:
    """Train, test and record the product of architectures, tasks and seeds; refresh the board after each run.

    arch, task  names, comma-separated strings, "all", or (task) the name of a suite; in place of a task `data`, a
                folder or file of one's own
    on_record   called with each record as it comes
    options     as in `BenchRequest.parse`: protocol, seeds (how many, from 0, or which), overrides (a mapping or
                "key=value" strings), init, config, results, runs, max_time, force, jobs

    Returns the records with their files, one per run; begins no further run after a signal. Raises UserError for
    mistakes: before anything is prepared, and at the end for runs that turned out to be impossible.
    """
    return run(BenchRequest.parse(arch, task, **options), on_record=on_record)


def run(request: BenchRequest, *, on_record: Callable[[StoredRecord], None] | None = None) -> list[StoredRecord]:
    """Execute a request, as `bench` does."""
    refreshed = Refresher(Path(request.results))

    def record_came(stored: StoredRecord) -> None:
        refreshed.soon()
        if on_record is not None:
            on_record(stored)

    try:
        experiments = resolve(request)
        jobs = _plan(request, experiments)
        _tell_cost_only([job.experiment for job in jobs], swept=bool(request.sweep))
        stored = _execute_left(jobs, request.jobs, record_came, on_record)
        interrupted = any(record.status == "interrupted" for _, record in stored)
        if request.sweep and len(request.seeds) > 1 and not interrupted:
            further = _further_seeds(request, experiments)
            stored += _execute_left(_plan(request, further), request.jobs, record_came, on_record)
        return stored
    finally:
        refreshed.now()


def _execute_left(
    jobs: Sequence[Job],
    n_jobs: int | None,
    on_new: Callable[[StoredRecord], None],
    on_known: Callable[[StoredRecord], None] | None,
) -> list[StoredRecord]:
    """Execute the jobs that no earlier call has finished, and return the records of all in the order of the jobs."""
    known = {job.experiment.id: stored for job in jobs if (stored := find_finished(job))}
    for stored in known.values():
        if on_known is not None:
            on_known(stored)
    left = [job for job in jobs if job.experiment.id not in known]
    new = execute_all(left, n_jobs, on_new) if left else []
    order = {job.experiment.id: k for k, job in enumerate(jobs)}
    return sorted([*known.values(), *new], key=lambda stored: order[stored.record.id])


def estimate(request: BenchRequest) -> list[Estimate]:
    """What every run of a request that is left to run will take on this machine. Nothing is trained, prepared or
    recorded. Raises what `resolve` raises."""
    further = len(request.seeds) - 1 if request.sweep else 0
    return estimate_all(left_to_run(request, resolve(request)), further)


def _tell_cost_only(experiments: Sequence[Experiment], *, swept: bool) -> None:
    """Say before it is run what will be shown as cost only, and what the published budget would take."""
    pairs = {(each.architecture, each.task): each for each in experiments if each.cost_only}
    published = []
    for arch, task in pairs if len(pairs) <= MAX_ESTIMATES else ():
        with contextlib.suppress(UserError):
            published.append(resolve_pair(arch, task, PUBLISHED, ()))
    tell_cost_only(list(pairs.values()), [each for each in published if not each.cost_only], swept=swept)


def _further_seeds(request: BenchRequest, trials: Sequence[Experiment]) -> list[Experiment]:
    """The best trial of every pair, with the seeds after the first."""
    latest = {record.id: record for record in in_order(read_all(request.results)[0])}
    best: list[Experiment] = []
    swept = (each for each in trials if each.sweep)
    for _, group in itertools.groupby(swept, key=lambda each: (each.architecture, each.task)):
        own = {experiment.id: experiment for experiment in group}
        records = [latest[each] for each in own if each in latest]
        winner = best_trial(records)
        if winner is not None:
            best.append(own[winner.id])
            continue
        name = f"{next(iter(own.values())).architecture} on {next(iter(own.values())).task}"
        why = "no trial has a score" if len(ended_trials(records)) == len(own) else "not all trials have ended"
        print(f"zoo: {name}: {why}; there are no further seeds", file=sys.stderr)
    return [replace(experiment, seed=seed) for seed in request.seeds[1:] for experiment in best]


def split_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """Split comma-separated names. Raises UserError when there is none."""
    items = names.split(",") if isinstance(names, str) else names
    split = tuple(item.strip() for item in items if item.strip())
    if not split:
        raise UserError("no name given; `zoo list` shows what there is")
    return split


def _architecture_names(names: Sequence[str], known: Registry) -> dict[str, bool]:
    """Architectures in the order given, and whether each was named itself; "all" is every one."""
    chosen: dict[str, bool] = {}
    for name in names:
        if name == "all":
            chosen |= {every: chosen.get(every, False) for every in known.architectures}
        else:
            known.architecture(name)
            chosen[name] = True
    return chosen


def task_names(names: Sequence[str], known: Registry) -> dict[str, bool]:
    """Tasks in the order given, and whether each was named itself; "all" is every one, a suite's name its tasks."""
    chosen: dict[str, bool] = {}
    for name in names:
        several = list(known.tasks) if name == "all" else known.suite(name)
        if several:
            chosen |= {task: chosen.get(task, False) for task in several}
        else:
            known.task(name)
            chosen[known.resolve_alias(name)] = True
    return chosen


def _check_files(experiments: Sequence[Experiment]) -> None:
    """Raise MissingFiles now, for every task whose files are missing, not after the runs of the other tasks."""
    missing: dict[str, str] = {}
    # each once: to look through a folder of 50,000 files takes a second
    different = {repr((each.task, each.config["task"])): each for each in experiments}
    for experiment in different.values():
        # a task that can be generated says whether it is, under these options
        reads_files = experiment.task_spec.needs or not getattr(experiment.task_options, "generated", True)
        if reads_files and experiment.task not in missing:
            from zoo.data.cached import CachedData
            from zoo.data.paths import data_dir

            data = experiment.task_spec.load_data()(experiment.task_options, data_dir())
            try:
                if isinstance(data, CachedData):
                    data.folder_name()
            except MissingFiles as error:
                missing[experiment.task] = str(error)
    if missing:
        raise MissingFiles("\n".join(missing.values()))
