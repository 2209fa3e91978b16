"""Under-exposure, with the read noise that it uncovers.

Map: ``gain`` multiplies linear light by 0.06^severity (severity 0.43: 0.3, 0.67: 0.15, 1: 0.06);
``gamma`` raises sRGB to 1 + 2.1 * severity, which darkens mid-grey as much and spares the highlights.
Then comes white Gaussian read noise in sRGB, sigma = r * min(1, 2 * severity) 8-bit levels with r drawn from 1..7;
the label says so under ``noise``.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from uare_rt.degradation.effect import Effect
from uare_rt.degradation.light import FloatImage, linear_to_srgb, srgb_to_linear
from uare_rt.degradation.noise import severity_of_noise_sigma

__all__ = ["VARIANTS", "draw", "light_gain", "severity_of_light_gain"]

VARIANTS: Mapping[str, float] = {"gain": 0.75, "gamma": 0.25}

_FULL_GAIN = 0.06


def light_gain(severity: float) -> float:
    """Factor on linear light, 1 down to 0.06, at a severity 0..1."""
    return float(_FULL_GAIN**severity)


def severity_of_light_gain(gain: float) -> float:
    """Severity 0..1 of a factor on linear light in (0, 1]; below 0.06 it stays 1."""
    return float(min(1.0, np.log(gain) / np.log(_FULL_GAIN)))


def draw(severity: float, rng: np.random.Generator, variant: str) -> Effect:
    """Draw a low-light effect of one of ``VARIANTS``."""
    sigma = rng.uniform(1, 7) * min(1.0, 2 * severity)

    def darkened(image: FloatImage, rng: np.random.Generator) -> FloatImage:
        if variant == "gain":
            dark = linear_to_srgb(srgb_to_linear(image) * np.float32(light_gain(severity)))
        else:
            dark = np.asarray(cv2.pow(image, 1 + 2.1 * severity), dtype=np.float32)
        field = rng.standard_normal(image.shape, dtype=np.float32)
        field *= np.float32(sigma / 255)
        field += dark
        return np.clip(field, 0, 1, out=field)

    return Effect(darkened, {"low_light": severity, "noise": severity_of_noise_sigma(sigma)})
