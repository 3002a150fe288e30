"""Generated pictures beside the eight real ones of each size, and beside the original generator's.

Thirteen statistics of a picture: counts of pixels, connected pieces, brightness of the dashes without the discs, and
where the discs are. What they are of the real pictures and of the original generator's is in `measured.json`.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from zoo.data.rng import key, start
from zoo_lra.pathfinder_generator import picture
from zoo_lra.pathfinder_tables import LEVELS, tables

FIXTURES = Path(__file__).parent / "fixtures" / "pathfinder"
MEASURED = json.loads((FIXTURES / "measured.json").read_text())
PIECES_ABOVE = {32: 60, 64: 60, 128: 30}
N = 250
REAL_SIZES = (64, 128)
LEVEL = 2.2
"""Of the Kolmogorov-Smirnov test, times sqrt(1/n + 1/m): 130 distances are looked at here, and by chance one of them is
larger than this once in a hundred times."""


def measure(pixels: np.ndarray, discs: list[tuple[int, int]]) -> dict[str, float]:
    """pixels (R, R), centres (y, x) of the two discs."""
    n = len(pixels)
    radius = tables(LEVELS[n]).marker_radius
    pieces, count = ndimage.label(pixels > PIECES_ABOVE[n], np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    dashes, reach = pixels.copy(), math.ceil(radius) + 3
    for y, x in discs:
        dashes[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = 0
    lit = dashes[dashes > 20]
    (ya, xa), (yb, xb) = discs
    cores = [pixels[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].mean() for y, x in discs]
    return {
        "nonzero_pixels": (pixels > 0).sum(),
        "pixels_over_20": (pixels > 20).sum(),
        "pixels_over_128": (pixels > 128).sum(),
        "mean_intensity": pixels.mean(),
        "components": count,
        "median_component": float(np.median(sizes)),
        "largest_component": sizes.max(),
        "dash_peak": np.sort(dashes.ravel())[-3],
        "dash_mean": lit.mean(),
        "dash_upper_decile": np.percentile(lit, 90),
        "marker_distance": math.hypot(ya - yb, xa - xb),
        "marker_border": min(min(y, x, n - 1 - y, n - 1 - x) for y, x in discs),
        "marker_core_mean": np.mean(cores),
    }


@cache
def generated(resolution: int, family: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Statistics of N pictures, (N,) each, and how often each grey value occurs, (256,)."""
    level = LEVELS[resolution]
    t = tables(level)
    stream, out = np.empty(1, np.uint64), np.empty((resolution, resolution), np.uint8)
    log = np.empty((2 * level.target_dashes + level.distractor_dashes * level.distractors, 3), np.int64)
    found, histogram = [], np.zeros(256, np.int64)
    for i in range(N):
        start(stream, key(family, resolution), i)
        _, _, _, origin, terminal = picture(stream, t, out, log)
        found.append(measure(out.astype(int), [(int(log[row, 1]), int(log[row, 2])) for row in (origin, terminal)]))
        histogram += np.bincount(out.ravel(), minlength=256)
    return {name: np.array([one[name] for one in found], float).round(3) for name in found[0]}, histogram


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov-Smirnov."""
    at = np.concatenate([a, b])
    return float(np.abs(np.searchsorted(np.sort(a), at, "right") / len(a) - np.mean(b[:, None] <= at, 0)).max())


@pytest.mark.parametrize("resolution", REAL_SIZES)
def test_the_real_pictures_here_measure_as_was_measured(resolution: int) -> None:
    """So that what is measured here is what the numbers in the fixture mean."""
    folder = FIXTURES / f"pathfinder{resolution}" / "curv_contour_length_14"
    real: dict[str, Any] = MEASURED[str(resolution)]["real"]["features"]
    for i, chain in enumerate(json.loads((folder / "decoded_chains.json").read_text())):
        pixels = np.asarray(Image.open(folder / "imgs" / "0" / f"sample_{i}.png")).astype(int)
        found = measure(pixels, [tuple(chain["origin"]), tuple(chain["terminal_marker"])])
        column = real["nonzero_pixels"].index(int(found["nonzero_pixels"]))
        for name, value in found.items():
            assert value == pytest.approx(real[name][column], abs=1e-3), name


@pytest.mark.parametrize("family", ["real", "another seed"])
@pytest.mark.parametrize("resolution", REAL_SIZES)
def test_the_eight_real_pictures_lie_inside_the_generated_distribution(resolution: int, family: str) -> None:
    ours, histogram = generated(resolution, family)
    real = MEASURED[str(resolution)]["real"]
    for name, values in real["features"].items():
        theirs = np.array(values, float)
        assert len(theirs) == 8
        # each within the range of ours, or as near to it as one picture more would be
        spread = ours[name].std()
        assert theirs.min() >= ours[name].min() - 0.5 * spread, name
        assert theirs.max() <= ours[name].max() + 0.5 * spread, name
        # and together no other distribution
        assert distance(ours[name], theirs) <= LEVEL * math.sqrt(1 / N + 1 / 8), name
    lit, theirs = (np.cumsum(np.array(h[1:]) / sum(h[1:])) for h in (histogram.tolist(), real["histogram"]))
    assert np.abs(lit - theirs).max() < 0.03


@pytest.mark.parametrize("family", ["real", "another seed"])
@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_all_statistics_are_those_of_the_original_generator(resolution: int, family: str) -> None:
    ours, _ = generated(resolution, family)
    original = MEASURED[str(resolution)]["original"]
    assert set(original) == set(ours)
    for name, told in original.items():
        share = np.mean(ours[name][:, None] <= np.array(told["at"]), 0)
        assert np.abs(share - told["share"]).max() <= LEVEL * math.sqrt(1 / N + 1 / told["n"]), name
