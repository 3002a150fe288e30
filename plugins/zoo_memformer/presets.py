"""Hyperparameters per (task, protocol). No Memformer was ever published on LRA: everything here is ours."""

from __future__ import annotations

from zoo import Preset, Reported

_MODE = "ours, because the published encoder sees both sides within a segment, and LRA is modelled so"
_MEAN = "ours, because pooled over all segments each is trained directly, and the memory besides through those after it"


_SIZE = "ours, because fewer heads allow a width nearer to the baseline's parameters"


def _lra(segment: int, why: str, replay: str = "none", n_heads: int = 0) -> Preset:
    values: dict[str, str | int] = {"model.mode": "bidirectional", "model.pool": "mean", "segments.length": segment}
    sources = {"model.mode": _MODE, "model.pool": _MEAN, "segments.length": f"ours, because {why}"}
    if replay != "none":
        values["segments.activation_checkpointing"] = replay
        sources["segments.activation_checkpointing"] = (
            "the paper's own way to train (algorithm 1); same gradients as without it"
        )
    if n_heads:
        values["arch.n_heads"], sources["arch.n_heads"] = n_heads, _SIZE
    return Preset(values=values, sources=sources)


_QUARTERS = "a segment of the whole image would leave the memory unused; four of 256 use it"
_SHORT = "quick examples are short, and the memory is used only when an example has several segments"
_LONG = "it is the order of the segments that papers of this family train with"

PRESETS: dict[tuple[str, str], Preset] = {
    ("listops", "quick"): _lra(128, _SHORT),
    ("listops", "paper"): _lra(512, _LONG, "mrbp"),
    ("text", "quick"): _lra(128, _SHORT),
    ("text", "paper"): _lra(512, _LONG, "mrbp"),
    ("retrieval", "quick"): _lra(128, _SHORT),
    ("retrieval", "paper"): _lra(512, _LONG, "mrbp"),
    ("retrieval_books", "quick"): _lra(128, _SHORT),
    ("retrieval_books", "paper"): _lra(512, _LONG, "mrbp"),
    ("image", "quick"): _lra(256, _QUARTERS, n_heads=2),
    ("image", "paper"): _lra(256, _QUARTERS),
    ("pathfinder", "quick"): _lra(256, _QUARTERS, n_heads=2),
    ("pathfinder", "paper"): _lra(256, _QUARTERS),
    ("pathx", "quick"): _lra(256, "a token costs T + S, and the quick protocol has minutes on a CPU", n_heads=2),
    ("pathx", "paper"): _lra(512, _LONG, "mrbp"),
}

REPORTED: tuple[Reported, ...] = ()
