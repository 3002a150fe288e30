"""What a sweep shows while it goes on: on stderr a line per run with a bar, and one for all runs; and the board."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column


class Display:
    """Runs that go on (samples, samples/s, loss, validation score, time left), and how many are done and left.

    Where stderr is no terminal, or one that cannot move its cursor (TERM=dumb), one line per validation instead.

    total  number of runs
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.total, self.began = total, time.monotonic()
        self.ended: Counter[str] = Counter()
        wide, narrow = self.console.width >= 100, self.console.width < 72
        self.progress = Progress(
            # what is left of the line
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            *([BarColumn(20)] if wide else []),
            TextColumn("{task.fields[count]}"),
            *([] if narrow else [TextColumn("{task.fields[rate]}")]),
            TextColumn("{task.fields[scores]}"),
            *([TextColumn("{task.fields[elapsed]}")] if wide else []),
            TextColumn("left {task.fields[left]}"),
            console=self.console,
            transient=True,
            expand=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.runs: dict[int, _Run] = {}
        self.summary: TaskID | None = None

    def __enter__(self) -> Display:
        if self.console.is_interactive:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_interactive:
            self.progress.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def add(self, key: int, name: str) -> None:
        """Show a run that begins."""
        if self.summary is None and self.total > 1:
            self.summary = self._add_line("", self.total)
        self.runs[key] = _Run(name, self._add_line(name, None))
        self._summarize()

    def _add_line(self, title: str, total: int | None) -> TaskID:
        return self.progress.add_task(
            title, total=total, count="", rate="", scores="", elapsed=_clock(0), left=_clock(None)
        )

    def show(self, key: int, output: str, events: Sequence[dict[str, Any]]) -> None:
        """Show what a run has printed, and what it has reported."""
        run = self.runs[key]
        for line in output.splitlines():
            self.say(line)
        for event in events:
            run.last |= event
            if "val_line" in event and not self.console.is_interactive:
                self.say(f"{run.name}: {event['val_line']}")
        if not events or "samples" not in run.last:
            return
        last = run.last
        self.progress.update(
            run.line,
            completed=last["samples"],
            total=last["total"],
            count=f"{last['samples']}/{last['total']}",
            rate=f"{last['rate']:.0f}/s",
            scores=f"loss {last['loss']:.3f} val {last.get('val', '-')}",
            elapsed=_clock(last["seconds"]),
            left=_clock((last["total"] - last["samples"]) / last["rate"] if last["rate"] else None),
        )

    @contextlib.contextmanager
    def remove(self, key: int, status: str) -> Iterator[None]:
        """Take a run that has ended off the bars, which stand still inside the context: others may print there."""
        self.progress.remove_task(self.runs.pop(key).line)
        self.ended[status] += 1
        self._summarize()
        if self.console.is_interactive:
            self.progress.stop()
        yield
        if self.console.is_interactive and self.ended.total() < self.total:
            self.progress.start()

    def _summarize(self) -> None:
        """Show how many runs go on, have ended and how, and when all will have, if the others take as long."""
        if self.summary is None:
            return
        done, seconds = self.ended.total(), time.monotonic() - self.began
        ended = [f"{self.ended['ok']} ok"] + [f"{n} {name}" for name, n in sorted(self.ended.items()) if name != "ok"]
        self.progress.update(
            self.summary,
            description=", ".join([f"{len(self.runs)} running", *ended]),
            completed=done,
            count=f"{done}/{self.total}",
            elapsed=_clock(seconds),
            left=_clock(seconds / done * (self.total - done) if done else None),
        )


class _Run:
    def __init__(self, name: str, line: TaskID) -> None:
        self.name, self.line = name, line
        self.last: dict[str, Any] = {}


def _clock(seconds: float | None) -> str:
    """Seconds as h:mm:ss."""
    if seconds is None:
        return "-:--:--"
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


class Refresher:
    """Refreshes the board as records come, but does not spend more than a twentieth of a sweep's time on that."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.next, self.due = 0.0, False

    def soon(self) -> None:
        """A record has come."""
        self.due = True
        if time.monotonic() >= self.next:
            self.now()

    def now(self) -> None:
        """Refresh the board if a record has come since."""
        if not self.due:
            return
        from zoo.board.build import refresh  # libraries of tables and charts, which a finished run needs not

        began = time.monotonic()
        refresh(self.results)
        self.due, self.next = False, began + 20 * (time.monotonic() - began)
