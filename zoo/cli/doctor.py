"""`zoo doctor`: versions, hardware, op backends, and the status of every plugin."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer


def doctor(json_: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False) -> None:
    """Show versions, hardware, the backend of each op, and the plugins that failed and why."""
    from zoo.data.paths import data_dir
    from zoo.ops.backend import survey
    from zoo.run import provenance
    from zoo.spec.errors import UserError
    from zoo.spec.registry import registry

    try:
        where = str(data_dir())
    except UserError as error:
        where = str(error)
    report: dict[str, Any] = {
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "git": provenance.git_state(),
        "data_dir": where,
        "ops": survey(),
        "plugins": [asdict(status) for status in registry().plugins],
    }
    if json_:
        print(json.dumps(report, indent=2))
        return
    from tabulate import tabulate

    for section in ("versions", "hardware", "git"):
        print(section)
        print(tabulate(report[section].items(), tablefmt="plain"), end="\n\n")
    print(f"data  {report['data_dir']}\n")
    ops = [(op["op"], op["device"], op["runs"], ", ".join(op["forms"])) for op in report["ops"]]
    print(tabulate(ops, headers=("op", "device", "runs", "forms")), end="\n\n")
    plugins = [
        (p.name, f"{p.distribution} {p.version}", p.state, ", ".join(p.provides), p.detail) for p in registry().plugins
    ]
    print(tabulate(plugins, headers=("plugin", "from", "state", "provides", "cause"), maxcolwidths=[None] * 4 + [60]))
