"""Everything of a Pathfinder picture that does not depend on chance: dashes, masks, turns, discs, computed once.

Coordinates are (y, x) integers. A dash is fixed by where its high-resolution line ends, and only some 70 such ends
exist, so a table of dash patches per margin replaces all drawing, dilating and resizing. Lines and Lanczos resizing
are written out here rather than taken from an imaging library, so that a version of the generator draws the same
pictures whatever is installed (the tests compare them with Pillow's).

Shapes: K margins, P dash patches, S = 2 * reach + 1 their side, C candidate turns, 360 whole degrees for seeds.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

AA = 2
"""Lines and discs are drawn this much larger, then shrunk."""
FREE = 76
"""A mask of at most this many 255ths counts as free: ceil(mask - 0.3) = 0."""


class Level(NamedTuple):
    """Parameters of the pictures of one resolution and difficulty."""

    resolution: int
    padding: int
    seed_distance: int
    length: int
    thickness: float
    margins: tuple[int, ...]
    marker_radius: float
    continuity: float
    distractors: int
    target_contrast: float
    distractor_contrast: float
    target_dashes: int = 14
    distractor_dashes: int = 4


LEVELS = {
    16: Level(16, 1, 3, 2, 0.5, (1,), 1.0, 1.0, 2, 1.5, 2.0, 3, 2),
    32: Level(32, 1, 7, 2, 0.5, (1,), 1.5, 1.0, 10, 1.5, 2.0),
    64: Level(64, 1, 12, 5, 1.0, (1,), 2.5, 1.8, 11, 1.0, 1.0),
    128: Level(128, 1, 20, 5, 1.5, (2, 3), 3.0, 1.8, 17, 1.0, 1.0),
}
"""From 32 pixels on the hard level as Long Range Arena used it. The number of distractors is the one of the baseline
level (22//2 = 11, 35//2 = 17): the original computed it once for distractors of two dashes and kept it for those of
four. At 32 the distractors are brighter than the targets. 16 pixels are ours."""


class Tables(NamedTuple):
    """What the compiled generator reads.

    lines        (K, P, S, S) float32   brightness of a dash around its start, unclipped (about -0.2 … 1.2)
    masks        (K, P, S, S) uint8     the dash dilated by the margin, in 255ths
    extent       (K, P, 4)              first and last dy, first and last dx where the mask is not 0
    reach        (K,)                   S = 2 * reach + 1 of this margin; patches of smaller margins are padded
    seed_patch   (K, 360)               patch of a seed of -180 … 179 degrees
    seed_head    (360, 2) float64       its head relative to its tail, before rounding up
    seed_pivot   (K, 360, 2) float64    its pivot relative to its head, likewise
    seed_box     (K, 360, 4)            first and last y, first and last x where the first target's tail may be
    kernel       (K, 360, Q, 2)         pixels that a distractor's seed needs free, relative to its tail
    n_kernel     (K, 360)               how many; -1 = this direction can never be placed
    second       (360, 2) float64       where the second target's tail is, relative to the first one's
    turns        (K, C, 2)              candidate heads relative to the pivot
    n_turns      (K,)
    turn_patch   (K, C)                 patch of a dash that starts at that head and points back to the pivot
    jump         (K, 360 + C, 2) float64  from a pivot to the next, before rounding up, after a seed (0 … 359) or a
                                        turn (360 + c)
    weights      (K, 360 + C, C)        cos^2 weights of the turns after each direction
    near         (K, D, 2)              disc of the margin's radius; n_near (K,)
    value        (256,) float64         a mask byte as the original's float32
    clash        (256,) int64           smallest mask byte that with this one makes 1.8 or more; 256 = none
    shrink       (R, AA * R) float64    the Lanczos operator that shrinks the canvas on which discs are drawn
    """

    lines: np.ndarray
    masks: np.ndarray
    extent: np.ndarray
    reach: np.ndarray
    seed_patch: np.ndarray
    seed_head: np.ndarray
    seed_pivot: np.ndarray
    seed_box: np.ndarray
    kernel: np.ndarray
    n_kernel: np.ndarray
    second: np.ndarray
    turns: np.ndarray
    n_turns: np.ndarray
    turn_patch: np.ndarray
    jump: np.ndarray
    weights: np.ndarray
    near: np.ndarray
    n_near: np.ndarray
    value: np.ndarray
    clash: np.ndarray
    shrink: np.ndarray
    margins: np.ndarray
    resolution: int
    padding: int
    distractors: int
    target_contrast: float
    distractor_contrast: float
    marker_radius: float
    target_dashes: int
    distractor_dashes: int


def away(theta: float, distance: float) -> tuple[float, float]:
    """(y, x) to a point at `distance` in direction theta.

    A move is ceil(from + away) in float64, never from + ceil(away): sin(pi) is 1.2e-16, and whether that survives the
    addition depends on `from`. Real pictures show it where a contour runs straight near the top or left border.
    """
    return distance * math.sin(theta), distance * math.cos(theta)


def opposite(theta: float) -> float:
    """The direction back."""
    return theta + math.pi if theta < 0 else theta - math.pi


def end_of(theta: float, reach: int, length: int) -> tuple[int, int]:
    """Where a dash ends on its high-resolution canvas, relative to the centre."""
    centre = reach * AA
    y, x = away(theta, length * AA)
    return math.ceil(centre + y) - centre, math.ceil(centre + x) - centre


def disc(radius: float) -> np.ndarray:
    """(n, 2) offsets with dy^2 + dx^2 <= radius^2."""
    k = math.floor(radius)
    return np.array(
        [(y, x) for y in range(-k, k + 1) for x in range(-k, k + 1) if y * y + x * x <= radius * radius], dtype=np.int64
    )


def line(side: int, dy: int, dx: int, width: int) -> np.ndarray:
    """(side, side) bool: a line from the centre to centre + (dy, dx), as Pillow's ImageDraw.line rasters it."""
    out = np.zeros((side, side), dtype=bool)
    c = side // 2
    if width == 1:
        major, minor, swap = (abs(dx), abs(dy), False) if abs(dx) > abs(dy) else (abs(dy), abs(dx), True)
        error, across = 2 * minor - major, 0
        for along in range(major):
            step = (along, across) if swap else (across, along)
            out[c + int(math.copysign(step[0], dy)), c + int(math.copysign(step[1], dx))] = True
            if error >= 0:
                across, error = across + 1, error - 2 * major
            error += 2 * minor
        out[c + dy, c + dx] = True
        return out
    # a wide line is a quadrilateral of whole pixels, filled row by row
    away_from_0 = lambda v: int(math.copysign(math.floor(abs(v) + 0.5), v))  # noqa: E731
    towards_0 = lambda v: int(math.copysign(math.ceil(abs(v) - 0.5), v))  # noqa: E731
    length, half = math.hypot(dy, dx), (width - 1) / 2
    thin, thick = towards_0(half) / length, away_from_0(half) / length
    corners = [
        (dy * far + side_y, dx * far + side_x)
        for far, side_y, side_x in (
            (0, towards_0(thick * dx), -towards_0(thin * dy)),
            (1, towards_0(thick * dx), -towards_0(thin * dy)),
            (1, -towards_0(thin * dx), towards_0(thick * dy)),
            (0, -towards_0(thin * dx), towards_0(thick * dy)),
        )
    ]
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))
    for y in range(min(p[0] for p in corners), max(p[0] for p in corners) + 1):
        xs: list[float] = []
        for (y0, x0), (y1, x1) in edges:
            if y0 == y1 == y:
                xs += [x0, x1]
            elif y0 != y1 and min(y0, y1) <= y <= max(y0, y1):
                xs.append(c + x0 + (y - y0) * (x1 - x0) / (y1 - y0) - c)
        out[c + y, away_from_0(c + min(xs)) : towards_0(c + max(xs)) + 1] = True
    return out


