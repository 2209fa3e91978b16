"""The image autoencoder of ``uare-7b`` (that of FLUX). Module names are those of its weight file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from uare_rt.model.presets.uare_7b import CodecConfig

__all__ = ["Autoencoder", "Decoder", "Encoder"]

_GROUPS = 32
_EPS = 1e-6


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels, eps=_EPS)


class _Residual(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.norm1 = _norm(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.norm2 = _norm(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class _Attention(nn.Module):
    """One head over all positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (conv(normed).flatten(2).transpose(1, 2)[:, None] for conv in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return x + self.proj_out(mixed.reshape(x.shape))


class _Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = _Residual(channels, channels)
        self.attn_1 = _Attention(channels)
        self.block_2 = _Residual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class _Downsample(nn.Module):
    """Stride 2, padded at the right and bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Level(nn.Module):
    def __init__(self, inside: int, outside: int, blocks: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(_Residual(outside if i else inside, outside) for i in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x


class Encoder(nn.Module):
    """Image -> mean and log variance of the latent."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(config.picture_channels, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        for index, (inside, outside) in enumerate(zip([config.channels, *widths], widths, strict=False)):
            level = _Level(inside, outside, config.blocks)
            if index < len(widths) - 1:
                level.downsample = _Downsample(outside)
            self.down.append(level)
        self.mid = _Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] in [-1, 1] -> [N, 2 z, H / stride, W / stride], means before log variances."""
        x = self.conv_in(image)
        for index, level in enumerate(self.down):
            x = level(x)
            if index < len(self.down) - 1:
                x = level.downsample(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latent -> image. ``up`` is indexed as the encoder's levels are and run backwards."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.mid = _Middle(widths[-1])
        self.up = nn.ModuleList()
        for index, (inside, outside) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True)):
            level = _Level(inside, outside, config.blocks + 1)
            if index:
                level.upsample = _Upsample(outside)
            self.up.append(level)
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.picture_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, z, h, w] -> [N, 3, stride h, stride w], not clamped."""
        x = self.mid(self.conv_in(x))
        for index in reversed(range(len(self.up))):
            level = self.up[index]
            x = level(x)
            if index:
                x = level.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """Image <-> latent, ``latent = scale * (posterior - shift)``."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, image: Tensor, eps: Tensor | None = None) -> Tensor:
        """Encode one image.

        Args:
            image: [3, H, W] in [-1, 1], sides multiples of the stride.
            eps: standard normal [z, H / stride, W / stride] to sample the posterior, or None for its mean.

        Returns:
            float [z, H / stride, W / stride].
        """
        mean, log_variance = self.encoder(image[None].to(self.encoder.conv_in.weight))[0].chunk(2)
        if eps is not None:
            mean = mean + torch.exp(log_variance / 2) * eps.to(mean)
        return self.config.scale * (mean - self.config.shift)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent [z, h, w] -> image [3, stride h, stride w], about [-1, 1], not clamped."""
        x = latent.to(self.decoder.conv_in.weight) / self.config.scale + self.config.shift
        return self.decoder(x[None])[0]
