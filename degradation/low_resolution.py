"""Loss of resolution: down by a factor and up again to the original size.

Map: factor = 1 + 4 * severity (severity 0.25: x2, 0.75: x4, 1: x5).
Variants name the antialiased kernel on the way down: ``bicubic``, ``area``, ``bilinear``, ``lanczos``;
the way up is bicubic (75 %) or bilinear. The small picture has 8-bit levels, as a stored thumbnail or frame has.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from uare_rt.degradation.effect import Effect
from uare_rt.degradation.light import FloatImage, from_uint8, to_uint8

__all__ = ["VARIANTS", "draw", "resolution_factor", "severity_of_resolution_factor"]

VARIANTS: Mapping[str, float] = {"bicubic": 0.4, "area": 0.25, "bilinear": 0.2, "lanczos": 0.15}

_FULL_FACTOR = 5.0
_KERNELS = {
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


def resolution_factor(severity: float) -> float:
    """How many times smaller each side becomes, 1..5, at a severity 0..1."""
    return 1 + (_FULL_FACTOR - 1) * severity


def severity_of_resolution_factor(factor: float) -> float:
    """Severity 0..1 of a downscaling factor >= 1; above 5 it stays 1."""
    return min(1.0, max(0.0, (factor - 1) / (_FULL_FACTOR - 1)))


def draw(severity: float, rng: np.random.Generator, variant: str) -> Effect:
    """Draw a resolution effect of one of ``VARIANTS``."""
    up = Image.Resampling.BICUBIC if rng.random() < 0.75 else Image.Resampling.BILINEAR
    factor = resolution_factor(severity)

    def resampled(image: FloatImage, rng: np.random.Generator) -> FloatImage:
        height, width = image.shape[:2]
        small = (max(1, round(width / factor)), max(1, round(height / factor)))
        picture = Image.fromarray(to_uint8(image)).resize(small, _KERNELS[variant])
        return from_uint8(np.asarray(picture.resize((width, height), up)))

    return Effect(resampled, {"low_resolution": severity})
