"""Weights in INT8, rounded so that a layer's results change least on the pictures it was observed with.

A re-parameterised convolution has a large tap in its middle, which sets the step of its channel, and inputs whose means
are far from zero: rounding every tap to the nearest step then moves the result's mean. So taps are rounded one after
another, those of the strongest inputs first, and each rounding error is made up for by the taps that are left
(Frantar et al. 2023, "GPTQ", with the covariance of the layer's inputs as the Hessian); what remains of the mean goes
into the bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uare_rt.calibration.observers import LEVELS, channel_ranges, scale_of

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from uare_rt.calibration.layers import Layer

__all__ = ["Moments", "RoundedWeight", "is_collected", "round_weight"]

_ROWS_PER_SAMPLE = 1024  # positions of a convolution, or tokens, that are looked at
_ROWS_PER_INPUT = 2  # with fewer, a covariance tells too little to round by
_DAMPING = 1e-3  # of the mean variance


class Moments:
    """Means and products of a layer's inputs, collected sample by sample.

    Args:
        layer: a convolution or a product with weights.
        node: its node.
        weight: its weight.
    """

    def __init__(self, layer: Layer, node: onnx.NodeProto, weight: NDArray[np.floating]) -> None:
        self._node, self._shape = node, weight.shape
        self._patches = layer.kind == "conv"
        width = weight.size // weight.shape[layer.axis]
        self._products = np.zeros((width, width), np.float64)
        self._sums = np.zeros(width, np.float64)
        self._rows = 0
        self._rng = np.random.default_rng(0)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of every input of an output channel's weights, float64 [K]."""
        return self._sums / max(self._rows, 1)

    @property
    def second(self) -> NDArray[np.float64]:
        """Mean products of every two inputs, float64 [K, K]."""
        return self._products / max(self._rows, 1)

    @property
    def sufficient(self) -> bool:
        """Whether enough was seen to tell how inputs depend on each other."""
        return self._rows >= _ROWS_PER_INPUT * len(self._sums)

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in the layer's input for one sample."""
        windows = _windows(values, self._node, self._shape) if self._patches else values.reshape(-1, values.shape[-1])
        positions = windows.shape[:3] if self._patches else windows.shape[:1]
        count = int(np.prod(positions))
        chosen = np.arange(count)
        if count > _ROWS_PER_SAMPLE:
            chosen = self._rng.choice(count, _ROWS_PER_SAMPLE, replace=False)
        rows = np.ascontiguousarray(windows[np.unravel_index(chosen, positions)], np.float32).reshape(len(chosen), -1)
        self._products += rows.T @ rows
        self._sums += rows.sum(axis=0, dtype=np.float64)
        self._rows += len(rows)


def is_collected(layer: Layer, node: onnx.NodeProto) -> bool:
    """Whether `Moments` know how a layer's input meets its weights: not of grouped or transposed convolutions."""
    options = {attribute.name: attribute.i for attribute in node.attribute}
    grouped = options.get("group", 1) != 1 or options.get("transA", 0) != 0
    return layer.weight is not None and node.op_type != "ConvTranspose" and not grouped


@dataclass(frozen=True, eq=False)
class RoundedWeight:
    """A weight in INT8.

    Attributes:
        levels: int8, shape of the weight.
        scales: step of every output channel, float32 [channels].
        shift: what the layer's bias has to make up for, float32 [channels]; None for a layer without bias.
    """

    levels: NDArray[np.int8]
    scales: NDArray[np.float32]
    shift: NDArray[np.float32] | None = None

    def real(self, axis: int) -> NDArray[np.float32]:
        """The values that the levels stand for."""
        shape = [1] * self.levels.ndim
        shape[axis] = -1
        return self.levels * self.scales.reshape(shape)


def round_weight(
    weight: NDArray[np.float32], axis: int, moments: Moments | None = None, *, biased: bool = False
) -> RoundedWeight:
    """Bring a weight to INT8, one scale per output channel that covers its largest magnitude.

    Args:
        weight: float32 of any shape.
        axis: output channels.
        moments: of the layer's inputs; without them, or with too few, every value goes to the nearest step.
        biased: whether the layer has a bias that can take up a shift of the mean.
    """
    front = np.moveaxis(weight, axis, 0)
    rows = front.reshape(len(front), -1).astype(np.float64)
    scales = scale_of(channel_ranges(weight, axis))
    shift = None
    if moments is None:
        levels = _nearest(rows, scales)
    else:
        biased_part = np.outer(moments.mean, moments.mean) if biased else 0.0
        levels = (
            _compensated(rows, moments.second - biased_part, scales) if moments.sufficient else _nearest(rows, scales)
        )
        if biased:
            shift = ((rows - levels * scales.astype(np.float64)[:, None]) @ moments.mean).astype(np.float32)
    back = np.moveaxis(levels.reshape(front.shape), 0, axis)
    return RoundedWeight(np.ascontiguousarray(back, np.int8), scales, shift)


def _nearest(values: NDArray[np.float64], scales: NDArray[np.float32]) -> NDArray[np.float64]:
    steps = scales.astype(np.float64)
    return np.clip(np.rint(values / (steps[:, None] if values.ndim > 1 else steps)), -LEVELS, LEVELS)


def _compensated(
    rows: NDArray[np.float64], products: NDArray[np.float64], scales: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Levels [out, K] with rounding errors made up for, by the inputs' products [K, K]."""
    strength = np.diag(products)
    damped = products + np.eye(len(products)) * max(_DAMPING * float(strength.mean()), np.finfo(np.float32).tiny)
    order = np.argsort(-strength, kind="stable")
    left = rows[:, order].copy()
    spread = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    levels = np.empty_like(left)
    steps = scales.astype(np.float64)
    for index in range(left.shape[1]):
        levels[:, index] = _nearest(left[:, index], scales)
        error = (left[:, index] - levels[:, index] * steps) / spread[index, index]
        left[:, index + 1 :] -= np.outer(error, spread[index, index + 1 :])
    return levels[:, np.argsort(order, kind="stable")]


def _windows(values: NDArray[np.float32], node: onnx.NodeProto, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """What the taps of a convolution see at every position: a view [N, rows, columns, in, height, width]."""
    options = {attribute.name: tuple(attribute.ints) for attribute in node.attribute if attribute.ints}
    top, left, bottom, right = options.get("pads", (0, 0, 0, 0))
    down, across = options.get("strides", (1, 1))
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape[2:], axis=(2, 3))[:, :, ::down, ::across]
    return windows.transpose(0, 2, 3, 1, 4, 5)
