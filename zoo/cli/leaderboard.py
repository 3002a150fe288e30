"""`zoo leaderboard`: the board in the terminal, as files and as a page; records checked, and added from elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from zoo.spec.store import StoredRecord

app = typer.Typer(help="The leaderboard: show it, build it, check the records.", rich_markup_mode=None)

Results = Annotated[
    Path | None, typer.Option(help="Where the records are [ZOO_RESULTS_DIR, else leaderboard/results].")
]


def _results(context: typer.Context, given: Path | None, *, must_exist: bool = True) -> Path:
    """The folder of `--results`, which stands behind the verb or before it, or the default one."""
    from zoo.spec.errors import UserError
    from zoo.spec.files import default_results_dir

    folder: Path | None = given or context.obj
    if must_exist and folder is not None and not folder.is_dir():
        raise UserError(f"--results {folder}: no such directory")
    return folder or default_results_dir()


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    protocol: Annotated[str | None, typer.Option(help="One protocol only.")] = None,
    task: Annotated[str | None, typer.Option(help="Only these tasks or suites, comma-separated.")] = None,
    arch: Annotated[str | None, typer.Option(help="Compare only these architectures, comma-separated.")] = None,
    questions: Annotated[
        str | None, typer.Option(help="Instead: which questions of this task nobody answers, and how far rows agree.")
    ] = None,
    results: Results = None,
    json_: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Show the leaderboard. Protocols are never mixed; smoke runs are not shown."""
    if context.invoked_subcommand is not None:
        context.obj = results
        return
    from zoo.board.export import to_json
    from zoo.board.reported import load_reported
    from zoo.board.results import make_board
    from zoo.board.terminal import print_board
    from zoo.spec.cost import CostRecord
    from zoo.spec.registry import registry
    from zoo.spec.store import read_all
    from zoo.spec.task import PROTOCOLS

    folder = _results(context, results)
    stored, problems = read_all(folder)
    costs, not_costs = CostRecord.read_all(folder)
    problems += not_costs
    records, known = [record for _, record in stored], registry()
    _require_known("protocol", protocol, {r.protocol for r in records} | set(PROTOCOLS))
    known_tasks = {r.task.name for r in records} | {*known.tasks, *(e.record.suite for e in known.tasks.values())}
    if questions is not None:
        _require_known("task", questions, known_tasks)
        _show_questions(stored, questions, protocol, json_)
        return
    tasks = _chosen("task", task, known_tasks | {r.task.suite for r in records})
    if tasks is not None:
        tasks |= {r.task.name for r in records if r.task.suite in tasks}
    archs = _chosen("architecture", arch, {r.architecture.name for r in records} | set(known.architectures))
    if not json_:
        print_board(stored, problems, costs, protocol=protocol, tasks=tasks, architectures=archs)
        return
    reported, errors = load_reported(stored)
    for error in errors:
        print(f"zoo: {error}", file=sys.stderr)
    board = make_board(stored, reported, costs, protocol=protocol, tasks=tasks, architectures=archs)
    print(json.dumps(to_json(board, problems), indent=2))


def _show_questions(stored: list[StoredRecord], task: str, protocol: str | None, json_: bool) -> None:
    from zoo.board.paired import answered_by, measure_agreement
    from zoo.board.results import make_board
    from zoo.board.terminal import print_questions

    if not json_:
        print_questions(stored, task, protocol)
        return
    found = []
    for section in make_board(stored, protocol=protocol, tasks={task}).sections():
        if section.answers:
            agreement = measure_agreement(section.answers).astype("object")
            known = {
                "nobody": answered_by(section.answers, everybody=False),
                "everybody": answered_by(section.answers, everybody=True),
                "agreement": agreement.where(agreement.notna(), None).to_dict("index"),
            }
            found.append({"protocol": section.protocol, "task": section.task, "task_version": section.version} | known)
    print(json.dumps(found, indent=2))


def _chosen(kind: str, names: str | None, known: set[str]) -> set[str] | None:
    """The names in a comma-separated option; None for all."""
    if names is None or names == "all":
        return None
    chosen = {name.strip() for name in names.split(",") if name.strip()}
    for name in sorted(chosen):
        _require_known(kind, name, known)
    return chosen


def _require_known(kind: str, name: str | None, known: set[str]) -> None:
    from zoo.spec.errors import UnknownName

    if name is not None and name not in known:
        raise UnknownName(kind, name, sorted(known))


