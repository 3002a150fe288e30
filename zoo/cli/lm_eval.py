"""`zoo lm-eval`: lm-evaluation-harness with the model `zoo`."""

from __future__ import annotations

import importlib
import sys
import traceback

import typer

from zoo.spec.errors import UserError, ZooError


def lm_eval(context: typer.Context) -> None:
    """Run lm-evaluation-harness, to which the model zoo is known.

    zoo lm-eval run --model zoo --model_args run=RUN --tasks lambada_openai: what follows lm-eval is the harness's own.
    """
    try:
        from lm_eval.__main__ import cli_evaluate
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'seqzoo[harness]'") from None
    importlib.import_module("zoo.run.harness")  # which registers the model

    sys.argv = ["lm_eval", *context.args]
    try:
        cli_evaluate()
    except ZooError:
        raise
    except Exception:  # the harness's own errors are shown as it shows them
        traceback.print_exc()
        sys.exit(1)
