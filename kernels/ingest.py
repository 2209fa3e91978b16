"""From a camera's or decoder's bytes to the network's input in one pass.

uint8 RGB [H, W, 3], or NV12 with conversion, to [1, 3 r^2, H'/r, W'/r]: scaled to 0 to 1, normalised per channel,
continued to whole multiples by reflection (as `uare_rt.tiling.reflect` does) and pixel-unshuffled by r
(arXiv 1609.05158, inverted). Every sample is read once and written once.
"""

from __future__ import annotations

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

__all__ = ["continued", "reference", "rgb_of", "run", "variants"]


def continued(size: int, padded: int, device: torch.device) -> Tensor:
    """Where the px of an axis continued by reflection come from, int64 [padded]."""
    at = torch.arange(padded, device=device)
    if padded <= 2 * size - 1:
        return torch.where(at < size, at, 2 * (size - 1) - at)
    folded = at % (2 * size)
    return torch.where(folded < size, folded, 2 * size - 1 - folded)


def rgb_of(frame: Tensor, colour: Yuv) -> Tensor:
    """NV12 uint8 [3 H / 2, W] -> float32 RGB [H, W, 3], 0 to 1 within rounding, not clipped."""
    height, width = frame.shape[0] * 2 // 3, frame.shape[1]
    luma = (frame[:height].float() - colour.black) / colour.luma
    pairs = (frame[height:].reshape(height // 2, width // 2, 2).float() - 128) / colour.chroma
    rows, columns = torch.arange(height, device=frame.device), torch.arange(width, device=frame.device)
    near, other = rows // 2, (rows // 2 + 2 * (rows % 2) - 1).clamp(0, height // 2 - 1)
    pairs = 0.75 * pairs[near] + 0.25 * pairs[other]
    right = ((columns + 1) // 2).clamp(max=width // 2 - 1)
    pairs = 0.5 * (pairs[:, columns // 2] + pairs[:, right])
    u, v = pairs.unbind(2)
    red = luma + 2 * (1 - colour.red) * v
    blue = luma + 2 * (1 - colour.blue) * u
    return torch.stack((red, (luma - colour.red * red - colour.blue * blue) / colour.green, blue), dim=2)


def reference(
    frame: Tensor,
    *,
    multiple: int = 16,
    unshuffle: int = 1,
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0),
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
    colour: Yuv | None = None,
    dtype: torch.dtype = torch.float16,
) -> Tensor:
    """What `run` computes, in plain torch and fp32."""
    pixels = frame.float() / 255 if colour is None else rgb_of(frame, colour)
    height, width = pixels.shape[:2]
    rows, columns = (continued(n, -(-n // multiple) * multiple, frame.device) for n in (height, width))
    pixels = pixels[rows[:, None], columns]
    pixels = pixels * pixels.new_tensor(gain) + pixels.new_tensor(offset)
    return F.pixel_unshuffle(pixels.permute(2, 0, 1)[None], unshuffle).to(dtype).contiguous()


@triton.jit
def _reflected(at, size, FOLD: tl.constexpr):
    """The px of an axis that the px ``at`` of the continued axis repeats."""
    if FOLD:
        at = at % (2 * size)
        return tl.where(at < size, at, 2 * size - 1 - at)
    return tl.where(at < size, at, 2 * (size - 1) - at)


@triton.jit
def _chroma(frame, place, inside, levels):
    return (tl.load(frame + place, mask=inside, other=128).to(tl.float32) - 128.0) / levels


@triton.jit
def ingest_kernel(
    frame, row_step, height, width, padded_height, padded_width, gain_r, gain_g, gain_b, offset_r, offset_g, offset_b,
    black, luma, levels, kr, kb, out,
    NV12: tl.constexpr, UNSHUFFLE: tl.constexpr, FOLD_Y: tl.constexpr, FOLD_X: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A block of pixels of the padded picture, in the order of the output."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < padded_height * padded_width
    # Neighbouring threads write neighbouring samples of one plane of the unshuffled output.
    plane = index // (padded_height // UNSHUFFLE * (padded_width // UNSHUFFLE))
    rest = index % (padded_height // UNSHUFFLE * (padded_width // UNSHUFFLE))
    y = rest // (padded_width // UNSHUFFLE) * UNSHUFFLE + plane // UNSHUFFLE
    x = rest % (padded_width // UNSHUFFLE) * UNSHUFFLE + plane % UNSHUFFLE
    y, x = _reflected(y, height, FOLD_Y), _reflected(x, width, FOLD_X)
    if NV12:
        bright = (tl.load(frame + y * row_step + x, mask=inside, other=0).to(tl.float32) - black) / luma
        near, across = y // 2, x // 2
        other = tl.minimum(tl.maximum(near + 2 * (y % 2) - 1, 0), height // 2 - 1)
        right = tl.minimum((x + 1) // 2, width // 2 - 1)
        near, other = (height + near) * row_step, (height + other) * row_step
        u = 0.75 * (
            _chroma(frame, near + 2 * across, inside, levels) + _chroma(frame, near + 2 * right, inside, levels)
        )
        v = 0.75 * (
            _chroma(frame, near + 2 * across + 1, inside, levels) + _chroma(frame, near + 2 * right + 1, inside, levels)
        )
        u += 0.25 * (
            _chroma(frame, other + 2 * across, inside, levels) + _chroma(frame, other + 2 * right, inside, levels)
        )
        v += 0.25 * (
            _chroma(frame, other + 2 * across + 1, inside, levels)
            + _chroma(frame, other + 2 * right + 1, inside, levels)
        )
        # Half of the sum over two columns, twice that in the formula.
        red = bright + (1.0 - kr) * v
        blue = bright + (1.0 - kb) * u
        green = (bright - kr * red - kb * blue) / (1.0 - kr - kb)
    else:
        place = frame + y * row_step + x * 3
        red = tl.load(place, mask=inside, other=0).to(tl.float32) / 255.0
        green = tl.load(place + 1, mask=inside, other=0).to(tl.float32) / 255.0
        blue = tl.load(place + 2, mask=inside, other=0).to(tl.float32) / 255.0
    # Channel c of the input is the UNSHUFFLE^2 planes from c * UNSHUFFLE^2 on: one run of padded_height * padded_width.
    size = padded_height * padded_width
    tl.store(out + index, (red * gain_r + offset_r).to(out.dtype.element_ty), mask=inside)
    tl.store(out + size + index, (green * gain_g + offset_g).to(out.dtype.element_ty), mask=inside)
    tl.store(out + 2 * size + index, (blue * gain_b + offset_b).to(out.dtype.element_ty), mask=inside)


def run(
    frame: Tensor,
    *,
    multiple: int = 16,
    unshuffle: int = 1,
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0),
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
    colour: Yuv | None = None,
    dtype: torch.dtype = torch.float16,
    target: str,
    tile: Tile | None = None,
) -> Tensor:
    """Turn a frame of bytes into the network's input.

    Args:
        frame: uint8 [H, W, 3], RGB, or with ``colour`` NV12 [3 H / 2, W] of even H and W; rows may be padded in memory.
        multiple: the result's height and width are multiples of it, and it one of ``unshuffle``.
        unshuffle: r, 1 for none.
        gain: per channel, on samples in 0 to 1.
        offset: per channel, added after.
        colour: of an NV12 frame, see `uare_rt.kernels.colour.yuv`; None for RGB.
        dtype: of the result.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes.

    Returns:
        [1, 3 r^2, H' / r, W' / r] where H' and W' are H and W up to the next multiple.

    Raises:
        UsageError: an argument of the wrong shape, dtype or stride.
    """
    check = Arguments("ingest", frame.device)
    if colour is None:
        check.tensor("frame", frame, (None, None, 3), (torch.uint8,))
        height, width = frame.shape[:2]
        dense = frame.stride(1) == 3 or width == 1
        check.value("frame's stride", frame.stride(), dense, "3 and 1 along the last two axes")
    else:
        check.tensor("frame", frame, (None, None), (torch.uint8,))
        height, width = frame.shape[0] * 2 // 3, frame.shape[1]
        even = frame.shape[0] % 3 == 0 and height % 2 == 0 and width % 2 == 0
        check.value("frame's shape", list(frame.shape), even, "[3 H / 2, W] of even H and W")
    check.value("frame's shape", list(frame.shape), height > 0 and width > 0, "at least one pixel")
    check.value("unshuffle", unshuffle, unshuffle in (1, 2, 4), "1, 2 or 4")
    check.value("multiple", multiple, multiple > 0 and multiple % unshuffle == 0, f"a multiple of {unshuffle}")
    check.value("dtype", dtype, dtype in FLOATS, "float16, bfloat16 or float32")
    if tile is None:
        tile = tuned(target, "ingest")
    tall, wide = (cdiv(size, multiple) * multiple for size in (height, width))
    check.count("the result's size", 3 * tall * wide)
    shape = (1, 3 * unshuffle**2, tall // unshuffle, wide // unshuffle)
    out = torch.empty(shape, dtype=dtype, device=frame.device)
    numbers = (0.0, 1.0, 1.0, 0.0, 0.0)
    if colour is not None:
        numbers = (colour.black, colour.luma, colour.chroma, colour.red, colour.blue)
    ingest_kernel[(cdiv(tall * wide, tile.blocks["BLOCK"]),)](
        frame, frame.stride(0), height, width, tall, wide, *gain, *offset, *numbers, out,
        NV12=colour is not None, UNSHUFFLE=unshuffle, FOLD_Y=tall > 2 * height - 1,
        FOLD_X=wide > 2 * width - 1,
        **tile.blocks, **tile.options,
    )  # fmt: skip
    return out


def variants() -> list[Variant]:
    """What is compiled ahead of time: RGB and NV12, plain and unshuffled by 2."""
    floats = [f"{kind}_{channel}" for kind in ("gain", "offset") for channel in "rgb"]
    floats += ["black", "luma", "levels", "kr", "kb"]
    types = {"frame": "*u8"} | dict.fromkeys(("row_step", "height", "width", "padded_height", "padded_width"), "i32")
    types |= dict.fromkeys(floats, "fp32") | {"out": "*fp16"}
    return [
        Variant(
            f"ingest_{'nv12' if nv12 else 'rgb'}_r{factor}_fp16", ingest_kernel, types,
            {"NV12": nv12, "UNSHUFFLE": factor, "FOLD_Y": False, "FOLD_X": False}, "ingest",
            ("cdiv(padded_height * padded_width, BLOCK)", "1", "1"), ("padded_height", "padded_width"),
        )
        for nv12 in (False, True) for factor in (1, 2)
    ]  # fmt: skip
