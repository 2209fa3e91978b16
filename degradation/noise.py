"""Sensor and processing noise.

Map: sigma = 60 * severity, in 8-bit levels (severity 0.25, 0.42, 0.83 for sigma 15, 25, 50).

- ``gaussian``: white, in sRGB.
- ``poisson_gaussian``: shot and read noise in linear light, variance a*x + b (the Gaussian approximation of Poisson);
  to first order the sRGB deviation is sigma at mid-grey (sRGB 0.5), 50 to 95 % of that variance being shot noise.
- ``correlated``: Gaussian noise smoothed by 0.5 to 1.5 px, as demosaicking and in-camera denoising leave it.
- ``per_channel``: channels of unequal strength with up to 90 % of the luma part removed: blotches of colour.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from uare_rt.degradation.effect import Effect
from uare_rt.degradation.light import FloatImage, linear_to_srgb, srgb_to_linear

__all__ = ["VARIANTS", "draw", "noise_sigma", "severity_of_noise_sigma"]

VARIANTS: Mapping[str, float] = {"gaussian": 0.4, "poisson_gaussian": 0.25, "correlated": 0.2, "per_channel": 0.15}

_FULL_SIGMA = 60.0
_MID_GREY = 0.2140  # linear light of sRGB 0.5
_MID_SLOPE = 1.0795  # d sRGB / d linear there


def noise_sigma(severity: float) -> float:
    """Standard deviation in 8-bit levels at a severity 0..1."""
    return _FULL_SIGMA * severity


def severity_of_noise_sigma(sigma: float) -> float:
    """Severity 0..1 of a standard deviation in 8-bit levels; above 60 it stays 1."""
    return min(1.0, sigma / _FULL_SIGMA)


def draw(severity: float, rng: np.random.Generator, variant: str) -> Effect:
    """Draw a noise effect of one of ``VARIANTS``."""
    sigma = np.float32(noise_sigma(severity) / 255)
    shot_share, radius, luma_removed = rng.uniform(0.5, 0.95), rng.uniform(0.5, 1.5), rng.uniform(0.3, 0.9)
    gains = rng.uniform(0.4, 1.6, 3)

    def white(image: FloatImage, rng: np.random.Generator) -> FloatImage:
        return rng.standard_normal(image.shape, dtype=np.float32)

    def gaussian(image: FloatImage, rng: np.random.Generator) -> FloatImage:
        field = white(image, rng)
        field *= sigma
        field += image
        return np.clip(field, 0, 1, out=field)

    def poisson_gaussian(image: FloatImage, rng: np.random.Generator) -> FloatImage:
        light = srgb_to_linear(image)
        variance = (float(sigma) / _MID_SLOPE) ** 2
        deviation = light * np.float32(shot_share * variance / _MID_GREY)
        deviation += np.float32((1 - shot_share) * variance)
        field = white(image, rng)
        field *= np.sqrt(deviation, out=deviation)
        field += light
        return linear_to_srgb(field)

    def correlated(image: FloatImage, rng: np.random.Generator) -> FloatImage:
        size = 2 * int(np.ceil(3 * radius)) + 1
        taps = cv2.getGaussianKernel(size, radius, cv2.CV_32F)
        energy = float((taps**2).sum())  # per axis: the deviation left by smoothing, to be given back
        smooth = cv2.sepFilter2D(white(image, rng), -1, taps, taps, borderType=cv2.BORDER_REFLECT)
        field = np.asarray(smooth, dtype=np.float32)
        field *= sigma / np.float32(energy)
        field += image
        return np.clip(field, 0, 1, out=field)

    def per_channel(image: FloatImage, rng: np.random.Generator) -> FloatImage:
        mix = (np.eye(3) - luma_removed / 3) * gains
        mix *= float(sigma) * np.sqrt(3 / (mix**2).sum())  # mean variance of the channels = sigma^2
        field = np.asarray(cv2.transform(white(image, rng), mix.astype(np.float32)), dtype=np.float32)
        field += image
        return np.clip(field, 0, 1, out=field)

    apply = {
        "gaussian": gaussian,
        "poisson_gaussian": poisson_gaussian,
        "correlated": correlated,
        "per_channel": per_channel,
    }
    return Effect(apply[variant], {"noise": severity})
