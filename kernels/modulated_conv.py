"""A 3x3 convolution with the quality modulation as its epilogue, channels last.

``y = act((1 + scale_c) (conv3x3(x) + bias_c) + shift_c + residual)`` as an implicit matrix product: rows are pixels,
columns output channels, and the sum runs over nine taps of the input channels; the product meets its modulation in
registers and is written once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from uare_rt.kernels import modulation
from uare_rt.kernels.checks import FLOATS, Arguments
from uare_rt.kernels.jit import cdiv, tl, triton
from uare_rt.kernels.modulation import ACTIVATIONS, modulated
from uare_rt.kernels.tiles import tile as tuned
from uare_rt.kernels.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.kernels.tiles import Tile

__all__ = ["reference", "run", "takes", "variants"]

_PLAIN = {
    "kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1,
    "padding_mode": "zeros",
}  # fmt: skip


def takes(conv: nn.Module, x: Tensor) -> bool:
    """Whether `run` can do a module's work: a plain 3x3 convolution, with channels last in memory."""
    if type(conv) is not nn.Conv2d or conv.bias is None or x.ndim != 4:
        return False
    plain = all(getattr(conv, name) == value for name, value in _PLAIN.items())
    return plain and all(part.is_contiguous(memory_format=torch.channels_last) for part in (x, conv.weight))


def reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    residual: Tensor | None = None,
    activation: str = "leaky",
) -> Tensor:
    """What `run` computes, in plain torch and the precision of its arguments."""
    product = F.conv2d(x, weight, bias, padding=1)
    return modulation.reference(product, scale, shift, residual=residual, activation=activation)


@triton.jit
def modulated_conv_kernel(
    x, weight, bias, scale, shift, residual, height, width, inside_channels, channels, scale_batch, out,
    RESIDUAL: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A block of pixels by a block of output channels of one picture."""
    batch = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    present = column < channels
    row, across = pixel // width, pixel % width
    x += batch * height * width * inside_channels
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    chunks = tl.cdiv(inside_channels, BLOCK_K)
    # One loop over taps and channels: a loop over few channels has no next load to overlap with a product.
    for step in range(9 * chunks):
        tap = step // chunks
        y, left = row + tap // 3 - 1, across + tap % 3 - 1
        held = (y >= 0) & (y < height) & (left >= 0) & (left < width)
        k = step % chunks * BLOCK_K + tl.arange(0, BLOCK_K)
        known = k < inside_channels
        place = (y * width + left)[:, None] * inside_channels + k[None, :]
        values = tl.load(x + place, mask=held[:, None] & known[None, :], other=0.0)
        place = (column * 9 + tap)[None, :] * inside_channels + k[:, None]
        taps = tl.load(weight + place, mask=known[:, None] & present[None, :], other=0.0)
        total = tl.dot(values, taps, total, input_precision="ieee")
    total += tl.load(bias + column, mask=present, other=0.0).to(tl.float32)[None, :]
    factor = tl.load(scale + batch * scale_batch + column, mask=present, other=0.0).to(tl.float32)[None, :]
    offset = tl.load(shift + batch * scale_batch + column, mask=present, other=0.0).to(tl.float32)[None, :]
    inside = (row < height)[:, None] & present[None, :]
    place = (batch * height * width + pixel)[:, None] * channels + column[None, :]
    if RESIDUAL:
        offset += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, modulated(total, factor, offset, ACTIVATION).to(out.dtype.element_ty), mask=inside)


def run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    residual: Tensor | None = None,
    activation: str = "leaky",
    target: str,
    tile: Tile | None = None,
) -> Tensor:
    """Convolve and modulate.

    Args:
        x: fp16, bf16 or fp32 [N, C, H, W] with channels last in memory.
        weight: same dtype, [D, C, 3, 3] with channels last in memory.
        bias: same dtype, [D].
        scale: same dtype, [N or 1, D]; batch 1 is shared.
        shift: as scale, of the same strides.
        residual: [N, D, H, W] with channels last in memory, or None.
        activation: one of `uare_rt.kernels.modulation.ACTIVATIONS`.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes.

    Returns:
        [N, D, H, W] with channels last in memory.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride.
    """
    check = Arguments("modulated conv", x.device)

    def picture(name: str, value: Tensor, shape: tuple[int | None, ...]) -> None:
        dense = value.ndim != 4 or value.is_contiguous(memory_format=torch.channels_last)
        check.value(f"{name}'s stride", value.stride(), dense, "that of a tensor with channels last in memory")
        check.tensor(name, value.permute(0, 2, 3, 1) if value.ndim == 4 else value, shape, FLOATS)

    picture("x", x, (None,) * 4)
    batch, inside, height, width = x.shape
    check.batch("x", batch)
    picture("weight", weight, (None, 3, 3, inside))
    channels = weight.shape[0]
    check.value("scale's batch", scale.shape[0], scale.shape[0] in (1, batch), f"1 or {batch}")
    for name, part in (("scale", scale), ("shift", shift)):
        check.tensor(name, part, (scale.shape[0], channels), (x.dtype,))
    check.value("shift's stride", shift.stride(), shift.stride() == scale.stride(), f"that of scale, {scale.stride()}")
    check.tensor("bias", bias, (channels,), (x.dtype,), contiguous=True)
    check.value("weight's dtype", weight.dtype, weight.dtype == x.dtype, str(x.dtype))
    if residual is not None:
        picture("residual", residual, (batch, height, width, channels))
        check.value("residual's dtype", residual.dtype, residual.dtype == x.dtype, str(x.dtype))
    check.value("activation", repr(activation), activation in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}")
    if tile is None:
        tile = tuned(target, "modulated_conv")
    out = torch.empty(batch, channels, height, width, dtype=x.dtype, device=x.device)
    out = out.contiguous(memory_format=torch.channels_last)
    if not out.numel():
        return out
    grid = (cdiv(height * width, tile.blocks["BLOCK_M"]), cdiv(channels, tile.blocks["BLOCK_N"]), batch)
    modulated_conv_kernel[grid](
        x, weight, bias, scale, shift, x if residual is None else residual, height, width, inside, channels,
        0 if scale.shape[0] == 1 else scale.stride(0), out,
        RESIDUAL=residual is not None, ACTIVATION=activation, **tile.blocks, **tile.options,
    )  # fmt: skip
    return out


def variants() -> list[Variant]:
    """What is compiled ahead of time: any channel counts that are multiples of 16, with and without residual."""
    return [_variant(residual) for residual in (False, True)]


def _variant(residual: bool) -> Variant:
    types = dict.fromkeys(("x", "weight", "bias", "scale", "shift", "residual"), "*fp16")
    types |= dict.fromkeys(("height", "width", "inside_channels", "channels", "scale_batch"), "i32")
    types |= {"out": "*fp16"}
    grid = ("cdiv(height * width, BLOCK_M)", "cdiv(channels, BLOCK_N)", "batch")
    name = f"modulated_conv_{'residual_' if residual else ''}fp16"
    constants = {"RESIDUAL": residual, "ACTIVATION": "leaky"}
    whole = ("inside_channels", "channels", "scale_batch")
    return Variant(name, modulated_conv_kernel, types, constants, "modulated_conv", grid, whole)
