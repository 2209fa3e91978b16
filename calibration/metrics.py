"""How near a picture is to the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["psnr", "spearman", "ssim"]

_LEAST_ERROR = 1e-3  # in squared 8-bit levels: two equal pictures have 78 dB
_SIGMA, _RADIUS = 1.5, 5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(result: NDArray[np.floating], truth: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB, at most 78.

    Args:
        result: in 8-bit levels, [H, W, 3]; rounded and clipped first, as a file would hold it.
        truth: uint8 [H, W, 3].
    """
    error = float(np.mean((np.clip(np.rint(result.astype(np.float64)), 0, 255) - truth) ** 2))
    return float(10 * np.log10(255**2 / max(error, _LEAST_ERROR)))


def ssim(result: NDArray[np.floating], truth: NDArray[np.uint8]) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian window of 1.5 px, mean of the channels.

    Args:
        result: in 8-bit levels, [H, W, 3].
        truth: uint8 [H, W, 3].
    """
    x, y = result.astype(np.float64), truth.astype(np.float64)

    def blur(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(values, (2 * _RADIUS + 1,) * 2, _SIGMA, borderType=cv2.BORDER_REFLECT))

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    values = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    values /= (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2)
    return float(values[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS].mean())


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation of two lists of the same length; 1 where one of them is constant and both are equal."""
    a, b = _ranks(np.asarray(first)), _ranks(np.asarray(second))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm else float(np.array_equal(first, second))


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last - (counts + 1) / 2)[inverse]
