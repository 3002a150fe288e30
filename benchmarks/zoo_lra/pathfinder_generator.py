"""Pathfinder pictures: two contours of dashes, shorter distractors, two discs. Compiled; one thread a call.

The algorithm is the one of Linsley et al. 2018 (arXiv 1805.08315) with Long Range Arena's parameters; the tables that
it reads are in pathfinder_tables.py. A picture depends on (version, seed, split, index, resolution) alone.

M is the mask that keeps contours apart, one byte a pixel in 255ths. A snake is an int64 row:
[pivot y, pivot x, direction, patch, y, x], where direction < 360 is a seed's whole degrees + 180 and 360 + c is turn c,
and (patch, y, x) is its last dash, which enters M only when the next one is placed.
"""

from __future__ import annotations

import math

import numpy as np

from zoo.data.rng import below, start, uniform
from zoo.ops.compiled import compiled
from zoo_lra.pathfinder_tables import AA, FREE, LEVELS, Level, Tables, tables

VERSION = "1"
SEED_TRIES = DRAW_TRIES = 3
DISTRACTOR_TRIES = 5
GUESSES = 64
"""Random pixels that are tried before all are listed: the same distribution, faster while the picture is empty."""


@compiled
def _inside(y, x, n):
    return 0 <= y < n and 0 <= x < n


@compiled
def _collides(M, t, k, patch, y, x):
    """Whether the mask of a dash plus M reaches 1.8 anywhere."""
    n, half, extent = t.resolution, t.masks.shape[2] // 2, t.extent[k, patch]
    for py in range(max(extent[0], -y), min(extent[1], n - 1 - y) + 1):
        for px in range(max(extent[2], -x), min(extent[3], n - 1 - x) + 1):
            if M[y + py, x + px] >= t.clash[t.masks[k, patch, half + py, half + px]]:
                return True
    return False


@compiled
def _merge(M, t, k, patch, y, x):
    """M = max(M, mask of a dash)."""
    n, half, extent = t.resolution, t.masks.shape[2] // 2, t.extent[k, patch]
    for py in range(max(extent[0], -y), min(extent[1], n - 1 - y) + 1):
        for px in range(max(extent[2], -x), min(extent[3], n - 1 - x) + 1):
            M[y + py, x + px] = max(M[y + py, x + px], t.masks[k, patch, half + py, half + px])


@compiled
def _light(picture, t, k, patch, y, x, contrast):
    """picture = max(picture, contrast * dash); what is below 0 vanishes."""
    n, half, reach = t.resolution, t.lines.shape[2] // 2, t.reach[k]
    for py in range(max(-reach, -y), min(reach, n - 1 - y) + 1):
        for px in range(max(-reach, -x), min(reach, n - 1 - x) + 1):
            value = contrast * t.lines[k, patch, half + py, half + px]
            picture[y + py, x + px] = max(picture[y + py, x + px], value)


@compiled
def _seed(stream, t, k, direction, y, x, snake):
    """Set a snake to its first dash with its tail at (y, x); False when head or pivot are outside."""
    head_y = np.int64(math.ceil(y + t.seed_head[direction, 0]))
    head_x = np.int64(math.ceil(x + t.seed_head[direction, 1]))
    pivot_y = np.int64(math.ceil(head_y + t.seed_pivot[k, direction, 0]))
    pivot_x = np.int64(math.ceil(head_x + t.seed_pivot[k, direction, 1]))
    if not (_inside(head_y, head_x, t.resolution) and _inside(pivot_y, pivot_x, t.resolution)):
        return False
    snake[0], snake[1], snake[2] = pivot_y, pivot_x, direction
    snake[3], snake[4], snake[5] = t.seed_patch[k, direction], y, x
    return True


@compiled
def _extend(stream, t, k, M, snake, weight):
    """Grow a snake by one dash; its previous one enters M. False = dead end, nothing changed."""
    n = t.resolution
    pivot_y = np.int64(math.ceil(snake[0] + t.jump[k, snake[2], 0]))
    pivot_x = np.int64(math.ceil(snake[1] + t.jump[k, snake[2], 1]))
    total = 0.0
    for c in range(t.n_turns[k]):
        weight[c] = 0.0
        turn_weight = t.weights[k, snake[2], c]
        y, x = pivot_y + t.turns[k, c, 0], pivot_x + t.turns[k, c, 1]
        if turn_weight > 0 and _inside(y, x, n):
            worst = 0
            for i in range(t.n_near[k]):
                ny, nx = y + t.near[k, i, 0], x + t.near[k, i, 1]
                if _inside(ny, nx, n) and M[ny, nx] > worst:
                    worst = M[ny, nx]
            weight[c] = turn_weight * (1.0 - t.value[worst])
            total += weight[c]
    if total < 1e-4:
        return False
    for _ in range(DRAW_TRIES):
        rest = uniform(stream) * total
        chosen = -1
        for c in range(t.n_turns[k]):
            if weight[c] > 0:
                chosen = c
                rest -= weight[c]
                if rest < 0:
                    break
        y, x = pivot_y + t.turns[k, chosen, 0], pivot_x + t.turns[k, chosen, 1]
        if not _collides(M, t, k, t.turn_patch[k, chosen], y, x):
            _merge(M, t, k, snake[3], snake[4], snake[5])
            snake[0], snake[1], snake[2] = pivot_y, pivot_x, 360 + chosen
            snake[3], snake[4], snake[5] = t.turn_patch[k, chosen], y, x
            return True
    return False


