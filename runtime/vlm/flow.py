"""Rectified flow: the time schedule, classifier-free guidance, forecasts of skipped evaluations.

Guidance and forecasts are arithmetic that NumPy's arrays and PyTorch's tensors both know, so there is one of each.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = Any  # one type throughout a call: NDArray or torch.Tensor

__all__ = ["EDITING", "Flow", "Forecast", "Guidance", "GuidanceWarning", "Renorm", "guide", "schedule", "times"]

Renorm = Literal["global", "channel", "text_channel"]


class GuidanceWarning(UserWarning):
    """A guidance setting has no effect."""


def times(points: int, shift: float) -> NDArray[np.float32]:
    """Times from 1 down to 0.

    ``u`` falls evenly from 1 to 0 over ``points`` and ``t = shift u / (1 + (shift - 1) u)``.

    Args:
        points: at least 2; N points make N - 1 evaluations, for the last step ends at 0.
        shift: positive; above 1 spends more evaluations on noisy times.

    Returns:
        float32 [points], to the bit as the reference computes them.

    Raises:
        UsageError: too few points, or a shift that is not positive.
    """
    if points < 2:
        raise UsageError(f"{points} time points make no evaluation; ask for at least 2 (N points make N - 1)")
    if not shift > 0:
        raise UsageError(f"the time shift is {shift}, but must be positive (3 is usual)")
    index = np.arange(points)
    step = float(np.float32(-1) / np.float32(points - 1))
    # From either end to the middle, one rounding each: PyTorch's linspace.
    even = np.where(index < points // 2, 1 + step * index, -step * (points - 1 - index)).astype(np.float32)
    shifted: NDArray[np.float32] = np.float32(shift) * even / (1 + np.float32(shift - 1) * even)
    return shifted


def schedule(points: int, shift: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Times of the evaluations and the step that follows each, float32 [points - 1]; arguments as for `times`."""
    ends = times(points, shift)
    return ends[:-1], ends[:-1] - ends[1:]


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (arXiv 2207.12598) by text and by image.

    Attributes:
        text_scale: how far to move from the velocity without text; 1 switches all guidance off.
        image_scale: how far to move from the velocity without image, after the text term.
        renorm: over what the guided velocity's norm is limited to the unguided one's: the whole tensor
            (``global``), each token (``channel``), or each token before the image term (``text_channel``).
        renorm_min: smallest factor of that limit; 1 switches it off.
        interval: guidance is on at times ``low < t <= high``.
    """

    text_scale: float = 1.0
    image_scale: float = 1.0
    renorm: Renorm = "global"
    renorm_min: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.renorm not in get_args(Renorm):
            raise UsageError(f"renorm is {self.renorm!r}, but must be one of {', '.join(get_args(Renorm))}")
        if not 0 <= self.renorm_min <= 1:
            raise UsageError(f"renorm_min is {self.renorm_min}, but must be from 0 to 1")
        scales = {"text_scale": self.text_scale, "image_scale": self.image_scale}
        for name, value in scales.items():
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"{name} is {value}, but must be a number of at least 0")

    @property
    def by_text(self) -> bool:
        """Whether the velocity without text is needed."""
        return self.text_scale > 1

    @property
    def by_image(self) -> bool:
        """Whether the velocity without image is needed; the image term has no effect without the text term."""
        return self.by_text and self.image_scale > 1

    @property
    def _narrowed(self) -> bool:
        low, high = self.interval
        return low > 0 or high < 1

    def active(self, time: float) -> bool:
        """Whether guidance is on at a time; compared in float32, as times are."""
        low, high = np.asarray(self.interval, np.float32).tolist()
        return self.by_text and low < time <= high

    def warn(self, times: Sequence[float]) -> None:
        """Warn of settings that change nothing at the times of a schedule."""
        for name, value in {"text_scale": self.text_scale, "image_scale": self.image_scale}.items():
            if value < 1:
                message = f"{name} {value} has no effect: guidance needs more than 1"
                warnings.warn(message, GuidanceWarning, stacklevel=3)
        idle = {"image_scale": self.image_scale > 1, "renorm_min": self.renorm_min > 0, "interval": self._narrowed}
        for name in (name for name, given in idle.items() if given and not self.by_text):
            message = f"{name} {getattr(self, name)} has no effect while text_scale is {self.text_scale}"
            warnings.warn(f"{message}: give a text_scale above 1", GuidanceWarning, stacklevel=3)
        if self.by_text and not any(self.active(time) for time in times):
            message = f"guidance has no effect: no evaluation lies in the interval {self.interval}"
            warnings.warn(f"{message}; evaluations are at {min(times):.3g} to 1", GuidanceWarning, stacklevel=3)


@dataclass(frozen=True)
class Flow:
    """How to sample.

    Attributes:
        points: time points; one evaluation fewer.
        shift: see `times`.
        guidance: see `Guidance`.
        forecast: extrapolate two of three evaluations after the fifth, see `Forecast`.
        batched: whether guidance's branches run as one batch (faster, more memory) or one after another; None
            decides by the memory that is free. The result is the same.
    """

    points: int = 50
    shift: float = 3.0
    guidance: Guidance = field(default_factory=Guidance)
    forecast: bool = False
    batched: bool | None = None

    def warn(self) -> None:
        """Warn of settings that change nothing."""
        self.guidance.warn(times(self.points, self.shift)[:-1].tolist())
        if self.forecast and self.points - 1 <= Forecast.FIRST:
            message = f"forecast has no effect: the first {Forecast.FIRST} evaluations are always computed"
            warnings.warn(f"{message}, and there are {self.points - 1}", GuidanceWarning, stacklevel=3)


EDITING = Flow(points=50, shift=3.0, guidance=Guidance(text_scale=4.0, image_scale=2.0, renorm="text_channel"))
"""What the reference edits pictures with."""


def guide(main: Array, text_free: Array, image_free: Array | None, guidance: Guidance) -> Array:
    """Combine the velocities of the branches.

    Args:
        main: [M, C] with everything in context; NumPy's arrays or PyTorch's tensors, as all of them.
        text_free: [M, C] without the text.
        image_free: [M, C] without the images, or None for no image term.
        guidance: scales and limits; its interval is the caller's business.

    Returns:
        [M, C].
    """

    def norm(v: Array) -> Array:
        squares = v * v
        return (squares.sum() if guidance.renorm == "global" else squares.sum(-1)[..., None]) ** 0.5

    def limited(guided: Array) -> Array:
        return guided * (norm(main) / (norm(guided) + 1e-8)).clip(guidance.renorm_min, 1.0)

    guided = text_free + guidance.text_scale * (main - text_free)
    if guidance.renorm == "text_channel":
        guided = limited(guided)
    if image_free is not None:
        guided = image_free + guidance.image_scale * (guided - image_free)
    return guided if guidance.renorm == "text_channel" else limited(guided)


class Forecast:
    """Taylor forecasts of skipped evaluations (TaylorSeer, arXiv 2503.06923), for one branch of one run.

    Evaluations 0 to 4 are computed, then every third. Each computed one gives finite differences of the last
    layer's output, one order more than before up to 6; the others are extrapolated. As only the last layer is
    read, one series is exactly equivalent to one per layer.
    """

    FIRST = 5
    EVERY = 3
    ORDER = 6

    def __init__(self) -> None:
        self._terms: list[Array] = []
        self._step = -1
        self._computed = -1

    def advance(self) -> bool:
        """Go to the next evaluation; True if it must be computed and passed to `record`."""
        self._step += 1
        return self._step < self.FIRST or self._step - self._computed == self.EVERY

    def record(self, stream: Array) -> None:
        """Take a computed evaluation, any shape."""
        terms = [stream]
        if self._step >= self.FIRST - 1:
            distance = self._step - self._computed
            for previous in self._terms[: self.ORDER]:
                terms.append((terms[-1] - previous) / distance)
        self._terms, self._computed = terms, self._step

    def predict(self) -> Array:
        """The stream of a skipped evaluation."""
        distance = self._step - self._computed
        total = self._terms[0]
        for order, term in enumerate(self._terms[1:], start=1):
            total = total + term * (distance**order / math.factorial(order))
        return total