def dilate(picture: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Binary dilation by a symmetric set of offsets; nothing comes in from outside."""
    out = np.zeros_like(picture)
    h, w = picture.shape
    for y, x in offsets:
        out[max(0, y) : h + min(0, y), max(0, x) : w + min(0, x)] |= picture[
            max(0, -y) : h + min(0, -y), max(0, -x) : w + min(0, -x)
        ]
    return out


def lanczos(big: int, small: int) -> np.ndarray:
    """(small, big) float64: the separable shrinking operator (a = 3), windows cut at the border and normalised."""
    scale = big / small
    operator = np.zeros((small, big))
    for i in range(small):
        centre = (i + 0.5) * scale
        first, last = max(0, int(centre - 3 * scale + 0.5)), min(big, int(centre + 3 * scale + 0.5))
        x = (np.arange(first, last) - centre + 0.5) / scale
        window = np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0.0)
        operator[i, first:last] = window / window.sum()
    return operator


def shrink_float(picture: np.ndarray, operator: np.ndarray) -> np.ndarray:
    """Rows, then columns, unclipped, float32 between: as Pillow shrinks a float picture."""
    rows = np.einsum("yX,xX->yx", picture, operator).astype(np.float32)
    return np.einsum("yY,Yx->yx", operator, rows).astype(np.float32)


def shrink_bytes(picture: np.ndarray, operator: np.ndarray) -> np.ndarray:
    """The same in 22-bit fixed point with clipping to 0 … 255 after each direction: as Pillow shrinks 8 bits."""
    fixed = np.trunc(operator * 2**22 + np.copysign(0.5, operator)).astype(np.int64)
    rows = np.clip((picture.astype(np.int64) @ fixed.T + 2**21) >> 22, 0, 255)
    return np.clip((fixed @ rows + 2**21) >> 22, 0, 255).astype(np.uint8)


def patch(level: Level, margin: int, end: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One dash around its start: brightness (S, S) float32 and mask (S, S) uint8."""
    reach = level.length + math.ceil(level.thickness) + margin
    big, small = 2 * reach * AA + 1, 2 * reach + 1
    drawn = line(big, *end, round(level.thickness * AA))
    operator = lanczos(big, small)
    lit = shrink_float(drawn * 255.0, operator) / np.float32(255)
    return lit, shrink_bytes(dilate(drawn, disc(margin * AA)) * 255, operator)


def turns_of(radius: int) -> np.ndarray:
    """(C, 2) distinct whole-pixel points of a circle, sampled once per pixel of its circumference."""
    angles = np.arange(0, 360, 360.0 / (2 * math.pi * radius)) * math.pi / 180
    points = np.stack([radius * np.sin(angles), radius * np.cos(angles)], 1)
    return np.unique(np.floor(np.round(points, 9)).astype(np.int64), axis=0)


def turn_weight(delta: float, continuity: float) -> float:
    """cos^2 of the turn stretched by the continuity; nothing beyond 90 degrees. The last bits are dropped."""
    turn = min(abs(delta), 2 * math.pi - abs(delta))
    return round(max(math.cos(min(continuity * turn, math.pi / 2)), 0.0) ** 2, 12)


@cache
def tables(level: Level) -> Tables:
    """The tables of a level."""
    degrees = [d * math.pi / 180 for d in range(-180, 180)]
    L, K = level.length, len(level.margins)
    reach = np.array([L + math.ceil(level.thickness) + m for m in level.margins])
    turns = [turns_of(L + m) for m in level.margins]
    angles = [[math.atan2(y, x) for y, x in t.tolist()] for t in turns]
    seed_ends = [[end_of(t, r, L) for t in degrees] for r in reach.tolist()]
    turn_ends = [[end_of(opposite(t), r, L) for t in a] for a, r in zip(angles, reach.tolist(), strict=True)]
    ends = sorted({end for group in (*seed_ends, *turn_ends) for end in group})
    number = {end: i for i, end in enumerate(ends)}
    C, S = max(map(len, turns)), 2 * int(reach.max()) + 1
    lines, masks = np.zeros((K, len(ends), S, S), np.float32), np.zeros((K, len(ends), S, S), np.uint8)
    value = (np.arange(256) / 255).astype(np.float32).astype(np.float64)
    sums = value[:, None] + value[None, :] >= 1.8
    out = Tables(
        lines=lines,
        masks=masks,
        extent=np.zeros((K, len(ends), 4), np.int64),
        reach=reach,
        seed_patch=np.array([[number[end] for end in group] for group in seed_ends]),
        seed_head=np.array([away(t, L) for t in degrees]),
        seed_pivot=np.array([[away(opposite(t), L + m) for t in degrees] for m in level.margins]),
        seed_box=np.zeros((K, 360, 4), np.int64),
        kernel=np.zeros((K, 360, (2 * (L + max(level.margins)) + 1) ** 2, 2), np.int64),
        n_kernel=np.zeros((K, 360), np.int64),
        second=np.array([away(d * math.pi / 180, level.seed_distance) for d in range(360)]),
        turns=np.zeros((K, C, 2), np.int64),
        n_turns=np.array([len(t) for t in turns]),
        turn_patch=np.zeros((K, C), np.int64),
        jump=np.zeros((K, 360 + C, 2)),
        weights=np.zeros((K, 360 + C, C)),
        near=np.zeros((K, len(disc(max(level.margins))), 2), np.int64),
        n_near=np.array([len(disc(m)) for m in level.margins]),
        value=value,
        clash=np.where(sums.any(1), sums.argmax(1), 256),
        shrink=lanczos(level.resolution * AA, level.resolution),
        margins=np.array(level.margins),
        resolution=level.resolution,
        padding=level.padding,
        distractors=level.distractors,
        target_contrast=level.target_contrast,
        distractor_contrast=level.distractor_contrast,
        marker_radius=level.marker_radius,
        target_dashes=level.target_dashes,
        distractor_dashes=level.distractor_dashes,
    )
    for k, m in enumerate(level.margins):
        side = slice(S // 2 - reach[k], S // 2 + reach[k] + 1)
        for i, end in enumerate(ends):
            lines[k, i, side, side], masks[k, i, side, side] = patch(level, m, end)
            there = np.argwhere(masks[k, i]) - S // 2
            out.extent[k, i] = *there[:, 0][[0, -1]], there[:, 1].min(), there[:, 1].max()
        n = len(turns[k])
        out.turns[k, :n] = turns[k]
        out.turn_patch[k, :n] = [number[end] for end in turn_ends[k]]
        out.near[k, : out.n_near[k]] = disc(m)
        for i, theta in enumerate([*degrees, *angles[k]]):
            out.jump[k, i] = away(theta, L + 2 * m)
            out.weights[k, i, :n] = [turn_weight(to - theta, level.continuity) for to in angles[k]]
        for i in range(360):
            _seed_room(out, level, k, i)
    return out


def _seed_room(out: Tables, level: Level, k: int, i: int) -> None:
    """Where a seed of direction i fits: its footprint, and the box that keeps the first target near the middle.

    The original looks for room with the footprint drawn one pixel down and right of the tail, on a canvas that cuts
    it, and with only those pixels whose mask is exactly 1.
    """
    half = level.length + level.margins[k]
    mask = out.masks[k, out.seed_patch[k, i]]
    offsets = np.argwhere(mask == 255) - mask.shape[0] // 2 + 1
    offsets = offsets[(np.abs(offsets) <= half).all(1)]
    lowest, highest = offsets.min(0), offsets.max(0)
    out.kernel[k, i, : len(offsets)] = offsets
    # a footprint that leaves the picture wholly when the tail is in a corner: the original then finds no room at all
    corners = [(y, x) for y in (-1, 1) for x in (-1, 1)]
    lost = any(((offsets * corner) > 0).any(1).all() for corner in corners)
    out.n_kernel[k, i] = -1 if lost else len(offsets)
    first, last = 2 * level.seed_distance, out.resolution - 1 - 2 * level.seed_distance
    out.seed_box[k, i] = first - lowest[0], last - highest[0], first - lowest[1], last - highest[1]
    if out.n_kernel[k, i] < 0:
        out.seed_box[k, i] = 0, -1, 0, -1