@compiled
def _first_target(stream, t, k, snake):
    """The first target's seed, near the middle of the picture."""
    for _ in range(SEED_TRIES):
        direction = below(stream, 360)
        y0, y1 = t.seed_box[k, direction, 0], t.seed_box[k, direction, 1]
        x0, x1 = t.seed_box[k, direction, 2], t.seed_box[k, direction, 3]
        if y1 < y0 or x1 < x0:
            return False
        y, x = y0 + below(stream, y1 - y0 + 1), x0 + below(stream, x1 - x0 + 1)
        if _seed(stream, t, k, direction, y, x, snake):
            return True
    return False


@compiled
def _second_target(stream, t, k, first, snake):
    """The second target's seed, at a fixed distance from the first one's tail. Nothing keeps them from overlapping."""
    for _ in range(SEED_TRIES):
        direction, around = below(stream, 360), below(stream, 360)
        y = np.int64(np.rint(first[4] + t.second[around, 0]))
        x = np.int64(np.rint(first[5] + t.second[around, 1]))
        if _seed(stream, t, k, direction, y, x, snake):
            return True
    return False


@compiled
def _border(M, width):
    M[:] = 0
    M[:width] = 255
    M[-width:] = 255
    M[:, :width] = 255
    M[:, -width:] = 255


@compiled
def _copy(source, target):
    """target = source, entry by entry: numba takes seconds to compile an assignment of one array to another."""
    for y in range(source.shape[0]):
        for x in range(source.shape[1]):
            target[y, x] = source[y, x]


@compiled
def _note(log, row, snake):
    """The (patch, y, x) of a snake's last dash into a row of the log."""
    log[row, 0], log[row, 1], log[row, 2] = snake[3], snake[4], snake[5]


@compiled
def _targets(stream, t, k, M, log, weight):
    """Both targets into M and log (dash i of snake s in row 2 i + s). Starts over until both are whole."""
    snakes = np.empty((2, 6), np.int64)
    while True:
        _border(M, t.padding)
        whole = _first_target(stream, t, k, snakes[0]) and _second_target(stream, t, k, snakes[0], snakes[1])
        for i in range(t.target_dashes):
            for s in range(2):
                if whole and i > 0:
                    whole = _extend(stream, t, k, M, snakes[s], weight)
                if whole:
                    _note(log, 2 * i + s, snakes[s])
        if whole:
            # the original merges the last dash of the second snake only
            _merge(M, t, k, snakes[1, 3], snakes[1, 4], snakes[1, 5])
            return


@compiled
def _room(t, k, M, direction, y, x):
    """Whether a seed of this direction has room at (y, x). The outermost pixels always count as taken."""
    n = t.resolution
    for i in range(t.n_kernel[k, direction]):
        ky, kx = y + t.kernel[k, direction, i, 0], x + t.kernel[k, direction, i, 1]
        if _inside(ky, kx, n) and (M[ky, kx] > FREE or ky == 0 or kx == 0 or ky == n - 1 or kx == n - 1):
            return False
    return True


