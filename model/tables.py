"""Fixed tables: sin-cos positions on a grid and the features of a flow time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["TIME_FEATURES", "grid_rows", "sincos_table", "time_features"]

TIME_FEATURES = 256
_PERIOD = 10000.0


def sincos_table(side: int, width: int) -> Tensor:
    """Position table of a ``side`` x ``side`` grid, made in double precision.

    Row ``r * side + c`` is ``[sin(c w), cos(c w), sin(r w), cos(r w)]``: the column fills the first half.

    Args:
        side: positions per side.
        width: width of a vector, a multiple of 4.

    Returns:
        float32 [side * side, width].
    """
    quarter = width // 4
    frequencies = _PERIOD ** -(torch.arange(quarter, dtype=torch.float64, device="cpu") / quarter)
    angles = torch.arange(side, dtype=torch.float64, device="cpu")[:, None] * frequencies
    axis = torch.cat((angles.sin(), angles.cos()), dim=1)
    columns, rows = axis.repeat(side, 1), axis.repeat_interleave(side, dim=0)
    return torch.cat((columns, rows), dim=1).float()


def grid_rows(rows: int, columns: int, side: int) -> Tensor:
    """Rows of a `sincos_table` for the tokens of an image, row by row.

    The table's stride is its own side whatever the image's width.

    Returns:
        int64 [rows * columns].
    """
    return (torch.arange(rows)[:, None] * side + torch.arange(columns)).flatten()


def time_features(times: Tensor) -> Tensor:
    """Cosines, then sines, of flow times in [0, 1]: float32 [N] -> float32 [N, 256]."""
    half = TIME_FEATURES // 2
    exponent = torch.arange(half, dtype=torch.float32, device=times.device) / half
    angles = times.float()[:, None] * torch.exp(-math.log(_PERIOD) * exponent)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
