"""Tiling: how a frame is cut so that every part fits in memory and the result does not change.

Attention windows lie on a fixed grid and convolutions reach a fixed distance, so a tile that starts on
the grid and carries enough margin computes exactly what the whole frame would. Neighbouring tiles still
share a narrow feather: it costs little, changes nothing where both agree, and hides differences of
rounding where they do not (half precision, kernels chosen by size).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from uare_rt.manifest import Tiling

__all__ = [
    "FEATHER",
    "Span",
    "Tile",
    "checked_tile",
    "choose_sides",
    "padded",
    "plan_axis",
    "plan_tiles",
    "reflect",
    "smallest_tile",
]

FEATHER = 8  # input px shared by neighbouring tiles
_SHAPES = 16  # shapes of tile that are compared


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in input px.

    Attributes:
        start: first px the graph reads.
        stop: px after the last it reads; the distance is a multiple of the tiling's ``multiple``.
        begin: first px the tile writes.
        end: px after the last it writes.
        feather: the first px of begin..end that the tile before wrote too.
    """

    start: int
    stop: int
    begin: int
    end: int
    feather: int

    def ramp(self, scale: int) -> NDArray[np.float32]:
        """Weight of this tile for every output px it writes: rises over the feather, then 1."""
        weight = np.ones((self.end - self.begin) * scale, np.float32)
        rising = self.feather * scale
        weight[:rising] = (np.arange(rising, dtype=np.float32) + 0.5) / max(1, rising)
        return weight


@dataclass(frozen=True)
class Tile:
    """One tile of a frame."""

    y: Span
    x: Span


def padded(length: int, multiple: int) -> int:
    """The length after padding to a multiple."""
    return -(-length // multiple) * multiple


def smallest_tile(tiling: Tiling) -> int:
    """The smallest side of a tile that can move on over a larger frame, in px."""
    return padded(tiling.before + tiling.after + FEATHER + tiling.grid, tiling.grid)


def plan_axis(length: int, tile: int, tiling: Tiling) -> list[Span]:
    """Cut one axis of a frame.

    Args:
        length: of the frame, in px, at least 1.
        tile: largest side of a tile, in px; rounded down to the grid, at least ``smallest_tile``.
        tiling: the model's rules.

    Returns:
        Spans in order. Together they write every px; only feathers are written twice.
    """
    whole = padded(length, tiling.multiple)
    if whole <= tile:
        return [Span(0, whole, 0, length, 0)]
    side = max(tile // tiling.grid * tiling.grid, smallest_tile(tiling))
    spans = _walk(length, side, tiling)
    # The same number of tiles, as small as that allows: less work in the overlaps.
    while side > smallest_tile(tiling):
        smaller = _walk(length, side - tiling.grid, tiling)
        if len(smaller) > len(spans):
            break
        spans, side = smaller, side - tiling.grid
    return spans


def plan_tiles(height: int, width: int, sides: tuple[int, int], tiling: Tiling) -> list[Tile]:
    """Cut a frame into tiles, in reading order.

    Args:
        height: of the frame, in px.
        width: of the frame, in px.
        sides: largest height and width of a tile, in px.
        tiling: the model's rules.
    """
    columns = plan_axis(width, sides[1], tiling)
    return [Tile(y, x) for y in plan_axis(height, sides[0], tiling) for x in columns]


def choose_sides(height: int, width: int, pixels: float, tiling: Tiling) -> tuple[int, int]:
    """Sides of a tile for a budget of pixels, so that the frame costs the least work, overlaps counted.

    Args:
        height: of the frame, in px.
        width: of the frame, in px.
        pixels: what one tile may have; too small a budget gives the smallest tile.
        tiling: the model's rules.
    """
    whole_h, whole_w = padded(height, tiling.multiple), padded(width, tiling.multiple)
    least = smallest_tile(tiling)
    area = max(int(pixels), least * least)
    if whole_h * whole_w <= area:
        return whole_h, whole_w
    widest, narrowest = min(whole_w, area // min(least, whole_h)), min(least, whole_w)
    shapes = [
        (min(whole_h, area // side), side)
        for side in {narrowest + (widest - narrowest) * step // _SHAPES for step in range(_SHAPES + 1)}
    ]
    return min(shapes, key=lambda sides: (_work(height, sides[0], tiling) * _work(width, sides[1], tiling), sides))


def checked_tile(tile: int, tiling: Tiling) -> int:
    """A side asked for by the caller, if tiles of that side are possible.

    Raises:
        UsageError: it is too small for the model's margins.
    """
    least = smallest_tile(tiling)
    if tile < least:
        raise UsageError(f"tile is {tile} px, but this model needs at least {least} px")
    return tile


def reflect(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """Where the px start..stop of a padded axis come from.

    The axis is continued by reflection about its last px; an axis too short for that repeats its
    edge px too.

    Args:
        start: first px of the padded axis, from 0.
        stop: px of the padded axis after the last.
        length: of the axis without padding.

    Returns:
        intp [stop - start], each in 0..length - 1.
    """
    at = np.arange(start, stop, dtype=np.intp)
    if stop <= 2 * length - 1:
        return np.where(at < length, at, 2 * (length - 1) - at)
    folded = at % (2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def _work(length: int, side: int, tiling: Tiling) -> int:
    return sum(span.stop - span.start for span in plan_axis(length, side, tiling))


def _walk(length: int, side: int, tiling: Tiling) -> list[Span]:
    return list(_spans(length, side, tiling))


def _spans(length: int, side: int, tiling: Tiling) -> Iterator[Span]:
    whole = padded(length, tiling.multiple)
    begin = feather = 0
    while True:
        start = max(0, begin - tiling.before) // tiling.grid * tiling.grid
        stop = min(start + side, whole)
        end = length if stop == whole else min(length, stop - tiling.after)
        yield Span(start, stop, begin, end, feather)
        if end == length:
            return
        begin, feather = end - FEATHER, FEATHER
