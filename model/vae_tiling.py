"""Group norms over more than the tensor they are given, and the autoencoder's finest levels in tiles with them.

How a picture is cut, and why its statistics are gathered in several passes, is in `uare_rt.vlm.codec_tiles`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uare_rt.vlm.codec_tiles import Core, Gathered
from uare_rt.vlm.codec_tiles import in_tiles as _in_tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from uare_rt.vlm.codec_tiles import Span

__all__ = ["GroupNorm", "in_tiles"]


class GroupNorm(nn.GroupNorm):
    """A group norm that can take its statistics over more than the tensor it is given."""

    shared: _Statistics | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> same."""
        return super().forward(x) if self.shared is None else self.shared.normalise(self, x)


class _Statistics:
    """Mean and variance of one norm's groups over all tiles."""

    core: Core

    def __init__(self) -> None:
        self.gathered = Gathered()

    def normalise(self, norm: GroupNorm, x: Tensor) -> Tensor:
        core = self.core
        down, across = x.shape[2] // core.down, x.shape[3] // core.across
        rows = slice(core.rows.start * down, core.rows.stop * down)
        columns = slice(core.columns.start * across, core.columns.stop * across)
        groups = x[:, :, rows, columns].float().reshape(norm.num_groups, -1)
        variance, mean = torch.var_mean(groups, dim=1, correction=0)
        self.gathered.add(groups.shape[1], mean.double(), variance.double())
        if self.gathered.used is None:
            return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        mean, variance = self.gathered.used
        each = x.shape[1] // norm.num_groups
        gain = norm.weight * torch.rsqrt(variance + norm.eps).repeat_interleave(each).to(norm.weight)
        shift = norm.bias - mean.repeat_interleave(each).to(norm.weight) * gain
        return torch.addcmul(shift[:, None, None], x, gain[:, None, None])


def in_tiles(
    function: Callable[[Tensor], Tensor], norms: Sequence[GroupNorm], x: Tensor, tiles: tuple[list[Span], list[Span]]
) -> Tensor:
    """Run a function of pictures tile by tile.

    Args:
        function: [N, C, h, w] -> [N, C', h', w'], convolutions and ``norms``.
        norms: every group norm in it.
        x: the whole input, [N, C, H, W]; its sides are multiples of the axes' lengths in cells.
        tiles: spans of the rows and of the columns.

    Returns:
        What the function makes of the whole input.
    """
    statistics = [_Statistics() for _ in norms]

    def of_tile(part: Tensor, core: Core) -> Tensor:
        for shared in statistics:
            shared.core = core
        return function(part)

    def settle() -> float:
        return max(shared.gathered.settle() for shared in statistics)

    try:
        for norm, shared in zip(norms, statistics, strict=True):
            norm.shared = shared
        return _in_tiles(of_tile, settle, len(norms), x, tiles, _like)
    finally:
        for norm in norms:
            norm.shared = None


def _like(array: NDArray[np.float32], other: Tensor) -> Tensor:
    return torch.from_numpy(array).to(other)
