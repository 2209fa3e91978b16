"""The image autoencoder of ``uare-7b`` (that of FLUX). Module names are those of its weight file.

The outer part of either half, its two finest levels, can run in tiles; the rest always runs whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uare_rt.model.costs import codec_bytes
from uare_rt.model.memory import require
from uare_rt.model.vae_tiling import GroupNorm, in_tiles
from uare_rt.vlm.codec_tiles import check_tile, spans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uare_rt.model.presets.uare_7b import CodecConfig

__all__ = ["GROUPS", "Autoencoder", "Decoder", "Encoder", "outer_levels"]

GROUPS = 32
"""Groups of every norm."""
_EPS = 1e-6
_OUTER = 2  # finest levels, where nearly all of the memory goes


def outer_levels(config: CodecConfig) -> int:
    """How many of the finest levels can run in tiles; at least one level stays whole."""
    return min(_OUTER, len(config.multipliers) - 1)


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(GROUPS, channels, eps=_EPS)


@dataclass(frozen=True)
class _Tiles:
    """How the outer part of a half is cut: pixels a tile may hold, pixels per cell, cells it reaches beyond its own.

    A cell is an element of the features between the outer part and the rest.
    """

    tile: int
    cell: int
    reach: int

    def run(self, outer: Callable[[Tensor], Tensor], parts: nn.Module, x: Tensor, cells: tuple[int, int]) -> Tensor:
        """``outer``, whose norms are those of ``parts``, over x, which has so many cells down and across."""
        check_tile(self.tile, self.cell, self.reach)
        norms = [module for module in parts.modules() if isinstance(module, GroupNorm)]
        rows, columns = (spans(along, self.tile // self.cell, self.reach) for along in cells)
        return in_tiles(outer, norms, x, (rows, columns))


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
        # Contiguous: otherwise PyTorch holds the scores of all pairs of positions.
        q, k, v = (conv(normed).flatten(2).transpose(1, 2)[:, None].contiguous() for conv in (self.q, self.k, self.v))
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
        self.tiled = outer_levels(config)
        # Pixels that a cell depends on to either side, from the inside out.
        pixels = 0
        for _ in range(self.tiled):
            pixels = 2 * pixels + 2 + 2 * config.blocks
        self.reach = -(-(pixels + 1) // 2**self.tiled)
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

    def _levels(self, x: Tensor, first: int, stop: int) -> Tensor:
        for index in range(first, stop):
            x = self.down[index](x)
            if index < len(self.down) - 1:
                x = self.down[index].downsample(x)
        return x

    def outer(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] -> features between the outer levels and the rest."""
        return self._levels(self.conv_in(image), 0, self.tiled)

    def forward(self, image: Tensor, tile: int | None = None) -> Tensor:
        """Encode.

        Args:
            image: [N, 3, H, W] in [-1, 1].
            tile: pixels along the side of a tile that the outer part may read at once; None takes the whole image.

        Returns:
            [N, 2 z, H / stride, W / stride], means before log variances.

        Raises:
            UsageError: the tile is smaller than what its convolutions read.
        """
        image = image.to(self.conv_in.weight)
        height, width = image.shape[2:]
        if tile is None or max(height, width) <= tile:
            x = self.outer(image)
        else:
            cell = 2**self.tiled
            tiles = _Tiles(tile, cell, self.reach)
            x = tiles.run(self.outer, self.down[: self.tiled], image, (height // cell, width // cell))
        x = self._levels(x, self.tiled, len(self.down))
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latent -> image. ``up`` is indexed as the encoder's levels are and run backwards."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.multipliers]
        self.tiled = outer_levels(config)
        # Cells that a pixel depends on to either side, from the outside in.
        self.reach = 1
        for _ in range(self.tiled):
            self.reach = -(-(self.reach + 2 * (config.blocks + 1) + 1) // 2)
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

    def _levels(self, x: Tensor, first: int, stop: int) -> Tensor:
        """Levels from ``first`` down to ``stop``, each with the enlargement before it."""
        for index in range(first, stop - 1, -1):
            if index < len(self.up) - 1:
                x = self.up[index + 1].upsample(x)
            x = self.up[index](x)
        return x

    def inner(self, x: Tensor) -> Tensor:
        """[N, z, h, w] -> features between the outer levels and the rest."""
        return self._levels(self.mid(self.conv_in(x.to(self.conv_in.weight))), len(self.up) - 1, self.tiled)

    def outer(self, x: Tensor) -> Tensor:
        """Features between the outer levels and the rest -> [N, 3, H, W]."""
        return self.conv_out(F.silu(self.norm_out(self._levels(x, self.tiled - 1, 0))))

    def forward(self, x: Tensor, tile: int | None = None) -> Tensor:
        """Decode.

        Args:
            x: [N, z, h, w].
            tile: pixels along the side of a tile that the outer part may make at once; None makes the whole image.

        Returns:
            [N, 3, stride h, stride w], not clamped.

        Raises:
            UsageError: the tile is smaller than what its convolutions read.
        """
        x = self.inner(x)
        height, width = x.shape[2:]
        cell = 2**self.tiled
        if tile is None or max(height, width) * cell <= tile:
            return self.outer(x)
        parts = nn.ModuleList([*self.up[: self.tiled], self.norm_out])
        return _Tiles(tile, cell, self.reach).run(self.outer, parts, x, (height, width))


class Autoencoder(nn.Module):
    """Image <-> latent, ``latent = scale * (posterior - shift)``.

    Attributes:
        config: dimensions.
        tile: pixels along the side of what the outer parts work on at once; None takes the whole picture.
    """

    tile: int | None = None

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

        Raises:
            BackendError: the device does not have the memory.
            UsageError: the tile is smaller than what its convolutions read.
        """
        self._require("encoding", image.shape[1:], image.device)
        mean, log_variance = self.encoder(image[None], self.tile)[0].chunk(2)
        if eps is not None:
            mean = mean + torch.exp(log_variance / 2) * eps.to(mean)
        return self.config.scale * (mean - self.config.shift)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent [z, h, w] -> image [3, stride h, stride w], about [-1, 1], not clamped; errors as for `encode`."""
        x = latent / self.config.scale + self.config.shift
        height, width = (side * self.config.stride for side in latent.shape[1:])
        self._require("decoding", (height, width), latent.device)
        return self.decoder(x[None], self.tile)[0]

    def _require(self, what: str, size: Sequence[int], device: torch.device) -> None:
        height, width = size
        element = self.decoder.conv_in.weight.element_size()
        need = codec_bytes(self.config, width, height, self.tile)[what == "decoding"] * element
        way_out = f"give a smaller tile than {self.tile} px" if self.tile else "set tile, for example to 512"
        require(f"{what} a picture of {width}x{height} px", need, device, way_out)
