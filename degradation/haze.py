"""Haze: scattering in linear light, I = t * J + (1 - t) * A (Koschmieder's law), with a smooth transmission t.

Map: the mean of t is 1 - 0.7 * severity (severity 0.64: 0.55, 1: 0.3). A 4x4 grid g, uniform in -1..1 and upsampled
bicubically, gives t = 1 - 0.7 * severity * (1 + w * g), w drawn from 0.2..0.5, kept in 0.05..1.
The airlight A is drawn from 0.7..0.95 with a tint of up to 0.04 per channel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from uare_rt.degradation.effect import Effect
from uare_rt.degradation.light import FloatImage, linear_to_srgb, srgb_to_linear

__all__ = ["VARIANTS", "draw", "haze_transmission", "severity_of_haze_transmission"]

VARIANTS: Mapping[str, float] = {"scattering": 1.0}

_FULL_OPACITY = 0.7


def haze_transmission(severity: float) -> float:
    """Mean transmission, 1 down to 0.3, at a severity 0..1."""
    return 1 - _FULL_OPACITY * severity


def severity_of_haze_transmission(transmission: float) -> float:
    """Severity 0..1 of a mean transmission 0..1; below 0.3 it stays 1."""
    return min(1.0, (1 - transmission) / _FULL_OPACITY)


def draw(severity: float, rng: np.random.Generator, variant: str) -> Effect:
    """Draw a haze effect of one of ``VARIANTS``."""
    grid = rng.uniform(-1, 1, (4, 4)) * rng.uniform(0.2, 0.5)
    airlight = np.clip(rng.uniform(0.7, 0.95) + rng.uniform(-0.04, 0.04, 3), 0, 1).astype(np.float32)
    coarse = Image.fromarray((1 - (1 - haze_transmission(severity)) * (1 + grid)).astype(np.float32))

    def hazed(image: FloatImage, rng: np.random.Generator) -> FloatImage:
        fine = coarse.resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC)
        t = np.clip(np.asarray(fine), 0.05, 1)[..., None]
        light = srgb_to_linear(image)
        light -= airlight
        light *= t
        light += airlight
        return linear_to_srgb(light)

    return Effect(hazed, {"haze": severity})
