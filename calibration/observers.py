"""Observers: from the values a tensor was seen with to the range that INT8 covers.

Ranges are symmetric about zero, one per activation and one per output channel of a weight, as TensorRT wants them.
One pass over the data serves all observers. Entropy is ONNX Runtime's; its calibrators do not have the mean-square
observer, which restoration needs (clipped whites darken the picture).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEVELS", "OBSERVERS", "Histogram", "Observer", "channel_ranges", "scale_of"]

Observer = Literal["min-max", "moving-min-max", "mse", "entropy", "percentile"]
OBSERVERS: tuple[Observer, ...] = get_args(Observer)

LEVELS = 127  # of INT8 on each side of zero; -128 is not used, so that ranges are symmetric
_BINS = 2048
_MOST_COUNTED = 1 << 16  # values of one sample, about; of larger tensors every n-th is counted
_ENTROPY_BINS = 256  # on each side of zero
_MOVING_WEIGHT = 0.1  # of the newest sample
_PERCENTILE = 99.99
_MSE_STEPS = 80  # candidate ranges
_SMALLEST_SCALE = 2.0**-20  # float16 holds it with six bits


class Histogram:
    """Magnitudes of one tensor, collected sample by sample.

    Attributes:
        largest: largest magnitude seen.
    """

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self._top = 0.0  # upper end of the last bin
        self._moving: float | None = None
        self.largest = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in the tensor's values for one sample; infinities are left out."""
        top = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
        if not np.isfinite(top):
            values = values[np.isfinite(values)]
            top = float(np.abs(values).max(initial=0.0))
        self.largest = max(self.largest, top)
        self._moving = top if self._moving is None else self._moving + _MOVING_WEIGHT * (top - self._moving)
        if top == 0.0:
            self._counts[0] += values.size
            return
        if self._top == 0.0:
            self._top = top
        while self._top < top:  # twice the range in the same number of bins
            self._counts = np.concatenate((self._counts.reshape(-1, 2).sum(axis=1), np.zeros(_BINS // 2, np.int64)))
            self._top *= 2
        step = max(1, values.size // _MOST_COUNTED)
        places = (np.abs(values.ravel()[::step]) * np.float32(_BINS / self._top)).astype(np.int32)
        self._counts += np.bincount(np.minimum(places, _BINS - 1), minlength=_BINS) * step

    def bins(self) -> tuple[NDArray[np.int64], float]:
        """Counts of evenly wide bins of magnitude from 0 up, and the upper end of the last."""
        return self._counts, self._top

    def range(self, observer: Observer) -> float:
        """The largest magnitude that INT8 should represent; 0 where only zeros were seen.

        Args:
            observer: how to choose it.
        """
        if self.largest == 0.0:
            return 0.0
        if observer == "min-max":
            return self.largest
        if observer == "moving-min-max":
            return self._moving or 0.0
        centres = (np.arange(_BINS) + 0.5) * (self._top / _BINS)
        if observer == "percentile":
            share = np.cumsum(self._counts) / self._counts.sum()
            return min(self.largest, float(centres[np.searchsorted(share, _PERCENTILE / 100)]))
        if observer == "entropy":
            return min(self.largest, _least_divergence(self._counts, self._top))
        if observer == "mse":
            return _least_error(centres, self._counts, self.largest)
        raise UsageError(f"observer {observer!r} does not exist; choose one of: {', '.join(OBSERVERS)}")


def scale_of(largest: float | NDArray[np.floating]) -> NDArray[np.float32]:
    """Step of INT8 for a range, as a number that float16 holds, so that all types compute with the same."""
    step = np.maximum(np.asarray(largest, np.float64) / LEVELS, _SMALLEST_SCALE)
    return np.asarray(step.astype(np.float16), np.float32)


def channel_ranges(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Range of every output channel of a weight: its largest magnitude.

    Args:
        weight: of any shape.
        axis: output channels.

    Returns:
        float32 [channels].
    """
    return np.asarray(np.abs(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1).max(axis=1), np.float32)


def _least_error(centres: NDArray[np.float64], counts: NDArray[np.int64], largest: float) -> float:
    """The range with the least mean square error of rounding and clipping."""
    best, least = largest, np.inf
    for share in np.linspace(1.0, 1.0 / _MSE_STEPS, _MSE_STEPS):
        step = largest * share / LEVELS
        # Within a bin values lie anywhere, so rounding costs step^2 / 12 however fine the bins are.
        clipped = np.maximum(centres - largest * share, 0.0)
        error = float((counts * np.where(clipped > 0, clipped**2, step**2 / 12)).sum())
        if error < least:
            best, least = largest * share, error
    return best


def _least_divergence(counts: NDArray[np.int64], top: float) -> float:
    """The range that keeps most information (Kullback-Leibler), by ONNX Runtime's calibrator."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    merged = counts.reshape(_ENTROPY_BINS, -1).sum(axis=1)
    mirrored, edges = np.concatenate((merged[::-1], merged)), np.linspace(-top, top, 2 * _ENTROPY_BINS + 1)
    collector = HistogramCollector("entropy", True, 2 * _ENTROPY_BINS, LEVELS + 1, _PERCENTILE, "same")
    low, high = collector.get_entropy_threshold((mirrored, edges, edges[0], edges[-1], edges[-1]), LEVELS + 1)
    return float(max(-low, high))
