"""The autoencoder's finest levels in tiles, for pictures whose feature maps would not fit.

What is global stays global. Attention over all positions runs whole, and so do the coarser levels, being small. A group
norm of the finest levels takes its mean and variance over the whole picture: they are gathered tile by tile, and passes
over all tiles are repeated until they settle. In the first pass every tile is normalised by itself; a pass that
normalises with the statistics of the pass before makes at least one more norm exact, so that one pass more than there
are norms is always enough.

A tile reads as far beyond what it gives as its convolutions reach, so the result is that of the whole picture but for
rounding and the last change of the statistics. Neighbours are blended linearly over two cells; a cell is an element of
the features between the finest levels and the rest.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["RAMP", "GroupNorm", "Span", "in_tiles", "spans"]

RAMP = 2  # cells over which neighbours are blended, even
_SETTLED = 1e-3  # change of a mean or variance, over its deviation or itself, below which passes end


class GroupNorm(nn.GroupNorm):
    """A group norm that can take its statistics over more than the tensor it is given."""

    shared: _Statistics | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> same."""
        return super().forward(x) if self.shared is None else self.shared.normalise(self, x)


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


class _Statistics:
    """Mean and variance of one norm's groups over all tiles, gathered while those of the pass before are used."""

    def __init__(self) -> None:
        self.core: tuple[slice, slice, int, int] = (slice(None), slice(None), 1, 1)
        self._used: tuple[Tensor, Tensor] | None = None
        self._parts: list[tuple[int, Tensor, Tensor]] = []

    def normalise(self, norm: GroupNorm, x: Tensor) -> Tensor:
        rows, columns, down, across = self.core
        scale = (x.shape[2] // down, x.shape[3] // across)
        core = x[:, :, _scaled(rows, scale[0]), _scaled(columns, scale[1])].float()
        groups = core.reshape(norm.num_groups, -1)
        variance, mean = torch.var_mean(groups, dim=1, correction=0)
        self._parts.append((groups.shape[1], mean.double(), variance.double()))
        if self._used is None:
            return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        mean, variance = self._used
        each = x.shape[1] // norm.num_groups
        gain = norm.weight * torch.rsqrt(variance + norm.eps).repeat_interleave(each).to(norm.weight)
        shift = norm.bias - mean.repeat_interleave(each).to(norm.weight) * gain
        return torch.addcmul(shift[:, None, None], x, gain[:, None, None])

    def settle(self) -> float:
        """Take what was gathered into use; its change, relative to the deviation."""
        total = sum(count for count, _, _ in self._parts)
        mean = sum(count / total * mean for count, mean, _ in self._parts)
        variance = sum(count / total * (v + (m - mean).square()) for count, m, v in self._parts)
        before, self._used, self._parts = self._used, (mean, variance), []
        if before is None:
            return float("inf")
        tiny = torch.finfo(torch.float32).tiny
        moved = (mean - before[0]).abs() / (variance.sqrt() + tiny)
        return float(torch.maximum(moved, (variance / (before[1] + tiny) - 1).abs()).max())


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def _relative(part: slice, origin: slice) -> slice:
    return slice(part.start - origin.start, part.stop - origin.start)


def _weights(span: Span, length: int, scale: int) -> Tensor:
    """Weight of what a tile gives: 1, and ramps where neighbours overlap."""
    count, ramp = (span.given.stop - span.given.start) * scale, RAMP * scale
    weights, rising = torch.ones(count), (torch.arange(ramp) + 0.5) / ramp
    if span.given.start:
        weights[:ramp] *= rising
    if span.given.stop < length:
        weights[-ramp:] *= rising.flip(0)
    return weights


def in_tiles(
    function: Callable[[Tensor], Tensor], norms: Sequence[GroupNorm], x: Tensor, tiles: tuple[list[Span], list[Span]]
) -> Tensor:
    """Run a function of pictures tile by tile.

    Args:
        function: [N, C, h, w] -> [N, C', h', w'], convolutions and ``norms``.
        norms: every group norm in it.
        x: the whole input, [N, C, H, W]; its sides are multiples of the axes' lengths in cells.
        tiles: spans of the rows and of the columns.

    Returns:
        What the function makes of the whole input.
    """
    statistics = {norm: _Statistics() for norm in norms}
    try:
        for norm, shared in statistics.items():
            norm.shared = shared
        # Each pass makes one norm more exact; the last only uses them.
        for _ in range(len(norms) + 1):
            out = _one_pass(function, list(statistics.values()), x, tiles)
            if max(shared.settle() for shared in statistics.values()) < _SETTLED:
                break
        return out
    finally:
        for norm in norms:
            norm.shared = None


def _one_pass(
    function: Callable[[Tensor], Tensor], statistics: Sequence[_Statistics], x: Tensor, tiles: tuple[list[Span], ...]
) -> Tensor:
    out: Tensor | None = None
    rows, columns = tiles
    lengths = rows[-1].core.stop, columns[-1].core.stop
    finer = x.shape[2] // lengths[0]
    for row in rows:
        for column in columns:
            core = _relative(row.core, row.read), _relative(column.core, column.read)
            sides = row.read.stop - row.read.start, column.read.stop - column.read.start
            for shared in statistics:
                shared.core = (*core, *sides)
            part = function(x[:, :, _scaled(row.read, finer), _scaled(column.read, finer)])
            scale = part.shape[2] // sides[0]
            if out is None:
                out = part.new_zeros(*part.shape[:2], *(length * scale for length in lengths))
            given = part[
                :,
                :,
                _scaled(_relative(row.given, row.read), scale),
                _scaled(_relative(column.given, column.read), scale),
            ]
            weights = _weights(row, lengths[0], scale)[:, None] * _weights(column, lengths[1], scale)
            out[:, :, _scaled(row.given, scale), _scaled(column.given, scale)] += given * weights.to(given)
    assert out is not None
    return out
