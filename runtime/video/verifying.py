"""Whether a restoration helped: the score must not fall, and the picture must still show the same things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.video.frames import Pixels

__all__ = ["LEAST_LIKENESS", "complaint", "likeness"]

LEAST_LIKENESS = 0.7
"""Of structure, below which the result no longer shows what the input shows."""
_SCORE_SLACK = 0.05  # of 1..5: below what repeated assessments of one scene differ by
_SIDE = 160  # px of the pictures that are compared: noise and fine texture are gone, things are still there
_WINDOW = 8
_FLAT = 4.0  # standard deviation in levels of 255 below which a window has no structure to lose


def complaint(before: float, after: float, original: Pixels, restored: Pixels) -> str | None:
    """What speaks against a result; None when nothing does.

    Args:
        before: score of the input, 1..5.
        after: score of the result.
        original: the input, uint8 or uint16 [H, W, 3].
        restored: the result, the same type, [scale * H, scale * W, 3].
    """
    if after < before - _SCORE_SLACK:
        return f"the score fell from {before:.2f} to {after:.2f}"
    alike = likeness(original, restored)
    if alike < LEAST_LIKENESS:
        return f"the content changed (likeness {alike:.2f}, least {LEAST_LIKENESS})"
    return None


def likeness(original: Pixels, restored: Pixels) -> float:
    """How far two pictures show the same structure whatever their light and contrast, 1 for the same.

    The structure term of SSIM (correlation inside windows; Wang et al. 2004, eq. 10) on small grey pictures, averaged
    over the windows where the input has structure.
    """
    a, b = _windows(original), _windows(restored)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    deviation_a, deviation_b = a.std(axis=1), b.std(axis=1)
    structured = deviation_a > _FLAT
    if not structured.any():
        return 1.0
    covariance = (a * b).mean(axis=1)[structured]
    product = (deviation_a * deviation_b)[structured]
    return float((covariance / np.maximum(product, 1e-6)).mean())


def _windows(pixels: Pixels) -> NDArray[np.float32]:
    """Windows of a small grey picture: float32 [windows, px]."""
    green = pixels[..., 1] if pixels.dtype == np.uint8 else (pixels[..., 1] >> 8).astype(np.uint8)
    grey = Image.fromarray(np.ascontiguousarray(green)).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    tiles = np.asarray(grey, np.float32).reshape(_SIDE // _WINDOW, _WINDOW, _SIDE // _WINDOW, _WINDOW)
    return np.asarray(tiles.swapaxes(1, 2).reshape(-1, _WINDOW * _WINDOW))
