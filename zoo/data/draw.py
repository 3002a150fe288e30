"""Pictures in a terminal: half blocks in colour, or shades as plain text."""

from __future__ import annotations

import numpy as np

SHADES = " .:-=+*#%@"


def to_rgb(picture: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 -> (H, W, 3)"""
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def shrink(picture: np.ndarray, columns: int) -> np.ndarray:
    """Shrink a picture wider than `columns` by a whole factor: the brightest of each square, so that thin lines
    survive."""
    factor = -(-picture.shape[1] // max(1, columns))
    if factor == 1:
        return picture
    h, w = (-(-side // factor) * factor for side in picture.shape[:2])
    padded = np.zeros((h, w, *picture.shape[2:]), np.uint8)
    padded[: picture.shape[0], : picture.shape[1]] = picture
    return padded.reshape(h // factor, factor, w // factor, factor, *picture.shape[2:]).max((1, 3))


def half_blocks(picture: np.ndarray, columns: int) -> str:
    """Two pixels to a character, in 24-bit colour (ANSI)."""
    pixels = to_rgb(shrink(picture, columns))
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    lines = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m▀"
            for a, b in zip(upper.tolist(), lower.tolist(), strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def shades(picture: np.ndarray, columns: int) -> str:
    """Two characters to a pixel, without colours."""
    grey = to_rgb(shrink(picture, columns // 2)).mean(2)
    levels = np.minimum(grey / 256 * len(SHADES), len(SHADES) - 1).astype(int)
    return "\n".join("".join(SHADES[v] * 2 for v in row).rstrip() for row in levels.tolist())