@app.command()
def build(
    context: typer.Context,
    results: Results = None,
    json_: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Write the page index.html, README.md, board.csv, results.csv, and charts."""
    from zoo.board import build as board
    from zoo.board.tables import problem_lines
    from zoo.spec.errors import UserError

    where = _results(context, results)
    if not where.is_dir():
        raise UserError(f"no records at {where}: `zoo bench` makes them, --results says where they are")
    written, problems, messages = board.build(where, page=True)
    if json_:
        skipped = [problem._asdict() for problem in problems]
        print(json.dumps({"written": list(map(str, written)), "skipped": skipped, "messages": messages}, indent=2))
        return
    for path in written:
        print(path)
    for line in [*problem_lines(problems), *messages]:
        print(line, file=sys.stderr)


@app.command()
def serve(
    context: typer.Context,
    results: Results = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
) -> None:
    """Show the page in the browser, and rebuild it when records change; Ctrl-C ends it."""
    import threading
    import webbrowser

    from zoo.board.serve import serve

    with serve(_results(context, results), port) as address:
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if open_:
            webbrowser.open(address)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


@app.command()
def validate(
    context: typer.Context,
    results: Results = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="REV", help="Only what changed since this git revision, with a verdict for each file."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Check every record, of runs and of what was measured beside them, against the schema and for contradictions
    between its fields; exit 2 on problems."""
    from zoo.board.checks import check_records
    from zoo.board.tables import one_line
    from zoo.run.beside import check_beside

    if base is not None:
        # a change may have removed them all
        _validate_changes(_results(context, results, must_exist=False), base, json_)
        return
    folder = _results(context, results)
    valid, problems = check_records(folder)
    more, faults = check_beside(folder)
    valid, problems = valid + more, [*problems, *faults]
    if json_:
        print(json.dumps({"valid": valid, "problems": [p._asdict() for p in problems]}, indent=2))
    else:
        for problem in problems:
            print(one_line(f"{problem.file}: {problem.reason}"))
        bad = len({problem.file for problem in problems})
        print(f"{valid + bad} files: {valid} valid, {bad} with problems")
    raise typer.Exit(2 if problems else 0)


@app.command()
def repair(
    context: typer.Context,
    runs: Annotated[Path | None, typer.Option(help="Where the runs are [ZOO_RUNS_DIR, else runs].")] = None,
    results: Results = None,
) -> None:
    """Take in the records that were not accepted (record.rejected.json in a run's folder) and have been mended; exit 2
    while any is left."""
    from zoo.spec.errors import UserError
    from zoo.spec.files import default_runs_dir
    from zoo.spec.rejected import repair as repair_records

    folder = runs or default_runs_dir()
    if not folder.is_dir():
        raise UserError(f"--runs {folder}: no such directory")
    done = repair_records(folder, _results(context, results, must_exist=False))
    for each in done:
        if each.record is not None:
            print(f"{each.record}: taken in from {each.file.parent}")
        for reason in each.reasons:
            print(f"{each.file}: {reason}")
    left = sum(each.record is None for each in done)
    print(f"{len(done)} rejected: {len(done) - left} taken in, {left} left")
    raise typer.Exit(2 if left else 0)


def _validate_changes(results: Path, base: str, json_: bool) -> None:
    from zoo.board.tables import one_line
    from zoo.run.submission import check_changes

    verdicts = check_changes(results, base)
    refused = sum(bool(verdict.faults) for verdict in verdicts)
    if json_:
        files = [verdict._asdict() | {"accepted": not verdict.faults} for verdict in verdicts]
        print(json.dumps({"accepted": len(verdicts) - refused, "refused": refused, "files": files}, indent=2))
    else:
        for verdict in verdicts:
            print(one_line(f"{'refused ' if verdict.faults else 'accepted'}  {verdict.file}"))
            for line in [*verdict.faults, *(f"note: {remark}" for remark in verdict.remarks)]:
                print(one_line(f"          {line}"))
        print(f"{len(verdicts)} changed files: {len(verdicts) - refused} accepted, {refused} refused")
    raise typer.Exit(2 if refused else 0)


@app.command()
def merge(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Results of another machine, with what lies beside them.")],
    results: Results = None,
) -> None:
    """Add the records of another machine: nothing is replaced, and what is no consistent record is named, exit 2."""
    from zoo.board.tables import one_line
    from zoo.run.merge import merge

    added, present, refused = merge(folder, _results(context, results, must_exist=False))
    for path in added:
        print(path)
    for problem in refused:
        print(one_line(f"left out: {problem.file}: {problem.reason}"), file=sys.stderr)
    print(f"{len(added)} added, {present} were there, {len(refused)} left out; zoo leaderboard build shows them")
    raise typer.Exit(2 if refused else 0)
