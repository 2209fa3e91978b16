"""Cutting a picture or a latent into tokens and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["patchify", "unpatchify"]


def patchify(picture: Tensor, side: int) -> Tensor:
    """[C, h * side, w * side] -> [h * w, side * side * C], tokens row by row, channel fastest."""
    channels, height, width = picture.shape
    x = picture.reshape(channels, height // side, side, width // side, side)
    return x.permute(1, 3, 2, 4, 0).reshape(-1, side * side * channels)


def unpatchify(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """The inverse: [h * w, side * side * C] and grid (h, w) -> [C, h * side, w * side]."""
    rows, columns = grid
    x = tokens.reshape(rows, columns, side, side, -1)
    return x.permute(4, 0, 2, 1, 3).reshape(-1, rows * side, columns * side)
