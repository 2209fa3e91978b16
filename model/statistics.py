"""Statistics of natural scenes that the understanding pass starts from.

Noise, blur, compression and exposure show in a few well-known numbers: energies of pixel differences at
several distances and their peakedness (Mittal et al. 2012, BRISQUE), the profile of differences over the 8x8
blocks of JPEG (Wang et al. 2002), levels of the dark channel (He et al. 2009). Handed to the network they
spare it the thousands of steps that learning them from pixels takes.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["STATISTICS", "view_statistics"]

STATISTICS = 80  # numbers per patch
_DISTANCES = (1, 2, 4, 8)  # pixels
_CHROMA_REACH = 2  # chroma differences are looked at up to this distance
_BLOCK = 8
_LEVELS = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
_SPARSE = 4  # levels need few pixels
_TINY = 1e-6  # energy of a quarter of a grey level


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(-2, -1))


def _differences(x: Tensor, distance: int) -> tuple[Tensor, Tensor]:
    return x[..., distance:, :] - x[..., :-distance, :], x[..., distance:] - x[..., :-distance]


def _log_energy(x: Tensor) -> Tensor:
    return 0.5 * torch.log(torch.linalg.vector_norm(x, dim=(-2, -1)).square() / x[0, 0].numel() + _TINY)


def _log_size(x: Tensor) -> Tensor:
    return torch.log(torch.linalg.vector_norm(x, 1, dim=(-2, -1)) / x[0, 0].numel() + _TINY**0.5)


def _block_profile(steps: Tensor) -> Tensor:
    """Mean absolute step by its place in a block, relative to the mean: [N, 1, h, w] -> [N, 8], along w."""
    count = steps.shape[-1] // _BLOCK
    profile = steps[..., : count * _BLOCK].abs().unflatten(-1, (count, _BLOCK)).mean(dim=(1, 2, 3)) + 1e-3
    return torch.log(profile) - torch.log(profile.mean(dim=-1, keepdim=True))


def view_statistics(views: Tensor, patch: int) -> Tensor:
    """Statistics of square patches.

    Args:
        views: float [N, 3, S, S] in [0, 1], RGB.
        patch: side in pixels, a divisor of S and a multiple of 8.

    Returns:
        [N, (S / patch)^2, 80], patches in rows.
    """
    batch, grid = views.shape[0], views.shape[-1] // patch
    x = (
        views.contiguous()
        .reshape(batch, 3, grid, patch, grid, patch)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(-1, 3, patch, patch)
    )
    red, green, blue = x.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = torch.stack((luma, red - green, blue - luma), dim=1)
    found = []
    for distance in _DISTANCES:
        for steps in _differences(planes if distance <= _CHROMA_REACH else planes[:, :1], distance):
            energy = _log_energy(steps)
            found += [energy, _log_size(steps) - energy]
    down, across = _differences(planes, 1)
    found.append(_log_energy(_differences(down, 1)[1]))
    found += [_log_energy(_differences(down[:, :1], 1)[0]), _log_energy(_differences(across[:, :1], 1)[1])]
    found += [_block_profile(across[:, :1]), _block_profile(down[:, :1].transpose(2, 3))]
    x, luma = x[..., ::_SPARSE, ::_SPARSE], luma[..., ::_SPARSE, ::_SPARSE]
    for plane in (luma[:, None], x.amin(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)):
        found += [_mean((plane - level).clamp(min=0)) for level in _LEVELS]
        found += [torch.log(_mean(plane) + 1e-2), _mean(plane * plane)]
    return torch.cat(found, dim=1).reshape(batch, grid * grid, -1)
