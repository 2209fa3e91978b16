"""Which tiles of a frame changed: a block-wise difference against a threshold that knows the noise, as a compact list.

A block of 8x8 pixels scores the sum of its absolute differences over all samples; a tile changed if any block that
it reads scores above the threshold. For noise of standard deviation s in both frames, the mean absolute difference
of a sample is ``2 s / sqrt(pi)`` (half-normal), and a block's mean of 192 stays within a few percent of it, so that
`threshold_for` can sit just above. The list is in the order of the tiles; nothing depends on scheduling.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from uare_rt.kernels.checks import Arguments
from uare_rt.kernels.jit import cdiv, power_of_two, tl, triton
from uare_rt.kernels.tiles import tile as tuned
from uare_rt.kernels.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.kernels.tiles import Tile

__all__ = ["BLOCK_SIDE", "reference", "run", "threshold_for", "variants"]

BLOCK_SIDE = 8
_MARGIN = 1.5  # above what noise alone gives; a block's mean scatters by about 5 % of it
_LEAST = 0.25  # mean levels per sample that rounding alone may change


def threshold_for(noise: float) -> int:
    """The score that a block must exceed, for noise of a standard deviation in 8-bit levels."""
    return round(BLOCK_SIDE**2 * 3 * (_MARGIN * 2 * noise / math.sqrt(math.pi) + _LEAST))


def reference(before: Tensor, after: Tensor, tiles: Tensor, threshold: int) -> tuple[Tensor, Tensor]:
    """What `run` computes, in plain torch."""
    difference = (after.int() - before.int()).abs().sum(dim=2)
    pad = [-size % BLOCK_SIDE for size in difference.shape]
    difference = F.pad(difference, (0, pad[1], 0, pad[0]))
    scores = difference.unflatten(1, (-1, BLOCK_SIDE)).unflatten(0, (-1, BLOCK_SIDE)).sum(dim=(1, 3))
    found = []
    for index, (top, bottom, left, right) in enumerate(tiles.tolist()):
        rows = slice(top // BLOCK_SIDE, cdiv(bottom, BLOCK_SIDE))
        if bool((scores[rows, left // BLOCK_SIDE : cdiv(right, BLOCK_SIDE)] > threshold).any()):
            found.append(index)
    listed = torch.full((tiles.shape[0],), -1, dtype=torch.int32, device=tiles.device)
    listed[: len(found)] = torch.tensor(found, dtype=torch.int32, device=tiles.device)
    return listed, torch.tensor([len(found)], dtype=torch.int32, device=tiles.device)


@triton.jit
def score_kernel(before, after, before_step, after_step, height, width, across, scores, BLOCKS: tl.constexpr):
    """Scores of a run of blocks in one row of blocks."""
    row = tl.program_id(0)
    block = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
    column = (block * 24)[:, None] + tl.arange(0, 32)[None, :]  # a block's row is 24 bytes, read as 32
    total = tl.zeros((BLOCKS,), tl.int32)
    for line in tl.static_range(8):
        y = row * 8 + line
        limit = tl.where(y < height, width * 3, 0)
        inside = (tl.arange(0, 32) < 24)[None, :] & (column < limit)
        old = tl.load(before + y * before_step + column, mask=inside, other=0).to(tl.int32)
        new = tl.load(after + y * after_step + column, mask=inside, other=0).to(tl.int32)
        total += tl.sum(tl.abs(new - old), axis=1)
    tl.store(scores + row * across + block, total, mask=block < across)


@triton.jit
def flag_kernel(scores, tiles, across, threshold, flags, BLOCKS: tl.constexpr):
    """Whether one tile reads a block that changed."""
    index = tl.program_id(0)
    top, bottom = tl.load(tiles + index * 4) // 8, tl.cdiv(tl.load(tiles + index * 4 + 1), 8)
    left, right = tl.load(tiles + index * 4 + 2) // 8, tl.cdiv(tl.load(tiles + index * 4 + 3), 8)
    width = right - left
    best = tl.zeros((BLOCKS,), tl.int32)
    for start in range(0, (bottom - top) * width, BLOCKS):
        at = start + tl.arange(0, BLOCKS)
        inside = at < (bottom - top) * width
        place = scores + (top + at // width) * across + left + at % width
        best = tl.maximum(best, tl.load(place, mask=inside, other=0))
    tl.store(flags + index, (tl.max(best, axis=0) > threshold).to(tl.int32))


@triton.jit
def list_kernel(flags, count, listed, length, TILES: tl.constexpr):
    """Indices of the flags that are set, in order, and how many; one program."""
    at = tl.arange(0, TILES)
    inside = at < count
    flag = tl.load(flags + at, mask=inside, other=0)
    place = tl.cumsum(flag, axis=0)
    total = tl.sum(flag, axis=0)
    tl.store(listed + place - 1, at, mask=flag != 0)
    tl.store(listed + at, tl.full((TILES,), -1, tl.int32), mask=inside & (at >= total))
    tl.store(length, total)


def run(
    before: Tensor, after: Tensor, tiles: Tensor, threshold: int, *, target: str, tile: Tile | None = None
) -> tuple[Tensor, Tensor]:
    """List the tiles whose pixels changed.

    Args:
        before: the frame that the kept result belongs to, uint8 [H, W, 3]; rows may be padded in memory.
        after: the frame to restore, same shape.
        tiles: int32 [tiles, 4] of the rows and columns that each tile reads (top, bottom, left, right), inside the
            frame, at most 4096 tiles.
        threshold: score that a block must exceed, see `threshold_for`.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes.

    Returns:
        int32 [tiles]: indices of the changed tiles in order, then -1; and int32 [1]: how many. Both stay on the device.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride.
    """
    check = Arguments("changes", before.device)
    check.tensor("before", before, (None, None, 3), (torch.uint8,))
    height, width = before.shape[:2]
    check.tensor("after", after, (height, width, 3), (torch.uint8,))
    for name, frame in (("before", before), ("after", after)):
        dense = frame.stride(1) == 3 or width == 1
        check.value(f"{name}'s stride", frame.stride(), dense, "3 and 1 along the last two axes")
    check.tensor("tiles", tiles, (None, 4), (torch.int32,), contiguous=True)
    count = tiles.shape[0]
    check.value("tiles' count", count, 0 < count <= 4096, "1 to 4096")
    check.value("threshold", threshold, threshold >= 0, "at least 0")
    if tile is None:
        tile = tuned(target, "changes")
    down, across, blocks = cdiv(height, BLOCK_SIDE), cdiv(width, BLOCK_SIDE), tile.blocks["BLOCKS"]
    empty = torch.empty((down * across + 2 * count + 1,), dtype=torch.int32, device=before.device)
    scores, flags, listed, length = empty.split((down * across, count, count, 1))
    score_kernel[(down, cdiv(across, blocks))](
        before, after, before.stride(0), after.stride(0), height, width, across, scores, **tile.blocks, **tile.options
    )
    flag_kernel[(count,)](scores, tiles, across, threshold, flags, **tile.blocks, **tile.options)
    list_kernel[(1,)](flags, count, listed, length, TILES=power_of_two(count), **tuned(target, "changes.list").options)
    return listed, length


def variants() -> list[Variant]:
    """What is compiled ahead of time: the three kernels, for up to 1024 tiles."""
    score = {"before": "*u8", "after": "*u8"}
    score |= dict.fromkeys(("before_step", "after_step", "height", "width", "across"), "i32") | {"scores": "*i32"}
    flag = {"scores": "*i32", "tiles": "*i32", "across": "i32", "threshold": "i32", "flags": "*i32"}
    listing = {"flags": "*i32", "count": "i32", "listed": "*i32", "length": "*i32"}
    grid = ("cdiv(height, 8)", "cdiv(across, BLOCKS)", "1")
    return [
        Variant("changes_score", score_kernel, score, {}, "changes", grid),
        Variant("changes_flag", flag_kernel, flag, {}, "changes", ("tiles", "1", "1")),
        Variant("changes_list", list_kernel, listing, {"TILES": 1024}, "changes.list", ("1", "1", "1")),
    ]
