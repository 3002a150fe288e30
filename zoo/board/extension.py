"""Models beyond their training length, by the methods that extend their context: tables and charts.

Of one run for `zoo extend`; of all runs of a task for the board, where architectures stand beside methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from zoo.board.headings import describe_task
from zoo.board.metric import Metric
from zoo.board.part import Part
from zoo.board.tables import Table
from zoo.spec.evaluation import AS_TRAINED, ExtensionRecord

SENTENCE = (
    "as trained (method none), and with methods that extend the context of a trained model (docs/long-context.md). A "
    "dash: the model cannot read that length. One model each, without intervals: nothing here is ranked."
)
"""What the board says of a study."""

Run = Sequence[ExtensionRecord]
"""The records of one run's model."""


@dataclass(frozen=True)
class Study:
    """The runs of a task under a protocol, in the order of their names."""

    protocol: str
    task: str
    runs: Sequence[Run]

    @property
    def score(self) -> str:
        return main_score([record for run in self.runs for record in run])

    @property
    def title(self) -> str:
        better = "higher" if Metric(self.score).kind == "share" else "lower"
        return f"{self.task}, {Metric(self.score).title} ({better} is better)"

    @property
    def trained(self) -> str:
        """ "inputs of 256 tokens"."""
        lengths = sorted({run[0].trained_len for run in self.runs})
        return f"inputs of {', '.join(f'{length:,}' for length in lengths)} tokens"

    @property
    def named(self) -> dict[str, Run]:
        """The runs by unique names: those of equal settings with the hash of their configuration."""
        counts = Counter(map(run_label, self.runs))
        hashes = [run[0].run.rpartition("/")[2].partition("-")[0][:6] for run in self.runs]
        labels = [run_label(run) for run in self.runs]
        names = [f"{one} {code}" if counts[one] > 1 else one for one, code in zip(labels, hashes, strict=True)]
        return dict(zip(names, self.runs, strict=True))


def studies(runs: Sequence[Run]) -> list[Study]:
    """Runs by protocol and task."""
    named = sorted(
        (run for run in runs if run), key=lambda run: (run[0].protocol, run[0].task, run_label(run), run[0].run)
    )
    keys = dict.fromkeys((run[0].protocol, run[0].task) for run in named)
    return [Study(*key, [run for run in named if (run[0].protocol, run[0].task) == key]) for key in keys]


def extension_parts(runs: Sequence[Run]) -> list[Part]:
    """The parts of the board, task by task."""
    return [
        Part(
            study.protocol,
            f"Beyond the training length: {study.title}",
            f"{describe_task(study.task)}Trained on {study.trained} and tested on longer ones: {SENTENCE}",
            study_table(study),
            f"extension-{study.protocol}-{study.task}.svg",
            partial(study_chart, study),
        )
        for study in studies(runs)
    ]


def run_label(run: Run) -> str:
    """The architecture, and what was set for the run: "transformer, positions=alibi"."""
    first = run[0]
    settings = [f"{key.removeprefix('arch.')}={value}" for key, value in first.settings.items()]
    return ", ".join([first.architecture, *settings, *([f"seed {first.seed}"] if first.seed else [])])


def main_score(records: Run) -> str:
    """The score that is shown: perplexity of running text, else the task's first."""
    return next((name for record in records for name in record.scores), "perplexity")


def extension_table(records: Run) -> tuple[list[str], list[list[str]]]:
    """Headers and cells: a row for each method, a column for each length; a length that cannot be read is a dash."""
    lengths, score = sorted({record.seq_len for record in records}), main_score(records)
    return [score, *map(str, lengths)], _rows(records, lengths, score)


def study_table(study: Study) -> Table:
    """The same for the runs of a study, one after the other."""
    lengths = sorted({record.seq_len for run in study.runs for record in run})
    rows = [[name, *row] for name, run in study.named.items() for row in _rows(run, lengths, study.score)]
    return Table(["architecture", "method", *(f"{length:,} tokens" for length in lengths)], rows)


def _rows(records: Run, lengths: Sequence[int], score: str) -> list[list[str]]:
    cells = {(record.label, record.seq_len): _format(record, score) for record in records}
    labels = dict.fromkeys(record.label for record in records)
    return [[label, *(cells.get((label, length), "") for length in lengths)] for label in labels]


def _format(record: ExtensionRecord, score: str) -> str:
    value = record.scores.get(score)
    return "-" if record.error or value is None else Metric(score).format(value)


def extension_chart(records: Run) -> Any:
    """The score over the length of the input, and of running text the loss over the position in the longest input; a
    line for each method. Returns an Altair chart."""
    import altair as alt

    from zoo.board.charts import styled
    from zoo.board.labels import Axis
    from zoo.board.lines import BESIDE, line_panel

    score, lines = main_score(records), _by_label(records)
    panels = [_panel(lines, score, f"{Metric(score).title} by length of the input")]
    longest = max(record.seq_len for record in records)
    losses = {
        name: [(max(span.stop, 1), span.loss) for each in own for span in each.positions if span.loss is not None]
        for name, own in _by_label([record for record in records if record.seq_len == longest]).items()
    }
    if values := [loss for points in losses.values() for _, loss in points]:
        panels.append(
            line_panel(
                losses,
                Axis(values, log=False),
                title=f"loss by position, input of {longest:,} tokens",
                x_title="position, up to",
                y_title="loss, nats",
                y_format="~g",
                black=AS_TRAINED,
            )
        )
    return styled(alt.vconcat(*panels), right=BESIDE)


def study_chart(study: Study) -> Any:
    """The runs of a study as trained, and below them each whose context was extended, by its methods."""
    import altair as alt

    from zoo.board.charts import styled
    from zoo.board.lines import BESIDE

    trained = {name: [each for each in run if each.label == AS_TRAINED] for name, run in study.named.items()}
    panels = [_panel(trained, study.score, f"{study.title}, as trained")]
    for name, run in study.named.items():
        if len(lines := _by_label(run)) > 1:
            panels.append(_panel(lines, study.score, f"{name}, by method"))
    return styled(alt.vconcat(*panels), right=BESIDE)


def _by_label(records: Run) -> dict[str, list[ExtensionRecord]]:
    labels = dict.fromkeys(record.label for record in records)
    return {label: [record for record in records if record.label == label] for label in labels}


def _panel(lines: Mapping[str, Run], score: str, title: str) -> Any:
    from zoo.board.labels import Axis
    from zoo.board.lines import line_panel

    metric = Metric(score)
    points = {
        name: [(each.seq_len, value) for each in own if (value := each.scores.get(score)) is not None]
        for name, own in lines.items()
    }
    values = [value for own in points.values() for _, value in own]
    share, log = metric.is_share, metric.kind == "perplexity"
    return line_panel(
        points,
        Axis([0.0, 1.0], log=False, floor=0.0, ceiling=1.0) if share else Axis(values, log=log),
        title=title,
        x_title="tokens of the input",
        y_title=metric.title,
        y_format=".0%" if share else "~g",
        black=AS_TRAINED,
        marked=sorted({each.trained_len for own in lines.values() for each in own}),
        tip=metric.format,
    )
