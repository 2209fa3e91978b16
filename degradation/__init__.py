"""Synthetic degradations: seeded, labelled with a severity 0..1 per slot, identity at 0.

Images are float32 [H, W, 3], sRGB in [0, 1]; ``from_uint8`` and ``to_uint8`` convert. The module of each kind
records its exact map from severity to physical units. OpenCV's thread count is left to the caller.
"""

from __future__ import annotations

from uare_rt.degradation.blur import blur_sigma, severity_of_blur_sigma
from uare_rt.degradation.clip import DegradedClip, degrade_clip, h264_crf
from uare_rt.degradation.composition import (
    CAMERA_ORDER,
    VARIANTS,
    Degraded,
    Step,
    camera_order,
    combine,
    compose,
    degrade,
)
from uare_rt.degradation.compression import jpeg_quality, severity_of_jpeg_quality
from uare_rt.degradation.haze import haze_transmission, severity_of_haze_transmission
from uare_rt.degradation.light import from_uint8, linear_to_srgb, srgb_to_linear, to_uint8
from uare_rt.degradation.low_light import light_gain, severity_of_light_gain
from uare_rt.degradation.low_resolution import resolution_factor, severity_of_resolution_factor
from uare_rt.degradation.mixtures import Mixture, sample_steps, second_order
from uare_rt.degradation.noise import noise_sigma, severity_of_noise_sigma

__all__ = [
    "CAMERA_ORDER",
    "VARIANTS",
    "Degraded",
    "DegradedClip",
    "Mixture",
    "Step",
    "blur_sigma",
    "camera_order",
    "combine",
    "compose",
    "degrade",
    "degrade_clip",
    "from_uint8",
    "h264_crf",
    "haze_transmission",
    "jpeg_quality",
    "light_gain",
    "linear_to_srgb",
    "noise_sigma",
    "resolution_factor",
    "sample_steps",
    "second_order",
    "severity_of_blur_sigma",
    "severity_of_haze_transmission",
    "severity_of_jpeg_quality",
    "severity_of_light_gain",
    "severity_of_noise_sigma",
    "severity_of_resolution_factor",
    "srgb_to_linear",
    "to_uint8",
]
