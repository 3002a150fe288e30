"""One experiment of a sweep in a process of its own: `python -m zoo.run.worker SPEC`, a JSON object."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from zoo.run.sweep import COMMAND, sweep
from zoo.spec.errors import UserError
from zoo.spec.store import write_atomically


def die_with_parent() -> None:
    """When the sweep is killed, so is this run: it must not go on unseen and hold the run's lock (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> None:
    die_with_parent()
    spec = json.loads(sys.argv[1])
    os.environ[COMMAND] = spec["command"]
    try:
        reply: dict[str, Any] = {
            "record": sweep(
                spec["arch"],
                spec["task"],
                protocol=spec["protocol"],
                seeds=[spec["seed"]],
                overrides=spec["overrides"],
                config=spec["config"],
                results=spec["results"],
                runs=spec["runs"],
                max_time=spec["max_time"],
                force=spec["force"],
            )[0]
        }
    except UserError as error:
        reply = {"error": str(error)}
    write_atomically(Path(spec["answer"]), json.dumps(reply))


if __name__ == "__main__":
    main()
