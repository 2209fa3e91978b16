"""The full-reference teacher: how good a picture is, given its truth.

``quality`` blends five measures (`uare_rt.training.fidelity`): each is mapped to 1..5 by a monotone curve of its own,
and their weighted mean by one more. Curves and weights are data, `teacher.yaml` beside this file, written by
`benchmarks/fit_teacher.py`, whose docstring says what they were fitted to. The levels follow the impairment scale of
ITU-R BT.500: 5 cannot be told from the truth, 4 can be seen but does not disturb, 3 disturbs a little, 2 disturbs,
1 is ruined.

The scale is MOS-like: its anchors are mean opinions per kind and strength of distortion, not ratings of our pictures.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import yaml

from uare_rt.training.fidelity import (
    checked_pair,
    gradient_deviation,
    luma,
    mean_deviation,
    multi_scale_ssim,
    signal_to_noise,
    visual_information,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Curve", "Teacher", "measures", "quality", "shipped_teacher"]


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A monotone map, linear between its knots and constant beyond them.

    Attributes:
        at: values of the measure, rising.
        score: the scores there, all rising or all falling.
    """

    at: tuple[float, ...]
    score: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """The score of a value."""
        return float(np.interp(value, self.at, self.score))


class Teacher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The blend.

    Attributes:
        curves: for every measure its map to 1..5.
        weights: for every measure its share of the mean; they sum to 1.
        blend: maps that mean to the quality.
    """

    curves: dict[str, Curve]
    weights: dict[str, float]
    blend: Curve

    def mean_of(self, values: Mapping[str, float]) -> float:
        """The weighted mean of the mapped measures, before the last curve."""
        return sum(weight * self.curves[name](values[name]) for name, weight in self.weights.items())

    def of(self, values: Mapping[str, float]) -> float:
        """Quality 1..5 of what `measures` found."""
        return self.blend(self.mean_of(values))


def measures(clean: NDArray[np.uint8], degraded: NDArray[np.uint8]) -> dict[str, float]:
    """What the teacher looks at, by name.

    Args:
        clean: uint8 [H, W, 3], RGB, the truth.
        degraded: uint8, same shape.

    Raises:
        InputError: the pictures cannot be compared.
    """
    checked_pair(clean, degraded)
    lumas = luma(clean), luma(degraded)
    return {
        "psnr": signal_to_noise(clean, degraded),
        "ms_ssim": multi_scale_ssim(*lumas),
        "vif": visual_information(*lumas),
        "gmsd": gradient_deviation(*lumas),
        "mdsi": mean_deviation(clean, degraded),
    }


@lru_cache(maxsize=1)
def shipped_teacher() -> Teacher:
    """The blend of `teacher.yaml`."""
    text = (resources.files("uare_rt.training") / "teacher.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text), Teacher)


def quality(clean: NDArray[np.uint8], degraded: NDArray[np.uint8]) -> float:
    """Quality of a picture, given its truth; about 13 ms for 256x256 pixels on one core.

    Args:
        clean: uint8 [H, W, 3], RGB, the truth, at least 32 px a side.
        degraded: uint8, same shape.

    Returns:
        1 (ruined) to 5 (cannot be told from the truth); exactly 5 for equal pictures.

    Raises:
        InputError: the pictures cannot be compared.
    """
    found = measures(clean, degraded)
    return 5.0 if np.array_equal(clean, degraded) else shipped_teacher().of(found)
