"""Lossy coding of single images.

Map: quality = 5 + 95 * (1 - severity)^1.63 for JPEG (severity 0.1: 85, 0.46: 40, 0.68: 20, 0.84: 10, 1: 5);
WebP, stronger at the same number, uses 100 * (1 - severity)^1.63. Both are rounded to whole numbers.

- ``jpeg_420``: chroma at half resolution, as cameras and the web write it.
- ``jpeg_444``: full chroma.
- ``webp``: lossy WebP (VP8 key frame).

The codecs see 8-bit levels and return them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from uare_rt.degradation.effect import Effect
from uare_rt.degradation.light import FloatImage, from_uint8, to_uint8

__all__ = ["VARIANTS", "draw", "jpeg_quality", "severity_of_jpeg_quality"]

VARIANTS: Mapping[str, float] = {"jpeg_420": 0.6, "jpeg_444": 0.2, "webp": 0.2}

_EXPONENT = 1.63


def jpeg_quality(severity: float) -> int:
    """JPEG quality, 100 down to 5, at a severity 0..1."""
    return round(5 + 95 * float((1 - severity) ** _EXPONENT))


def severity_of_jpeg_quality(quality: float) -> float:
    """Severity 0..1 of a JPEG quality 5..100; below 5 it stays 1."""
    return float(1 - (np.clip(quality - 5, 0, 95) / 95) ** (1 / _EXPONENT))


def draw(severity: float, rng: np.random.Generator, variant: str) -> Effect:
    """Draw a compression effect of one of ``VARIANTS``."""
    if variant == "webp":
        options = {"format": "WEBP", "quality": round(100 * (1 - severity) ** _EXPONENT), "method": 0}
    else:
        subsampling = 0 if variant == "jpeg_444" else 2
        options = {"format": "JPEG", "quality": jpeg_quality(severity), "subsampling": subsampling}

    def coded(image: FloatImage, rng: np.random.Generator) -> FloatImage:
        buffer = io.BytesIO()
        Image.fromarray(to_uint8(image)).save(buffer, **options)
        with Image.open(buffer) as decoded:
            return from_uint8(np.asarray(decoded.convert("RGB")))

    return Effect(coded, {"compression": severity})
