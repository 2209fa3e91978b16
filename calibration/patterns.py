"""Pictures made of random leaves, for calibration where no photographs were given.

Opaque shapes of many sizes that cover each other have the edges and the power spectrum of photographs (Lee, Mumford
and Huang, 2001). Their ranges are no substitute for the pictures a camera will see, and the manifest says so.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["dead_leaves"]

_LEAVES = 700
_SMALLEST = 0.008  # of the side


def dead_leaves(side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One picture.

    Args:
        side: height and width in px.
        rng: source of every random choice.

    Returns:
        uint8 [side, side, 3], sRGB.
    """
    tone = rng.uniform(0.25, 0.75)
    picture = np.full((side, side, 3), 255 * tone, np.float32)
    # The density of radii falls with their cube; the smallest are drawn last and lie on top less often than here,
    # which keeps detail everywhere.
    radii = np.sort(_SMALLEST / np.sqrt(1 - rng.random(_LEAVES) * (1 - (_SMALLEST / 0.5) ** 2)))[::-1]
    for radius in radii:
        centre = tuple(int(c) for c in rng.integers(0, side, 2))
        axes = (max(1, int(radius * side)), max(1, int(radius * side * rng.uniform(0.4, 1.0))))
        colour = np.clip(rng.normal(255 * tone, 75) + rng.normal(0, 35, 3), 0, 255)
        cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour.tolist(), -1, cv2.LINE_AA)
    grain = cv2.GaussianBlur(rng.normal(0, 14, picture.shape).astype(np.float32), (0, 0), 1.0)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side
    light = 1 + 0.35 * (rng.uniform(-1, 1) * (rows - 0.5) + rng.uniform(-1, 1) * (columns - 0.5)) * 2
    return np.clip(np.rint((picture + grain) * light[..., None]), 0, 255).astype(np.uint8)
