"""Hyperparameters per (task, protocol). No score of an RMT on LRA was ever published: everything here is ours."""

from __future__ import annotations

from zoo import Preset, Reported

_MODE = "Bulatov et al. classify with the encoder (body bert); their language models are causal"
_ALIGN = (
    "booydar/recurrent-memory-transformer modeling_rmt/sequence_classification.py: the last segment is the full one"
)
_POOL = (
    "ours, because every segment then has its own way to the loss beside the one through the memory; the authors take "
    "[CLS] of the last segment, for which model.pool=last is the nearest"
)


def _lra(segment: int, why: str, *, heads: int = 4, bptt: int = 0, deep: str = "") -> Preset:
    values = {
        "model.mode": "bidirectional",
        "model.pool": "mean",
        "segments.length": segment,
        "segments.align": "right",
        "segments.tbptt": bptt,
        "arch.num_mem_tokens": 10,
        "arch.n_heads": heads,
    }
    sources = {
        "model.mode": _MODE,
        "model.pool": _POOL,
        "segments.length": f"ours, because {why}",
        "segments.align": _ALIGN,
        "segments.tbptt": deep or "Bulatov et al. 2022: the deeper the better, so through all segments",
        "arch.num_mem_tokens": "Bulatov et al. 2022: 10 memory tokens",
        "arch.n_heads": "ours, because fewer heads allow a width nearer to the baseline's parameters",
    }
    return Preset(values=values, sources=sources)


_SHORT = "quick examples are short, and the memory is used only when an example has several segments"
_QUARTERS = "a segment of the whole image would leave the memory unused; four of 256 use it"
_LONG = "the authors' encoder reads segments of about 500 tokens"
_PATHX = "32 segments: longer ones are fewer links in the chain of memories, shorter ones fewer learned positions"

PRESETS: dict[tuple[str, str], Preset] = {
    ("listops", "quick"): _lra(64, _SHORT, heads=2),
    ("listops", "paper"): _lra(500, _LONG),
    ("text", "quick"): _lra(64, _SHORT, heads=2),
    ("text", "paper"): _lra(500, _LONG),
    ("retrieval", "quick"): _lra(64, _SHORT, heads=2),
    ("retrieval", "paper"): _lra(500, _LONG),
    ("retrieval_books", "quick"): _lra(64, _SHORT, heads=2),
    ("retrieval_books", "paper"): _lra(500, _LONG),
    ("image", "quick"): _lra(256, _QUARTERS, heads=2),
    ("image", "paper"): _lra(256, _QUARTERS),
    ("pathfinder", "quick"): _lra(256, _QUARTERS, heads=1),
    ("pathfinder", "paper"): _lra(256, _QUARTERS),
    ("pathx", "quick"): _lra(512, _PATHX, heads=1),
    ("pathx", "paper"): _lra(512, _PATHX),
}

REPORTED: tuple[Reported, ...] = ()
