"""Match the width of an architecture so that its model has as many parameters as a baseline's.

Whole models are counted (embedding, positions, backbone, head), as records count them. A solution is kept on disk
under the hash of everything that it depends on, so each architecture × task is solved once; torch is imported only to
solve.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zoo.data.paths import cache_dir, data_dir
from zoo.run.compose import Experiment, compose, with_width
from zoo.run.validate import validate
from zoo.spec.errors import ConfigError, UnknownName
from zoo.spec.files import write_atomically

TOLERANCE = 0.05
"""How far from the baseline's parameter count a model may be and still be called matched."""
REACH = 4
"""Widths from a quarter to four times the baseline's are tried."""
FAR = 0.2
"""Beyond this, narrowing or widening would only cripple the model without making it comparable."""
ROUND = (8, 4, 2, 1)
"""Multiples that are preferred, in this order, as long as the count stays within the tolerance."""
FOLLOWED = ("model.n_layers", "model.positions", "model.head", "model.d_head", "model.pool", "model.d_model")
"""What the user may set that the baseline follows, besides everything of the task."""


@dataclass(frozen=True)
class Match:
    """A solved width, the parameters at that width, and the baseline's."""

    width: int
    parameters: int
    target: int

    @property
    def difference(self) -> float:
        """Relative difference to the baseline."""
        return self.parameters / self.target - 1

    @property
    def matched(self) -> bool:
        return abs(self.difference) <= TOLERANCE


def match_width(experiment: Experiment, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Experiment:
    """The experiment at the width at which it has as many parameters as its baseline under the same protocol.

    layers  what the user set, as in `compose`
    """
    user = {key: value for _, values in layers for key, value in values.items()}
    followed = {key: value for key, value in user.items() if key in FOLLOWED or key.startswith("task.")}
    try:
        reference = compose(
            experiment.baseline, experiment.task, protocol=experiment.protocol, layers=[("--set", followed)]
        )
    except UnknownName as error:
        origin = experiment.origins["model.match_params_of"]
        raise ConfigError("model.match_params_of", str(error), origin=origin) from error
    validate(reference)
    match = _solve_once(experiment, reference)
    origin = f"solved: {match.parameters:,} parameters, {100 * match.difference:+.1f} % of {reference.architecture}'s "
    origin += f"{match.target:,}"
    if not match.matched:
        origin += f"; no width comes within {100 * TOLERANCE:.0f} %"
    return with_width(
        experiment,
        match.width,
        origins={**experiment.origins, "model.d_model": origin},
        matched={"architecture": reference.architecture, "parameters": match.target},
    )


_SOLVED: dict[str, Match] = {}


def _solve_once(experiment: Experiment, reference: Experiment) -> Match:
    """The solution from this process or from disk, else solved and kept."""
    # how a model is trained has no part in its size
    depends_on = [
        {
            "architecture": each.arch_spec.name,
            "config": {name: node for name, node in each.config.items() if name not in ("optim", "train")},
            "code": each.code_hash,
        }
        for each in (experiment, reference)
    ]
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
    file = cache_dir(data_dir()) / "widths" / f"{key}.json"
    if key not in _SOLVED and os.path.isfile(file):
        try:
            _SOLVED[key] = Match(**json.loads(file.read_text("utf-8")))
        except (ValueError, TypeError):
            file.unlink(missing_ok=True)  # a damaged entry is solved anew
    if key not in _SOLVED:
        _SOLVED[key] = solve(
            lambda width: count_parameters(with_width(experiment, width), check=True),
            count_parameters(reference),
            experiment.model.d_model,
        )
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
            write_atomically(file, json.dumps(asdict(_SOLVED[key])))
    return _SOLVED[key]


def count_parameters(experiment: Experiment, *, check: bool = False) -> int:
    """Parameters of the whole model of an experiment, as its record will count them.

    check  validate the experiment first; raises ConfigError
    """
    import torch

    if check:
        validate(experiment)
    with torch.random.fork_rng(devices=[]):
        model = experiment.kind.build_model(experiment.model_spec)
        return sum(p.numel() for p in model.parameters())


def solve(count: Callable[[int], int], target: int, start: int) -> Match:
    """The roundest width within TOLERANCE of `target` parameters; where none is, the nearest there is, unless even
    that is far away: then `start`, the width that the protocol gives.

    count   width -> parameters; raises ConfigError for a width that cannot be built. Taken to grow with the width
    start   the baseline's width
    """
    counts: dict[int, int | None] = {}

    def counted(width: int) -> int | None:
        if width not in counts:
            try:
                counts[width] = count(width)
            except ConfigError:
                counts[width] = None
        return counts[width]

    low, high = max(1, start // REACH), start * REACH
    for multiple in ROUND:
        _bisect(counted, target, -(-low // multiple), high // multiple, multiple)
        built = {width: n for width, n in counts.items() if n is not None}
        close = [w for w, n in built.items() if w % multiple == 0 and abs(n / target - 1) <= TOLERANCE]
        if close:
            best = min(close, key=lambda w: (abs(built[w] - target), w))
            return Match(best, built[best], target)
    if not built:
        # nothing can be built: the ordinary check of the protocol's width says why
        return Match(start, count(start), target)
    nearest = min(built, key=lambda w: (abs(built[w] - target), w))
    if abs(built[nearest] / target - 1) > FAR:
        own = counted(start)
        if own is not None:
            return Match(start, own, target)
    return Match(nearest, built[nearest], target)


def _bisect(counted: Callable[[int], int | None], target: int, low: int, high: int, multiple: int) -> None:
    """Count the widths around the crossing of `target` among the multiples of `multiple` that can be built."""
    while low <= high:
        middle = (low + high) // 2
        # widths that cannot be built (a number of heads that does not divide them) are stepped over
        probe = next((k for k in range(middle, high + 1) if counted(k * multiple) is not None), None)
        if probe is None:
            high = middle - 1
            continue
        n = counted(probe * multiple)
        assert n is not None
        if n < target:
            low = probe + 1
        else:
            high = middle - 1
