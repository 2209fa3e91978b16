"""Conversions every degradation shares: sRGB and linear light, 8-bit levels and floats.

The transfer function is that of IEC 61966-2-1, read from tables fine enough for an error below 3e-5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FloatImage", "from_uint8", "linear_to_srgb", "srgb_to_linear", "to_uint8"]

FloatImage = NDArray[np.float32]
"""float32 [H, W, 3], RGB in [0, 1]; sRGB unless said otherwise."""

_STEPS = 1 << 18  # the steepest slope (12.92) over half a step gives 2.5e-5
_GRID = np.arange(_STEPS + 1) / _STEPS
_TO_LINEAR = np.where(_GRID <= 0.04045, _GRID / 12.92, ((_GRID + 0.055) / 1.055) ** 2.4).astype(np.float32)
_TO_SRGB = np.where(_GRID <= 0.0031308, _GRID * 12.92, 1.055 * _GRID ** (1 / 2.4) - 0.055).astype(np.float32)


def _look_up(table: FloatImage, values: FloatImage) -> FloatImage:
    return table.take((values * np.float32(_STEPS) + np.float32(0.5)).astype(np.int32), mode="clip")


def srgb_to_linear(image: FloatImage) -> FloatImage:
    """Decode sRGB to linear light: float32 of any shape, clipped to [0, 1], same shape."""
    return _look_up(_TO_LINEAR, image)


def linear_to_srgb(image: FloatImage) -> FloatImage:
    """Encode linear light as sRGB: float32 of any shape, clipped to [0, 1], same shape."""
    return _look_up(_TO_SRGB, image)


def to_uint8(image: FloatImage) -> NDArray[np.uint8]:
    """Round [0, 1] to the nearest of 256 levels, clipping: float32 of any shape to uint8."""
    scaled = image * np.float32(255)
    scaled += np.float32(0.5)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def from_uint8(image: NDArray[np.uint8]) -> FloatImage:
    """8-bit levels as floats in [0, 1]: uint8 of any shape to float32."""
    return image.astype(np.float32) / np.float32(255)
