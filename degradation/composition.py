"""Degradations by name, one after the other, with the label of the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uare_rt.degradation import blur, compression, haze, low_light, low_resolution, noise
from uare_rt.degradation.effect import Draw, Effect, choose
from uare_rt.degradation.light import FloatImage, from_uint8, to_uint8
from uare_rt.errors import UsageError
from uare_rt.slots import DEGRADATIONS

__all__ = [
    "CAMERA_ORDER",
    "VARIANTS",
    "Degraded",
    "Step",
    "camera_order",
    "combine",
    "compose",
    "degrade",
    "draw_effect",
]

CAMERA_ORDER = ("haze", "low_light", "blur", "low_resolution", "noise", "compression")
"""The order in which light meets them: air, exposure, optics, sensor grid, sensor noise, file."""

_DRAWS: Mapping[str, Draw] = {
    "noise": noise.draw,
    "blur": blur.draw,
    "compression": compression.draw,
    "low_resolution": low_resolution.draw,
    "low_light": low_light.draw,
    "haze": haze.draw,
}

VARIANTS: Mapping[str, Mapping[str, float]] = {
    "noise": noise.VARIANTS,
    "blur": blur.VARIANTS,
    "compression": compression.VARIANTS,
    "low_resolution": low_resolution.VARIANTS,
    "low_light": low_light.VARIANTS,
    "haze": haze.VARIANTS,
}
"""For every kind its variants with their weight in a random draw."""


@dataclass(frozen=True)
class Degraded:
    """An image and what was done to it.

    Attributes:
        image: float32 [H, W, 3], sRGB in [0, 1].
        severities: severity 0..1 for every name in ``uare_rt.slots.DEGRADATIONS``; 0 where absent.
    """

    image: FloatImage
    severities: dict[str, float]


@dataclass(frozen=True)
class Step:
    """One degradation to apply.

    Attributes:
        kind: a name in ``uare_rt.slots.DEGRADATIONS``.
        severity: 0 (identity) to 1.
        variant: a name in ``VARIANTS[kind]``; None draws one.

    Raises:
        UsageError: unknown kind or variant, or severity outside 0..1.
    """

    kind: str
    severity: float
    variant: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in VARIANTS:
            raise UsageError(f"unknown degradation {self.kind!r}; choose one of {', '.join(VARIANTS)}")
        if not 0 <= self.severity <= 1:
            raise UsageError(f"severity {self.severity} of {self.kind} is outside 0..1")
        if self.variant is not None and self.variant not in VARIANTS[self.kind]:
            known = ", ".join(VARIANTS[self.kind])
            raise UsageError(f"unknown variant {self.variant!r} of {self.kind}; choose one of {known}")


def draw_effect(step: Step, rng: np.random.Generator) -> Effect | None:
    """Draw the parameters of one step; None where its severity is 0 (identity)."""
    variant = step.variant or choose(rng, VARIANTS[step.kind])
    return _DRAWS[step.kind](step.severity, rng, variant) if step.severity > 0 else None


def combine(labels: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Merge severities: 0 where absent, repeats as 1 - (1 - a)(1 - b)."""
    total = dict.fromkeys(DEGRADATIONS, 0.0)
    for label in labels:
        for kind, severity in label.items():
            total[kind] += severity - total[kind] * severity  # exact where one of them is 0
    return total


def camera_order(steps: Iterable[Step]) -> list[Step]:
    """Sort steps into ``CAMERA_ORDER``; steps of one kind keep their order."""
    return sorted(steps, key=lambda step: CAMERA_ORDER.index(step.kind))


def check_image(image: FloatImage) -> None:
    """Refuse anything that is not float32 [H, W, 3] with at least one pixel.

    Raises:
        UsageError: wrong type or shape.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.float32 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UsageError(f"a degradation needs a float32 [H, W, 3] image in [0, 1], not {got}; convert with from_uint8")
    if image.size == 0:
        raise UsageError(f"a degradation needs at least one pixel, not {list(image.shape)}")


def compose(image: FloatImage, steps: Sequence[Step], rng: np.random.Generator) -> Degraded:
    """Apply steps in the order given and round the result to 8-bit levels, as a file would hold it.

    Args:
        image: float32 [H, W, 3], sRGB in [0, 1]; not changed.
        steps: what to apply; ``camera_order`` sorts them the way a camera would.
        rng: source of every random choice; the same state gives the same result.

    Returns:
        The image and its label. Without any step of severity above 0 it is the input itself, not rounded.

    Raises:
        UsageError: the image is not float32 [H, W, 3].
    """
    check_image(image)
    result = image
    labels = []
    for step in steps:
        effect = draw_effect(step, rng)
        if effect is not None:
            result = effect.apply(result, rng)
            labels.append(effect.severities)
    return Degraded(from_uint8(to_uint8(result)) if labels else image, combine(labels))


def degrade(
    image: FloatImage, kind: str, severity: float, rng: np.random.Generator, *, variant: str | None = None
) -> Degraded:
    """Apply a single degradation: ``compose`` with one step.

    Args:
        image: float32 [H, W, 3], sRGB in [0, 1]; not changed.
        kind: a name in ``uare_rt.slots.DEGRADATIONS``.
        severity: 0 (identity) to 1.
        rng: source of every random choice.
        variant: a name in ``VARIANTS[kind]``; None draws one.

    Raises:
        UsageError: unknown kind or variant, severity outside 0..1, or a wrong image.
    """
    return compose(image, [Step(kind, severity, variant)], rng)
