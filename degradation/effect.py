"""What a degradation is: parameters drawn once, then applied to one image or to every frame of a clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from uare_rt.degradation.light import FloatImage
from uare_rt.errors import UsageError

__all__ = ["Draw", "Effect", "choose"]

Apply = Callable[[FloatImage, np.random.Generator], FloatImage]


@dataclass(frozen=True)
class Effect:
    """A degradation whose parameters are fixed; only what changes from frame to frame is still random.

    Attributes:
        apply: image float32 [H, W, 3] and a generator for noise fields -> image of the same shape in [0, 1].
        severities: severity 0..1 by slot name, for the slots this effect touches.
    """

    apply: Apply
    severities: Mapping[str, float]


class Draw(Protocol):
    """Draws the parameters of one kind of degradation.

    The number of values taken from ``rng`` must not depend on ``severity``, so that one seed gives the same
    scene at every severity.
    """

    def __call__(self, severity: float, rng: np.random.Generator, variant: str) -> Effect:
        """Return the effect of ``variant`` at ``severity`` (0 < severity <= 1)."""


def choose(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Draw one name with probability proportional to its weight.

    Raises:
        UsageError: no weight is above zero, or one is negative.
    """
    names, values = list(weights), np.fromiter(weights.values(), dtype=np.float64)
    if not names or values.min() < 0 or values.sum() <= 0:
        raise UsageError(f"weights {dict(weights)} leave nothing to draw; give at least one a value above 0")
    edges = np.cumsum(values)
    return names[int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))]
