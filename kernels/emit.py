"""From the network's output to bytes for a display or encoder in one pass: the reverse of `ingest`.

A tile of the output, [3 r^2, h, w] in 0 to 1, becomes part of a uint8 RGB or NV12 frame: pixel-shuffled, blended with
the original by ``strength``, clamped, dithered if wanted (ordered, 8x8, Bayer 1973), and where the tile overlaps
what earlier tiles wrote, blended over the feather (weights rise from its edge, as `uare_rt.tiling.Span.ramp` has them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from uare_rt.kernels.checks import FLOATS, Arguments
from uare_rt.kernels.jit import cdiv, tl, triton
from uare_rt.kernels.tiles import tile as tuned
from uare_rt.kernels.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.kernels.colour import Yuv
    from uare_rt.kernels.tiles import Tile

__all__ = ["Place", "reference", "run", "variants"]


@dataclass(frozen=True)
class Place:
    """Where a tile's pixels go; all in output px.

    Attributes:
        top: first row of the frame that is written.
        left: first column.
        height: rows written.
        width: columns written.
        skip_y: rows of the tile before the first that is written.
        skip_x: columns likewise.
        feather_y: of the rows written, the first that an earlier tile wrote too.
        feather_x: columns likewise.
    """

    top: int
    left: int
    height: int
    width: int
    skip_y: int = 0
    skip_x: int = 0
    feather_y: int = 0
    feather_x: int = 0


def _ramp(count: int, feather: int, device: torch.device) -> Tensor:
    at = torch.arange(count, device=device, dtype=torch.float32)
    return ((at + 0.5) / max(feather, 1)).clamp(max=1) if feather else torch.ones_like(at)


def _threshold(rows: Tensor, columns: Tensor) -> Tensor:
    """The 8x8 Bayer matrix as -0.5 to 0.5 of a level, for absolute positions."""
    level = torch.zeros_like(rows[:, None] + columns)
    for bit in range(3):
        y, x = (rows[:, None] >> bit) & 1, (columns >> bit) & 1
        level += (2 * (x ^ y) + y) << (2 * (2 - bit))
    return (level + 0.5) / 64 - 0.5


def reference(
    values: Tensor,
    out: Tensor,
    place: Place,
    *,
    shuffle: int = 1,
    original: Tensor | None = None,
    strength: float = 1.0,
    dither: bool = False,
    colour: Yuv | None = None,
) -> None:
    """What `run` does, in plain torch and fp32."""
    tall = out.shape[0] if colour is None else out.shape[0] * 2 // 3
    rows = torch.arange(place.top, place.top + place.height, device=out.device)
    columns = torch.arange(place.left, place.left + place.width, device=out.device)
    whole = F.pixel_shuffle(values.float()[None], shuffle)[0].permute(1, 2, 0)
    pixels = whole[place.skip_y :, place.skip_x :][: place.height, : place.width]
    across = _ramp(place.width, place.feather_x, out.device)
    weight = _ramp(place.height, place.feather_y, out.device)[:, None] * across
    if colour is None:
        _write(pixels * 255, out, original, (rows, columns), weight[..., None], strength, dither)
        return
    luma = (pixels * pixels.new_tensor((colour.red, colour.green, colour.blue))).sum(dim=2)
    bright = luma * colour.luma + colour.black
    _write(bright[..., None], out[..., None], _deep(original), (rows, columns), weight[..., None], strength, dither)
    # A pair's chroma takes part of the pixel before it: of the tile's margin, or the first again at the frame's edge.
    begin = place.skip_x - 1 if place.skip_x and place.left else place.skip_x
    before = whole[place.skip_y : place.skip_y + place.height, begin : begin + 1]
    sides = []
    for channel, share in ((2, colour.blue), (0, colour.red)):
        wide = torch.cat((before, pixels), dim=1)
        luma = (wide * wide.new_tensor((colour.red, colour.green, colour.blue))).sum(dim=2)
        side = (wide[..., channel] - luma) / (2 * (1 - share))
        side = 0.25 * side[:, :-2:2] + 0.5 * side[:, 1:-1:2] + 0.25 * side[:, 2::2]
        sides.append(0.5 * (side[::2] + side[1::2]) * colour.chroma + 128)
    weight = 0.25 * (weight[::2, ::2] + weight[1::2, ::2] + weight[::2, 1::2] + weight[1::2, 1::2])
    pairs = out[tall:].view(tall // 2, -1, 2)
    old = None if original is None else original[tall:].view(tall // 2, -1, 2)
    _write(torch.stack(sides, 2), pairs, old, (rows[::2] // 2, columns[::2] // 2), weight[..., None], strength, dither)


def _deep(original: Tensor | None) -> Tensor | None:
    return None if original is None else original[..., None]


def _write(
    levels: Tensor,
    out: Tensor,
    original: Tensor | None,
    at: tuple[Tensor, Tensor],
    weight: Tensor,
    strength: float,
    dither: bool,
) -> None:
    here = (at[0][:, None], at[1])
    if original is not None:
        base = original[here].float()
        levels = base + strength * (levels - base)
    levels = levels.clamp(0, 255)
    before = out[here].float()
    levels = torch.where(weight < 1, before + weight * (levels - before), levels)
    if dither:
        levels = levels + _threshold(*at)[..., None]
    out[here] = levels.round().clamp(0, 255).to(torch.uint8)


@triton.jit
def _rounded(levels):
    """To nearest, ties to even: adding 1.5 * 2**23 leaves no fraction in fp32."""
    return tl.minimum(tl.maximum((levels + 12582912.0) - 12582912.0, 0.0), 255.0).to(tl.uint8)


@triton.jit
def _bayer(y, x):
    level = ((2 * ((x ^ y) & 1) + (y & 1)) << 4) + ((2 * (((x ^ y) >> 1) & 1) + ((y >> 1) & 1)) << 2)
    level += 2 * (((x ^ y) >> 2) & 1) + ((y >> 2) & 1)
    return (level.to(tl.float32) + 0.5) / 64.0 - 0.5


@triton.jit
def _put(levels, out, original, place, weight, strength, y, x, inside, ORIGINAL: tl.constexpr, DITHER: tl.constexpr):
    """One sample per pixel: strength, clamp, feather, dither, rounding."""
    if ORIGINAL:
        base = tl.load(original + place, mask=inside, other=0).to(tl.float32)
        levels = base + strength * (levels - base)
    levels = tl.minimum(tl.maximum(levels, 0.0), 255.0)
    before = tl.load(out + place, mask=inside & (weight < 1.0), other=0).to(tl.float32)
    levels = tl.where(weight < 1.0, before + weight * (levels - before), levels)
    if DITHER:
        levels += _bayer(y, x)
    tl.store(out + place, _rounded(levels), mask=inside)


@triton.jit
def _rising(at, feather):
    weight = (at.to(tl.float32) + 0.5) / tl.maximum(feather, 1).to(tl.float32)
    return tl.where(feather > 0, tl.minimum(weight, 1.0), 1.0)


@triton.jit
def _sample(values, channel, y, x, tall, wide, inside, SHUFFLE: tl.constexpr):
    """Pixel (y, x) of the shuffled tile, fp32; ``tall`` and ``wide`` are the sizes of the planes as stored."""
    plane = channel * SHUFFLE * SHUFFLE + y % SHUFFLE * SHUFFLE + x % SHUFFLE
    place = (plane * tall + y // SHUFFLE) * wide + x // SHUFFLE
    return tl.load(values + place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def emit_rgb_kernel(
    values, original, tall, wide, row_step, top, left, height, width, skip_y, skip_x, feather_y, feather_x, strength,
    out,
    SHUFFLE: tl.constexpr, ORIGINAL: tl.constexpr, DITHER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A block of pixels, their three channels."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < height * width
    y, x = index // width, index % width
    weight = _rising(y, feather_y) * _rising(x, feather_x)
    place = (top + y) * row_step + (left + x) * 3
    for channel in tl.static_range(3):
        levels = _sample(values, channel, y + skip_y, x + skip_x, tall, wide, inside, SHUFFLE) * 255.0
        _put(
            levels, out, original, place + channel, weight, strength, top + y, left + x, inside, ORIGINAL, DITHER
        )  # fmt: skip


@triton.jit
def emit_nv12_kernel(
    values, original, tall, wide, row_step, top, left, height, width, skip_y, skip_x, feather_y, feather_x, strength,
    frame_height, black, luma, levels, kr, kb, out,
    SHUFFLE: tl.constexpr, ORIGINAL: tl.constexpr, DITHER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A block of 2x2 pixels: four luma samples and one chroma pair."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < height * width // 4
    pair_y, pair_x = index // (width // 2), index % (width // 2)
    kg = 1.0 - kr - kb
    blues = tl.zeros((BLOCK,), tl.float32)
    reds = tl.zeros((BLOCK,), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for down in tl.static_range(2):
        y = pair_y * 2 + down
        for across in tl.static_range(3):
            # Across, chroma averages the pixel before, its own and the one after: 1-2-1, the frame's first one twice.
            x = tl.maximum(pair_x * 2 + across - 1, -tl.minimum(skip_x, left))
            red = _sample(values, 0, y + skip_y, x + skip_x, tall, wide, inside, SHUFFLE)
            green = _sample(values, 1, y + skip_y, x + skip_x, tall, wide, inside, SHUFFLE)
            blue = _sample(values, 2, y + skip_y, x + skip_x, tall, wide, inside, SHUFFLE)
            bright = kr * red + kg * green + kb * blue
            share = 0.25 if across == 1 else 0.125
            blues += share * (blue - bright)
            reds += share * (red - bright)
            if across > 0:
                weight = _rising(y, feather_y) * _rising(x, feather_x)
                total += 0.25 * weight
                _put(
                    bright * luma + black, out, original, (top + y) * row_step + left + x, weight, strength, top + y,
                    left + x, inside, ORIGINAL, DITHER,
                )  # fmt: skip
    row, column = top // 2 + pair_y, left // 2 + pair_x
    place = (frame_height + row) * row_step + 2 * column
    blues = blues * levels / (2.0 * (1.0 - kb)) + 128.0
    reds = reds * levels / (2.0 * (1.0 - kr)) + 128.0
    _put(blues, out, original, place, total, strength, row, column, inside, ORIGINAL, DITHER)
    _put(reds, out, original, place + 1, total, strength, row, column, inside, ORIGINAL, DITHER)


def run(
    values: Tensor,
    out: Tensor,
    place: Place,
    *,
    shuffle: int = 1,
    original: Tensor | None = None,
    strength: float = 1.0,
    dither: bool = False,
    colour: Yuv | None = None,
    target: str,
    tile: Tile | None = None,
) -> None:
    """Write a tile of the network's output into a frame of bytes.

    Args:
        values: fp16, bf16 or fp32 [3 r^2, h, w], contiguous, RGB in 0 to 1, not clipped.
        out: the frame, uint8 [H, W, 3], RGB, or with ``colour`` NV12 [3 H / 2, W]; rows may be padded in memory.
        place: where the tile goes; all even for NV12, the feathers too.
        shuffle: r, 1 for none.
        original: a frame like ``out`` of equal strides that ``strength`` blends with; None takes no part of it.
        strength: 0 keeps the original, 1 is the full restoration.
        dither: spread the rounding error in an ordered pattern.
        colour: of an NV12 frame, see `uare_rt.kernels.colour.yuv`; None for RGB.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride, or a place outside tile or frame.
    """
    check = Arguments("emit", values.device)
    check.value("shuffle", shuffle, shuffle in (1, 2, 4, 8), "1, 2, 4 or 8")
    check.tensor("values", values, (3 * shuffle**2, None, None), FLOATS, contiguous=True)
    tall, wide = values.shape[1:]
    check.tensor("out", out, (None, None, 3) if colour is None else (None, None), (torch.uint8,))
    height, width = (out.shape[0] if colour is None else out.shape[0] * 2 // 3), out.shape[1]
    if colour is None:
        check.value("out's stride", out.stride(), width == 1 or out.stride(1) == 3, "3 and 1 along the last two axes")
    else:
        numbers = (*vars(place).values(), height, width)
        check.value("place", place, all(n % 2 == 0 for n in numbers) and out.shape[0] % 3 == 0, "even for NV12")
    inside = min(vars(place).values()) >= 0 and place.top + place.height <= height and place.left + place.width <= width
    check.value("place", place, inside, f"inside a frame of {width}x{height}")
    held = place.skip_y + place.height <= tall * shuffle and place.skip_x + place.width <= wide * shuffle
    check.value("place", place, held, f"inside a tile of {wide * shuffle}x{tall * shuffle}")
    check.value("strength", strength, 0 <= strength <= 1, "from 0 to 1")
    if original is not None:
        check.tensor("original", original, out.shape, (torch.uint8,))
        same = original.stride() == out.stride()
        check.value("original's stride", original.stride(), same, f"that of out, {out.stride()}")
    elif strength < 1:
        check.value("original", original, False, "given with a strength below 1")
    if tile is None:
        tile = tuned(target, "emit")
    if not place.height * place.width:
        return
    arguments = (
        values, out if original is None else original, tall, wide, out.stride(0), place.top, place.left, place.height,
        place.width, place.skip_y, place.skip_x, place.feather_y, place.feather_x, strength,
    )  # fmt: skip
    constants = {"SHUFFLE": shuffle, "ORIGINAL": original is not None, "DITHER": dither, **tile.blocks, **tile.options}
    if colour is None:
        emit_rgb_kernel[(cdiv(place.height * place.width, tile.blocks["BLOCK"]),)](*arguments, out, **constants)
        return
    numbers = (height, colour.black, colour.luma, colour.chroma, colour.red, colour.blue)
    grid = (cdiv(place.height * place.width // 4, tile.blocks["BLOCK"]),)
    emit_nv12_kernel[grid](*arguments, *numbers, out, **constants)


def variants() -> list[Variant]:
    """What is compiled ahead of time: RGB and NV12 with original and dither, which strength 1 and no feather allow."""
    sizes = ("tall", "wide", "row_step", "top", "left", "height", "width", "skip_y", "skip_x", "feather_y", "feather_x")
    types = {"values": "*fp16", "original": "*u8"} | dict.fromkeys(sizes, "i32") | {"strength": "fp32"}
    colour = {"frame_height": "i32"} | dict.fromkeys(("black", "luma", "levels", "kr", "kb"), "fp32")
    constants = {"SHUFFLE": 1, "ORIGINAL": True, "DITHER": True}
    rgb, nv12 = ("cdiv(height * width, BLOCK)", "1", "1"), ("cdiv(height * width / 4, BLOCK)", "1", "1")
    return [
        Variant("emit_rgb_fp16", emit_rgb_kernel, types | {"out": "*u8"}, constants, "emit", rgb),
        Variant("emit_nv12_fp16", emit_nv12_kernel, types | colour | {"out": "*u8"}, constants, "emit", nv12),
    ]
