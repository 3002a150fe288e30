"""The command line `zoo`: one file per verb, which parses, calls and prints. Imports torch only when needed."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from itertools import pairwise
from typing import Annotated, Any

import typer.main
from typer.core import TyperGroup

from zoo.cli import (
    analyze,
    bench,
    check,
    convert,
    cost,
    data,
    doctor,
    evaluate,
    extend,
    leaderboard,
    listing,
    lm_eval,
    new,
    trained,
)
from zoo.spec.errors import UserError, ZooError
from zoo.spec.streams import keep_working, replace_unprintable


class Commands(TyperGroup):
    """The verbs. An empty value, as an unset variable leaves it, is a mistake in every one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for before, value in pairwise(["", *args]):
            if not re.fullmatch(r"(--[\w-]+=)?\s*", value):
                continue
            named = value.strip().rstrip("=") or (before if before.startswith("-") else "an argument")
            raise UserError(f"{named}: an empty value; is a variable unset?")
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Commands,
    name="zoo",
    help="Compare long-context sequence architectures under one interface and one protocol.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(value: bool) -> None:
    if value:
        import zoo

        print(zoo.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Compare long-context sequence architectures under one interface and one protocol.

    --debug anywhere shows tracebacks.
    """


app.command("bench")(bench.bench)
app.command("cost")(cost.cost)
app.command("list")(listing.list_)
app.command("show")(listing.show)
app.command("check")(check.check)
app.command("convert")(convert.convert)
app.command("predict")(trained.predict)
app.command("eval")(evaluate.eval_)
app.command("extend")(extend.extend)
app.command("analyze")(analyze.analyze)
harness = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
app.command("lm-eval", context_settings=harness)(lm_eval.lm_eval)
app.command("generate")(trained.generate)
app.command("export")(trained.export)
app.command("doctor")(doctor.doctor)
app.command("new", no_args_is_help=True)(new.new)
app.add_typer(data.app, name="data")
app.add_typer(leaderboard.app, name="leaderboard")


@cache
def _command() -> Any:
    """All of `app` in click's form, made of the signatures of its functions once for the calls of a process."""
    return typer.main.get_command(app)


def main() -> None:
    """Console entry point. A mistake of the user is one line and exit code 2, another failure exit code 1."""
    # read when torch loads OpenMP: waiting threads may spin for microseconds only, since two runs on one machine, each
    # spinning for the other's cores, are thirty times slower than one
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    replace_unprintable()
    keep_working("stderr")
    debug = "--debug" in sys.argv
    sys.argv = [arg for arg in sys.argv if arg != "--debug"]
    try:
        _command()()
    except SystemExit as ending:
        # typer turns a broken pipe into exit code 1, but `zoo list | head` is no failure
        if isinstance(ending.__context__, BrokenPipeError) or (not ending.code and not _flush_stdout()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or flushing at exit would fail
            sys.exit(0)
        raise
    except ZooError as error:
        if debug:
            raise
        print(f"zoo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        print(f"zoo: {type(error).__name__}: {error} (a bug in zoo or a plugin; --debug shows where)", file=sys.stderr)
        sys.exit(1)


def _flush_stdout() -> bool:
    """Flush stdout; False when nobody reads it any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    return True
