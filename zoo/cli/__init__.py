"""`zoo`: one file per verb. Parses, calls, prints; no logic. Nothing here imports torch before it must."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from zoo.cli import bench, check, convert, data, doctor, leaderboard, listing, new
from zoo.spec.errors import ZooError

app = typer.Typer(
    name="zoo",
    help="Compare long-context sequence architectures under one interface and one protocol.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(requested: bool) -> None:
    if requested:
        import zoo

        print(zoo.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Compare long-context sequence architectures under one interface and one protocol.

    --debug anywhere shows tracebacks.
    """


app.command("bench")(bench.bench)
app.command("list")(listing.list_)
app.command("show")(listing.show)
app.command("check")(check.check)
app.command("convert")(convert.convert)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.add_typer(new.app, name="new")
app.add_typer(leaderboard.app, name="leaderboard")


def main() -> None:
    """Console entry: one line for a mistake and exit code 2, exit code 1 for our own failures."""
    # read when torch loads its OpenMP: threads that wait may spin for microseconds only, or two runs on one machine,
    # each spinning for the other's cores, are thirty times slower than one
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    debug = "--debug" in sys.argv
    sys.argv = [arg for arg in sys.argv if arg != "--debug"]
    try:
        app()
    except ZooError as error:
        if debug:
            raise
        print(f"zoo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output went away (`zoo list | head`); nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        print(f"zoo: {type(error).__name__}: {error} (ours; --debug shows where)", file=sys.stderr)
        sys.exit(1)