@compiled
def _place(stream, t, k, M, direction, spot):
    """A uniformly chosen pixel with room for a seed of this direction into `spot`; False when there is none."""
    n = t.resolution
    for _ in range(GUESSES):
        p = below(stream, n * n)
        if _room(t, k, M, direction, p // n, p % n):
            spot[0], spot[1] = p // n, p % n
            return True
    free = np.empty(n * n, np.int64)
    n_free = 0
    for p in range(n * n):
        if _room(t, k, M, direction, p // n, p % n):
            free[n_free] = p
            n_free += 1
    if n_free == 0:
        return False
    p = free[below(stream, n_free)]
    spot[0], spot[1] = p // n, p % n
    return True


@compiled
def _distractor_seed(stream, t, k, M, snake):
    free = 0
    for y in range(t.resolution):
        for x in range(t.resolution):
            free += M[y, x] <= FREE
    if free / (t.resolution * t.resolution) < 0.01:
        return False
    spot = np.empty(2, np.int64)
    for _ in range(SEED_TRIES):
        direction = below(stream, 360)
        if t.n_kernel[k, direction] < 0 or not _place(stream, t, k, M, direction, spot):
            return False
        if _seed(stream, t, k, direction, spot[0], spot[1], snake):
            return True
    return False


@compiled
def _distractors(stream, t, k, M, log, dashes, weight):
    """Up to `t.distractors` snakes into M and log; one that finds no room is left out."""
    before, snake = np.empty_like(M), np.empty(6, np.int64)
    for _ in range(t.distractors):
        for _ in range(DISTRACTOR_TRIES):
            _copy(M, before)
            whole = _distractor_seed(stream, t, k, M, snake)
            for i in range(t.distractor_dashes):
                if whole and i > 0:
                    whole = _extend(stream, t, k, M, snake, weight)
                if whole:
                    _note(log, dashes + i, snake)
            if whole:
                _merge(M, t, k, snake[3], snake[4], snake[5])
                dashes += t.distractor_dashes
                break
            _copy(before, M)
    return dashes


@compiled
def _mark(markers, t, y, x):
    """markers = max(markers, disc around (y, x)), the disc drawn large and shrunk, unclipped."""
    n, wide = t.resolution, t.shrink.shape[1]
    radius = t.marker_radius * AA
    r = np.int64(radius)
    cy, cx = y * AA, x * AA
    margin = np.int64(t.marker_radius) + 5
    for py in range(max(0, y - margin), min(n, y + margin + 1)):
        for px in range(max(0, x - margin), min(n, x + margin + 1)):
            total = 0.0
            for hy in range(max(0, cy - r), min(wide, cy + r + 1)):
                along = 0.0
                for hx in range(max(0, cx - r), min(wide, cx + r + 1)):
                    if (hy - cy) ** 2 + (hx - cx) ** 2 <= radius * radius:
                        along += t.shrink[px, hx]
                total += t.shrink[py, hy] * along
            markers[py, px] = max(markers[py, px], np.float64(np.float32(total)))


@compiled
def _largest(values):
    largest = values[0, 0]
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            largest = max(largest, values[y, x])
    return largest


@compiled
def _compose(t, k, log, dashes, origin, terminal, out):
    """P = max(lines / max(lines), discs); out = floor(255 P / max(P))."""
    n = t.resolution
    lines, markers = np.zeros((n, n)), np.zeros((n, n))
    for i in range(dashes):
        contrast = t.target_contrast if i < 2 * t.target_dashes else t.distractor_contrast
        _light(lines, t, k, log[i, 0], log[i, 1], log[i, 2], contrast)
    _mark(markers, t, log[origin, 1], log[origin, 2])
    _mark(markers, t, log[terminal, 1], log[terminal, 2])
    brightest = _largest(lines)
    for y in range(n):
        for x in range(n):
            lines[y, x] = max(lines[y, x] / brightest, markers[y, x])
    peak = _largest(lines)
    for y in range(n):
        for x in range(n):
            out[y, x] = np.uint8(255.0 * (lines[y, x] / peak))


@compiled
def picture(stream, t, out, log):
    """One picture from a stream.

    t    Tables
    out  (R, R) uint8, filled
    log  (dashes, 3) int64, filled with (patch, y, x) of each dash: the targets (dash i of snake s in row 2 i + s;
         (y, x) is a tail for i = 0, else a head), then the distractors
    Returns (label, margin index, number of dashes, row of the origin disc, row of the terminal disc).
    """
    n = t.resolution
    M, weight = np.empty((n, n), np.uint8), np.empty(t.turns.shape[1])
    label = below(stream, 2)
    k = below(stream, len(t.margins))
    _targets(stream, t, k, M, log, weight)
    dashes = _distractors(stream, t, k, M, log, 2 * t.target_dashes, weight)
    origin = below(stream, 2)
    terminal = 2 * (t.target_dashes - 1) + (origin if label == 1 else 1 - origin)
    _compose(t, k, log, dashes, origin, terminal, out)
    return label, k, dashes, origin, terminal


@compiled
def _pictures(t, family, first, out, labels, margins):
    stream = np.empty(1, np.uint64)
    log = np.empty((2 * t.target_dashes + t.distractor_dashes * t.distractors, 3), np.int64)
    for i in range(len(out)):
        start(stream, family, first + i)
        labels[i], k, _, _, _ = picture(stream, t, out[i], log)
        margins[i] = t.margins[k]


def pictures(family: np.uint64, first: int, count: int, level: Level) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures first … first + count - 1 of a family of streams (`zoo.data.rng.key`).

    Returns pictures (count, R, R) uint8, labels (count,) uint8, margins (count,) uint8. Releases the interpreter's
    lock, so threads run side by side.
    """
    t: Tables = tables(level)
    out = np.empty((count, level.resolution, level.resolution), np.uint8)
    labels, margins = np.empty(count, np.uint8), np.empty(count, np.uint8)
    _pictures(t, family, first, out, labels, margins)
    return out, labels, margins


__all__ = ["LEVELS", "VERSION", "picture", "pictures"]
