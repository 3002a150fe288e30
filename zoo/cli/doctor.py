"""`zoo doctor`: versions, devices, which form of each op would run, plugins that failed and why."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer


def doctor(json_: Annotated[bool, typer.Option("--json", help="One object.")] = False) -> None:
    """Versions, devices, kernels in use, plugins that failed and why."""
    from zoo.data.paths import data_dir
    from zoo.ops.backend import survey
    from zoo.run import provenance as environment
    from zoo.spec.registry import registry

    told: dict[str, Any] = {
        "versions": environment.versions(),
        "hardware": environment.hardware(),
        "git": environment.git_state(),
        "data_dir": str(data_dir()),
        "ops": survey(),
        "plugins": [asdict(status) for status in registry().plugins],
    }
    if json_:
        print(json.dumps(told, indent=2))
        return
    from tabulate import tabulate

    for section in ("versions", "hardware", "git"):
        print(section)
        print(tabulate(told[section].items(), tablefmt="plain"), end="\n\n")
    print(f"data  {told['data_dir']}\n")
    ops = [(o["op"], o["device"], o["runs"], ", ".join(o["forms"])) for o in told["ops"]]
    print(tabulate(ops, headers=("op", "device", "runs", "forms")))
    print()
    rows = [
        (p["name"], f"{p['distribution']} {p['version']}", p["state"], ", ".join(p["provides"]), p["detail"])
        for p in told["plugins"]
    ]
    print(tabulate(rows, headers=("plugin", "from", "state", "provides", "cause"), maxcolwidths=[None] * 4 + [60]))
