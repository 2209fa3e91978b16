"""The autoencoder's finest levels in tiles, for pictures whose feature maps would not fit.

What is global stays global. Attention over all positions runs whole, and so do the coarser levels, being small. A group
norm of the finest levels takes its mean and variance over the whole picture: they are gathered tile by tile, and passes
over all tiles are repeated until they settle. In the first pass every tile is normalised by itself; a pass that
normalises with the statistics of the pass before makes at least one more norm exact, so that one pass more than there
are norms is always enough.

A tile reads as far beyond what it gives as its convolutions reach, so the result is that of the whole picture but for
rounding and the last change of the statistics. Neighbours are blended linearly over two cells; a cell is an element of
the features between the finest levels and the rest. Arrays are NumPy's or PyTorch's, one kind throughout a call.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = Any  # one type throughout a call: NDArray or torch.Tensor

__all__ = ["RAMP", "SETTLED", "Core", "Gathered", "Span", "check_tile", "in_tiles", "spans"]

RAMP = 2
"""Cells over which neighbours are blended, even."""
SETTLED = 1e-3
"""Change of a mean or variance, over its deviation or itself, below which passes end."""

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Span:
    """A tile along one axis, in cells.

    Attributes:
        read: what it reads.
        core: its share of the axis; shares do not overlap.
        given: what it gives, the blended ends included.
    """

    read: slice
    core: slice
    given: slice


@dataclass(frozen=True)
class Core:
    """Where a tile's own share lies in what it reads, in cells: rows, columns, and how many of either it reads."""

    rows: slice
    columns: slice
    down: int
    across: int

    @property
    def cells(self) -> int:
        """Cells of the share."""
        return int((self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start))


def check_tile(tile: int, cell: int, reach: int) -> None:
    """Refuse tiles that are too small.

    Args:
        tile: pixels along its side.
        cell: pixels per cell.
        reach: cells that it must read beyond its own.

    Raises:
        UsageError: the tile is smaller than what its convolutions read.
    """
    least = (2 * reach + RAMP + 1) * cell
    if tile < least:
        raise UsageError(f"tiles of {tile} px are smaller than what their convolutions read; give at least {least}")


def spans(length: int, tile: int, reach: int) -> list[Span]:
    """Divide an axis evenly.

    Args:
        length: cells.
        tile: cells that a tile may read.
        reach: cells that it must read beyond what it gives, where there are any.

    Returns:
        At least one span; ``tile`` must be more than ``2 * reach + RAMP``.
    """
    if length <= tile:
        return [Span(slice(0, length), slice(0, length), slice(0, length))]
    count = -(-length // (tile - 2 * reach - RAMP))
    edges = [index * length // count for index in range(count + 1)]

    def around(start: int, stop: int, more: int) -> slice:
        return slice(max(0, start - more), min(length, stop + more))

    return [
        Span(around(a, b, RAMP // 2 + reach), slice(a, b), around(a, b, RAMP // 2))
        for a, b in itertools.pairwise(edges)
    ]


class Gathered:
    """Means and variances over all tiles, gathered while those of the pass before are used.

    Attributes:
        used: means and variances of the pass before, float64, or None in the first.
    """

    def __init__(self) -> None:
        self.used: tuple[Array, Array] | None = None
        self._parts: list[tuple[int, Array, Array]] = []

    def add(self, count: int, mean: Array, variance: Array) -> None:
        """Take those of one tile, of any shape, which count that much."""
        self._parts.append((count, mean, variance))

    def settle(self) -> float:
        """Take what was gathered into use; its change, relative to the deviation."""
        total = sum(count for count, _, _ in self._parts)
        mean = sum(count / total * mean for count, mean, _ in self._parts)
        variance = sum(count / total * (v + (m - mean) ** 2) for count, m, v in self._parts)
        before, self.used, self._parts = self.used, (mean, variance), []
        if before is None:
            return float("inf")
        moved = abs(mean - before[0]) / (variance**0.5 + _TINY)
        return max(float(moved.max()), float(abs(variance / (before[1] + _TINY) - 1).max()))


def in_tiles(
    function: Callable[[Array, Core], Array],
    settle: Callable[[], float],
    norms: int,
    x: Array,
    tiles: tuple[list[Span], list[Span]],
    like: Callable[[NDArray[np.float32], Array], Array],
) -> Array:
    """Run a function of pictures tile by tile.

    Args:
        function: [N, C, h, w] and where its share lies -> [N, C', h', w'].
        settle: called after every pass; the largest change of the statistics.
        norms: how many there are.
        x: the whole input, [N, C, H, W]; its sides are multiples of the axes' lengths in cells.
        tiles: spans of the rows and of the columns.
        like: turns NumPy's array into one of the kind of another.

    Returns:
        What the function makes of the whole input.
    """
    # Each pass makes one norm more exact; the last only uses them.
    for _ in range(norms + 1):
        out = _one_pass(function, x, tiles, like)
        if settle() < SETTLED:
            break
    return out


def _one_pass(
    function: Callable[[Array, Core], Array],
    x: Array,
    tiles: tuple[list[Span], list[Span]],
    like: Callable[[NDArray[np.float32], Array], Array],
) -> Array:
    out: Array = None
    rows, columns = tiles
    lengths = rows[-1].core.stop, columns[-1].core.stop
    finer = x.shape[2] // lengths[0]
    for row, column in itertools.product(rows, columns):
        sides = row.read.stop - row.read.start, column.read.stop - column.read.start
        core = Core(_relative(row.core, row.read), _relative(column.core, column.read), *sides)
        part = function(x[:, :, _scaled(row.read, finer), _scaled(column.read, finer)], core)
        scale = part.shape[2] // sides[0]
        if out is None:
            whole = np.zeros((*part.shape[:2], *(length * scale for length in lengths)), np.float32)
            out = like(whole, part)
        given = part[
            :,
            :,
            _scaled(_relative(row.given, row.read), scale),
            _scaled(_relative(column.given, column.read), scale),
        ]
        weights = _weights(row, lengths[0], scale)[:, None] * _weights(column, lengths[1], scale)
        out[:, :, _scaled(row.given, scale), _scaled(column.given, scale)] += given * like(weights, part)
    return out


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def _relative(part: slice, origin: slice) -> slice:
    return slice(part.start - origin.start, part.stop - origin.start)


def _weights(span: Span, length: int, scale: int) -> NDArray[np.float32]:
    """Weight of what a tile gives: 1, and ramps where neighbours overlap."""
    count, ramp = (span.given.stop - span.given.start) * scale, RAMP * scale
    weights = np.ones(count, np.float32)
    rising = ((np.arange(ramp) + 0.5) / ramp).astype(np.float32)
    if span.given.start:
        weights[:ramp] *= rising
    if span.given.stop < length:
        weights[-ramp:] *= rising[::-1]
    return weights
