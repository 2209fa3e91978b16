"""Optical and motion blur.

Map: the deviation of the point spread is sigma = 4 * severity px (severity 0.25 and 0.5 for sigma 1 and 2).

- ``gaussian``: round, in sRGB.
- ``anisotropic``: Gaussian of any direction in sRGB, 1.2 * sigma along and 0.25 to 0.8 of that across.
- ``defocus``: disk of radius 7.5 * severity px with a soft rim of 1 px, in linear light.
- ``motion``: straight line of 24 * severity px at any angle, in linear light.

The image is continued by its edge pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from uare_rt.degradation.effect import Effect
from uare_rt.degradation.light import FloatImage, linear_to_srgb, srgb_to_linear

__all__ = ["VARIANTS", "blur_sigma", "draw", "severity_of_blur_sigma"]

VARIANTS: Mapping[str, float] = {"gaussian": 0.45, "anisotropic": 0.2, "defocus": 0.2, "motion": 0.15}

_FULL_SIGMA = 4.0
_FULL_RADIUS = 7.5
_FULL_LENGTH = 24.0


def blur_sigma(severity: float) -> float:
    """Deviation of the Gaussian in pixels at a severity 0..1."""
    return _FULL_SIGMA * severity


def severity_of_blur_sigma(sigma: float) -> float:
    """Severity 0..1 of a Gaussian blur of ``sigma`` pixels; above 4 it stays 1."""
    return min(1.0, sigma / _FULL_SIGMA)


def _offsets(reach: float) -> tuple[FloatImage, FloatImage]:
    half = max(1, int(np.ceil(reach)))
    axis = np.arange(-half, half + 1, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def _anisotropic_kernel(along: float, across: float, angle: float) -> FloatImage:
    x, y = _offsets(3 * along)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    # Below 0.2 px nothing reaches the neighbouring samples; the floor keeps the exponent finite.
    kernel = np.exp(-0.5 * ((u / max(along, 0.2)) ** 2 + (v / max(across, 0.2)) ** 2))
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _disk_kernel(radius: float) -> FloatImage:
    x, y = _offsets(radius + 1)
    kernel = np.clip(radius + 1 - np.hypot(x, y), 0, 1)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _line_kernel(length: float, angle: float) -> FloatImage:
    x, y = _offsets(length / 2 + 1)
    along = np.linspace(-length / 2, length / 2, 2 * int(np.ceil(length)) + 1, dtype=np.float32)
    px, py = along * np.cos(angle), along * np.sin(angle)
    # Each point of the path is shared bilinearly by the four taps around it; the kernel is their sum.
    rows = np.clip(1 - np.abs(y[:, :1] - py), 0, 1)
    columns = np.clip(1 - np.abs(x[:1].T - px), 0, 1)
    return np.asarray(rows @ columns.T / len(along), dtype=np.float32)


def draw(severity: float, rng: np.random.Generator, variant: str) -> Effect:
    """Draw a blur effect of one of ``VARIANTS``."""
    sigma = blur_sigma(severity)
    angle, ratio = rng.uniform(0, np.pi), rng.uniform(0.25, 0.8)
    if variant == "gaussian":
        size = 2 * int(np.ceil(3.5 * sigma)) + 1
        taps = cv2.getGaussianKernel(size, sigma, cv2.CV_32F)

        def separable(image: FloatImage, rng: np.random.Generator) -> FloatImage:
            return np.asarray(cv2.sepFilter2D(image, -1, taps, taps, borderType=cv2.BORDER_REPLICATE), np.float32)

        return Effect(separable, {"blur": severity})

    if variant == "anisotropic":
        kernel = _anisotropic_kernel(1.2 * sigma, 1.2 * sigma * ratio, angle)
    elif variant == "defocus":
        kernel = _disk_kernel(_FULL_RADIUS * severity)
    else:
        kernel = _line_kernel(_FULL_LENGTH * severity, angle)

    in_linear_light = variant != "anisotropic"

    def filtered(image: FloatImage, rng: np.random.Generator) -> FloatImage:
        source = srgb_to_linear(image) if in_linear_light else image
        result = np.asarray(cv2.filter2D(source, -1, kernel, borderType=cv2.BORDER_REPLICATE), dtype=np.float32)
        return linear_to_srgb(result) if in_linear_light else np.clip(result, 0, 1, out=result)

    return Effect(filtered, {"blur": severity})
