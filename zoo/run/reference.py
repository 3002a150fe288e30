"""Generate docs/configuration.md, the reference of all configuration keys. No torch here."""

from __future__ import annotations

import json

from zoo.spec.constraints import describe_fields
from zoo.spec.registry import registry
from zoo.spec.settings import SECTIONS

HEAD = """# Configuration keys

<!-- generated: python -m zoo.run.reference > docs/configuration.md -->

The value of a key is the last of: its default, the protocol's setting, the architecture's preset (`presets.toml`), the
file after `--config`, and `--set key=value`. `zoo show ARCH --task TASK` prints the values of a run and their origins.
"""


def reference() -> str:
    """Write the page: the sections of every experiment, then the `arch` and `task` keys of all that is built in."""
    known = registry()
    parts = [HEAD]
    parts += [_section(f"`{name}`", name, cls) for name, cls in SECTIONS.items()]
    parts.append("## Architectures: `arch`\n")
    parts += [
        _section(f"`{name}`", "arch", entry.record.load_config(), level=3)
        for name, entry in known.architectures.items()
        if entry.plugin.builtin
    ]
    parts.append("## Tasks: `task`\n")
    by_options: dict[type, list[str]] = {}
    for name, entry in known.tasks.items():
        if entry.plugin.builtin:
            by_options.setdefault(entry.record.load_options(), []).append(f"`{name}`")
    parts += [_section(", ".join(names), "task", cls, level=3) for cls, names in by_options.items()]
    parts += [
        _section("Your own data: `data`", "data", entry.record.load_settings())
        for entry in known.readers.values()
        if entry.plugin.builtin
    ]
    return "\n".join(parts)


def _section(title: str, node: str, cls: type, level: int = 2) -> str:
    """A heading, and a table of the fields of one dataclass."""
    rows = [
        f"| `{node}.{name}` | {_cell(allowed)} | `{json.dumps(default)}` | {_cell(text)} |"
        for name, allowed, default, text in describe_fields(cls)
    ]
    return "\n".join([f"{'#' * level} {title}\n", "| key | values | default | |", "|---|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    """Text that can stand in a cell of a Markdown table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
