"""Random mixtures of degradations for training curricula, from single faults to second-order ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from uare_rt.degradation.composition import VARIANTS, Step, camera_order
from uare_rt.degradation.effect import choose
from uare_rt.errors import UsageError
from uare_rt.slots import DEGRADATIONS

__all__ = ["Mixture", "sample_steps", "second_order"]

_SECOND_PASS = ("blur", "low_resolution", "noise", "compression")  # air and exposure happen once
_SECOND_STRENGTH = 0.6


def _sample_severity(rng: np.random.Generator, severity: tuple[float, float]) -> float:
    low, high = severity
    return low + (high - low) * float(rng.beta(1.4, 1.8))  # whole range, leaning to its lower middle: mean 0.44


def sample_steps(
    rng: np.random.Generator,
    *,
    kinds: Mapping[str, float],
    count: tuple[int, int],
    severity: tuple[float, float] = (0.0, 1.0),
    order: Literal["camera", "random"] = "camera",
) -> list[Step]:
    """Draw distinct degradations with random severities.

    Args:
        rng: source of every random choice.
        kinds: weight of each degradation; kinds of weight 0 never come.
        count: least and largest number of steps, both included; limited by the kinds that have a weight.
        severity: range of severities; draws lean to its lower middle (beta distribution, mean at 44 %).
        order: ``camera`` sorts by ``camera_order``; ``random`` leaves them as drawn.
    """
    left = {kind: weight for kind, weight in kinds.items() if weight > 0}
    steps = []
    for _ in range(min(int(rng.integers(count[0], count[1] + 1)), len(left))):
        kind = choose(rng, left)
        del left[kind]
        steps.append(Step(kind, _sample_severity(rng, severity)))
    return camera_order(steps) if order == "camera" else steps


def second_order(
    rng: np.random.Generator,
    *,
    kinds: Mapping[str, float],
    count: tuple[int, int],
    severity: tuple[float, float] = (0.0, 1.0),
) -> list[Step]:
    """Draw two camera passes: the picture as taken, then as edited, resized and saved again.

    The second pass has one or two of blur, low resolution, noise and compression at 0.6 of the severity range.
    Arguments are those of ``sample_steps``.
    """
    first = sample_steps(rng, kinds=kinds, count=count, severity=severity)
    again = {kind: weight for kind, weight in kinds.items() if kind in _SECOND_PASS}
    low, high = severity
    weaker = (_SECOND_STRENGTH * low, _SECOND_STRENGTH * high)
    return first + sample_steps(rng, kinds=again, count=(1, 2), severity=weaker)


@dataclass(frozen=True)
class Mixture:
    """A distribution over lists of steps; a training stage is one of these.

    Attributes:
        min_count: least number of degradations; 0 lets clean images through.
        max_count: largest number of degradations in the first pass.
        kinds: weight of each degradation (names of ``uare_rt.slots.DEGRADATIONS``); all alike unless given.
        severity: range of severities.
        second_order: probability that a second, weaker pass follows a sample that has a first one.

    Raises:
        UsageError: a value cannot be used.
    """

    min_count: int
    max_count: int
    kinds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(DEGRADATIONS, 1.0))
    severity: tuple[float, float] = (0.0, 1.0)
    second_order: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_count <= self.max_count:
            raise UsageError(f"counts {self.min_count}..{self.max_count} are not a range of whole numbers from 0 up")
        unknown = sorted(set(self.kinds) - set(VARIANTS))
        if unknown:
            raise UsageError(f"unknown degradations {', '.join(unknown)}; choose among {', '.join(VARIANTS)}")
        if any(weight < 0 for weight in self.kinds.values()) or not any(self.kinds.values()):
            raise UsageError(f"weights {dict(self.kinds)} must be 0 or more, with at least one above 0")
        if not 0 <= self.severity[0] <= self.severity[1] <= 1:
            raise UsageError(f"severity range {self.severity} is not within 0..1")
        if not 0 <= self.second_order <= 1:
            raise UsageError(f"second_order {self.second_order} is not a probability")

    def sample(self, rng: np.random.Generator) -> list[Step]:
        """Draw the steps for one image, in the order to apply them; may be empty (a clean image)."""
        count = (int(rng.integers(self.min_count, self.max_count + 1)),) * 2
        if count[0] and rng.random() < self.second_order:
            return second_order(rng, kinds=self.kinds, count=count, severity=self.severity)
        return sample_steps(rng, kinds=self.kinds, count=count, severity=self.severity)
