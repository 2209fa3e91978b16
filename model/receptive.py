"""How far an output pixel of `uare-nano` reaches into the input: the basis of exact tiling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uare_rt.model.nano import LATENT_STRIDE

if TYPE_CHECKING:
    from uare_rt.model.presets.nano import NanoConfig

__all__ = ["TilingRule", "tiling_rule"]

_BICUBIC_RADIUS = 2


@dataclass(frozen=True)
class TilingRule:
    """Rules that make tiles compute what the whole frame would, in input px.

    Attributes:
        multiple: sides of the input are multiples of this.
        grid: a tile starts on a multiple of this (the attention windows' grid).
        before: input needed before the first exact pixel.
        after: input needed after the last exact pixel.
    """

    multiple: int
    grid: int
    before: int
    after: int


def _needed(config: NanoConfig, first: int, last: int) -> tuple[int, int]:
    """Input interval [start, stop) that the output pixels [first, last) depend on, along one axis."""
    start, stop = first // 2 - 1, -(-last // 2) + 1  # head, at /2
    skips = []
    for convs in config.decoder_convs:
        start, stop = start - convs, stop + convs
        skips.append((start, stop))
        start, stop = start // 2, -(-stop // 2)
    for shift in (config.window // 2, 0):
        start = (start + shift) // config.window * config.window - shift
        stop = -(-(stop + shift) // config.window) * config.window - shift
    for convs, skip in zip(reversed(config.encoder_convs), reversed(skips), strict=True):
        start, stop = min(2 * start, skip[0]) - convs, max(2 * stop, skip[1]) + convs
    start, stop = 2 * start - 2, 2 * stop + 2  # stem
    return min(start, first - _BICUBIC_RADIUS), max(stop, last + _BICUBIC_RADIUS)


def tiling_rule(config: NanoConfig) -> TilingRule:
    """The tiling rule of a nano model, worst case over all positions relative to the window grid."""
    grid = config.window * LATENT_STRIDE
    edges = range(16 * grid, 17 * grid)
    before = max(edge - _needed(config, edge, edge + 1)[0] for edge in edges)
    after = max(_needed(config, edge - 1, edge)[1] - edge for edge in edges)
    return TilingRule(LATENT_STRIDE, grid, before, after)
