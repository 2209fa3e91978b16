"""Quality modulation with bias, residual and activation in one pass.

``y = act((1 + scale_c) (x + bias_c) + shift_c + residual)``: what follows a convolution of uare-nano's codec
(feature-wise modulation, arXiv 1709.07871). Channels last or first in memory; arithmetic in fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from uare_rt.kernels.checks import FLOATS, Arguments
from uare_rt.kernels.jit import cdiv, power_of_two, tl, triton
from uare_rt.kernels.tiles import tile as tuned
from uare_rt.kernels.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.kernels.tiles import Tile

__all__ = ["ACTIVATIONS", "LEAK", "MAX_CHANNELS", "activate", "modulated", "reference", "run", "variants"]

ACTIVATIONS = ("none", "leaky", "silu")
LEAK = 0.1
MAX_CHANNELS = 512


def activate(x: Tensor, activation: str) -> Tensor:
    """One of `ACTIVATIONS`; the leaky one has a slope of 0.1 below zero."""
    if activation == "leaky":
        return F.leaky_relu(x, LEAK)
    return F.silu(x) if activation == "silu" else x


def reference(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "leaky",
) -> Tensor:
    """What `run` computes, in plain torch and the precision of its arguments."""
    if bias is not None:
        x = x + bias[:, None, None]
    y = (1 + scale[..., None, None]) * x + shift[..., None, None]
    return activate(y if residual is None else y + residual, activation)


@triton.jit
def modulated(values, scale, shift, ACTIVATION: tl.constexpr):
    """The formula on fp32 blocks; a bias is in ``values`` and a residual in ``shift`` already."""
    values = (1.0 + scale) * values + shift
    if ACTIVATION == "leaky":
        values = tl.where(values < 0.0, values * 0.1, values)
    if ACTIVATION == "silu":
        values = values / (1.0 + tl.exp(-values))
    return values


@triton.jit
def modulation_kernel(
    x, scale, shift, bias, residual, pixels, channels, scale_batch, out,
    LAST: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, ACTIVATION: tl.constexpr, CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """A block of pixels, all channels, of one picture."""
    batch = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, CHANNELS)
    known = channel < channels
    inside = (pixel < pixels)[:, None] & known[None, :]
    channel_step = 1 if LAST else pixels
    place = pixel[:, None] * (channels if LAST else 1) + channel[None, :] * channel_step
    place += batch * pixels * channels
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        values += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    factor = tl.load(scale + batch * scale_batch + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    offset = tl.load(shift + batch * scale_batch + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    if RESIDUAL:
        offset += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    values = modulated(values, factor, offset, ACTIVATION)
    tl.store(out + place, values.to(out.dtype.element_ty), mask=inside)


def run(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "leaky",
    target: str,
    tile: Tile | None = None,
) -> Tensor:
    """Modulate the output of a convolution.

    Args:
        x: fp16, bf16 or fp32 [N, C, H, W], C up to 512; contiguous, or contiguous with channels last.
        scale: same dtype, [N or 1, C]; batch 1 is shared.
        shift: as scale, of the same strides.
        bias: same dtype, [C], or None.
        residual: as x, of the same strides, or None.
        activation: one of `ACTIVATIONS`.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes.

    Returns:
        As x.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride.
    """
    check = Arguments("modulation", x.device)
    check.tensor("x", x.movedim(1, -1) if x.ndim == 4 and x.stride(1) == 1 else x, (None,) * 4, FLOATS)
    batch, channels, height, width = x.shape
    check.batch("x", batch)
    check.value("x's channel count", channels, 0 < channels <= MAX_CHANNELS, f"1 to {MAX_CHANNELS}")
    last = x.is_contiguous(memory_format=torch.channels_last)
    check.value("x's stride", x.stride(), last or x.is_contiguous(), "that of a dense tensor, channels first or last")
    check.value("scale's batch", scale.shape[0], scale.shape[0] in (1, batch), f"1 or {batch}")
    for name, part in (("scale", scale), ("shift", shift)):
        check.tensor(name, part, (scale.shape[0], channels), (x.dtype,))
    check.value("shift's stride", shift.stride(), shift.stride() == scale.stride(), f"that of scale, {scale.stride()}")
    if bias is not None:
        check.tensor("bias", bias, (channels,), (x.dtype,), contiguous=True)
    if residual is not None:
        check.value("residual's shape", list(residual.shape), residual.shape == x.shape, f"{list(x.shape)}")
        check.value("residual's stride", residual.stride(), residual.stride() == x.stride(), f"that of x, {x.stride()}")
        check.value("residual's dtype", residual.dtype, residual.dtype == x.dtype, str(x.dtype))
        check.value("residual's device", residual.device, residual.device == x.device, str(x.device))
    check.value("activation", repr(activation), activation in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}")
    if tile is None:
        tile = tuned(target, _tile_key(channels))
    out = torch.empty_like(x)
    if not x.numel():
        return out
    pixels = height * width
    modulation_kernel[(cdiv(pixels, tile.blocks["PIXELS"]), batch)](
        x, scale, shift, x if bias is None else bias, x if residual is None else residual, pixels, channels,
        0 if scale.shape[0] == 1 else scale.stride(0), out,
        LAST=last, BIAS=bias is not None, RESIDUAL=residual is not None, ACTIVATION=activation,
        CHANNELS=power_of_two(channels), **tile.blocks, **tile.options,
    )  # fmt: skip
    return out


def _tile_key(channels: int) -> str:
    if channels <= 64:
        return "modulation.narrow"
    return "modulation.wide" if channels <= 128 else "modulation.widest"


def variants() -> list[Variant]:
    """What is compiled ahead of time: the codec of uare-nano, channels last, and channels first for TensorRT."""
    return [
        *(_variant(channels, last=True, residual=residual) for channels in (32, 64, 96) for residual in (False, True)),
        *(_variant(channels, last=False, residual=False) for channels in (32, 64, 96)),
    ]


def _variant(channels: int, *, last: bool, residual: bool) -> Variant:
    types = dict.fromkeys(("x", "scale", "shift", "bias", "residual"), "*fp16")
    types |= dict.fromkeys(("pixels", "channels", "scale_batch"), "i32") | {"out": "*fp16"}
    constants = {"LAST": last, "BIAS": last, "RESIDUAL": residual, "ACTIVATION": "leaky"}
    constants |= {"CHANNELS": power_of_two(channels)}
    name = f"modulation_{'nhwc' if last else 'nchw'}_c{channels}{'_residual' if residual else ''}_fp16"
    whole = ("channels", "scale_batch", *(() if last else ("pixels",)))
    return Variant(
        name, modulation_kernel, types, constants, _tile_key(channels), ("cdiv(pixels, PIXELS)", "batch", "1"), whole
    )
