"""The local network of ``uare-nano``: global tone operator and convolutional codec with skips.

Plain 3x3 convolutions where the pixels are many. The quality context modulates a convolution's output
before its activation, so that a constant context folds exactly into that convolution's weights. While it is
trained, the convolutions are re-parameterised (`uare_rt.model.reparam`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uare_rt.kernels import dispatch
from uare_rt.model.reparam import RepConv2d

if TYPE_CHECKING:
    from uare_rt.model.presets.nano import NanoConfig

__all__ = ["Codec", "ModulatedConv", "ToneOperator", "bicubic_kernel"]

_LEAK = 0.1
_TONE_TERMS = 5  # gain, offset, then weights of x, x^2 and sqrt(x)


def _act(x: Tensor) -> Tensor:
    """Leaky: without normalisation layers a plain ReLU lets whole layers die early in training."""
    return F.leaky_relu(x, _LEAK)


class ToneOperator(nn.Module):
    """Global curve per channel, predicted from the pooled quality context.

    With ``u = max(g x + o, 0)`` the result is ``(1 + a) u + b u^2 + c sqrt(u)``: exposure and the removal of a
    uniform veil are affine in linear light, and the square and root terms follow the sRGB curve.
    Zero weights give the identity.
    """

    def __init__(self, context: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(context, 64)
        self.out = nn.Linear(64, 3 * _TONE_TERMS)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, frame: Tensor, context: Tensor) -> Tensor:
        """Frame [N, 3, H, W] and context vector [N or 1, C] -> [N, 3, H, W]."""
        terms = self.out(F.silu(self.hidden(context))).reshape(-1, _TONE_TERMS, 3, 1, 1)
        gain, offset, linear, square, root = terms.unbind(1)
        u = F.relu(frame * gain.exp() + offset)
        return u * (1 + linear + square * u) + root * (torch.sqrt(u + 1e-4) - 1e-2)


class ModulatedConv(nn.Module):
    """``act((1 + scale(c)) * conv3x3(x) + shift(c))``."""

    def __init__(self, channels: int, context: int, *, reparameterised: bool) -> None:
        super().__init__()
        self.conv = _conv(channels, channels, 3, padding=1, reparameterised=reparameterised)
        self.modulation = nn.Linear(context, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[N, channels, H, W] and context vector [N or 1, C] -> same shape as x."""
        scale, shift = self.modulation(context)[..., None, None].chunk(2, dim=1)
        fused = dispatch.modulated_conv(self.conv, x, scale, shift)
        if fused is not None:
            return fused
        return _act(self.conv(x) * (1 + scale) + shift)


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, *, reparameterised: bool
) -> nn.Module:
    if reparameterised:
        return RepConv2d(inputs, outputs, kernel, stride, padding)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding)


def bicubic_kernel(scale: int) -> Tensor:
    """Bicubic upsampling (a = -0.5, Keys 1981) as a convolution followed by a pixel shuffle.

    Args:
        scale: whole factor, at least 2.

    Returns:
        float32 [3 * scale^2, 3, 5, 5].
    """

    def cubic(x: Tensor) -> Tensor:
        x = x.abs()
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))

    phase = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    taps = cubic(torch.arange(-2, 3, dtype=torch.float64)[None] - phase[:, None])
    taps = taps / taps.sum(dim=1, keepdim=True)
    kernel = torch.zeros(3, scale, scale, 3, 5, 5, dtype=torch.float64)
    for channel in range(3):
        kernel[channel, :, :, channel] = taps[:, None, :, None] * taps[None, :, None, :]
    return kernel.reshape(3 * scale**2, 3, 5, 5).float()


class Head(nn.Module):
    """Residual at ``scale`` times the input size from features at /2, added to the upsampled base."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(channels, 3 * (2 * scale) ** 2, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        if scale > 1:
            self.register_buffer("kernel", bicubic_kernel(scale), persistent=False)

    def forward(self, features: Tensor, base: Tensor) -> Tensor:
        """[N, channels, H/2, W/2] and [N, 3, H, W] -> [N, 3, scale H, scale W]."""
        residual = F.pixel_shuffle(self.conv(features), 2 * self.scale)
        if self.scale > 1:
            extended = F.pad(base, (2, 2, 2, 2), mode="replicate")
            base = F.pixel_shuffle(F.conv2d(extended, self.kernel), self.scale)
        return base + residual


class Codec(nn.Module):
    """Convolutional encoder and decoder with skips; its bottleneck is the latent grid at /16."""

    def __init__(self, config: NanoConfig, scales: tuple[int, ...], *, reparameterised: bool) -> None:
        super().__init__()
        widths, latent, context = config.widths, config.mot.hidden, config.context_vector
        conv = partial(_conv, reparameterised=reparameterised)
        # A 6x6 convolution of stride 2 is a 3x3 one on 2x2-unshuffled pixels.
        self.stem = conv(3, widths[0], 6, stride=2, padding=2)
        steps = list(zip(widths, (*widths[1:], latent), strict=True))
        self.down = nn.ModuleList(conv(a, b, 2, stride=2) for a, b in steps)
        self.up = nn.ModuleList(conv(b, a, 1) for a, b in steps)
        self.encoder, self.decoder = (
            nn.ModuleList(
                nn.ModuleList(ModulatedConv(width, context, reparameterised=reparameterised) for _ in range(count))
                for width, count in zip(widths, counts, strict=True)
            )
            for counts in (config.encoder_convs, config.decoder_convs)
        )
        self.heads = nn.ModuleDict({f"x{s}": Head(widths[0], s) for s in scales})

    def encode(self, base: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[N, 3, H, W] -> latent [N, D, H/16, W/16] and the skips at /2, /4, /8."""
        x, skips = _act(self.stem(base)), []
        for level, down in zip(self.encoder, self.down, strict=True):
            for conv in level:
                x = conv(x, context)
            skips.append(x)
            x = down(x)
            if len(skips) < len(self.down):
                x = _act(x)
        return x, skips

    def decode(self, latent: Tensor, skips: list[Tensor], context: Tensor) -> Tensor:
        """Latent [N, D, H/16, W/16] and skips -> features [N, widths[0], H/2, W/2]."""
        x = latent
        for up, level, skip in zip(reversed(self.up), reversed(self.decoder), reversed(skips), strict=True):
            x = F.interpolate(up(x), scale_factor=2.0, mode="nearest") + skip
            for conv in level:
                x = conv(x, context)
        return x
