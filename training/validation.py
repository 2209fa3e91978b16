"""Quick validation during training: fixed degradations of photos that are never trained on."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from uare_rt.degradation import Step, compose, from_uint8, to_uint8
from uare_rt.training.objective import to_image_tensor
from uare_rt.training.samples import PhotoStore
from uare_rt.views import extract_views

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from uare_rt.model.nano import UareNano

__all__ = ["Validation", "hold_out"]

_EVERY = 20  # one photo in so many is kept for validation
_MOST = 8
_SIDE = 384
_TYPES: dict[str, tuple[Step, ...]] = {
    "noise": (Step("noise", 0.42, "gaussian"),),
    "jpeg": (Step("compression", 0.7, "jpeg_420"),),
    "blur": (Step("blur", 0.5, "gaussian"),),
    "lowlight": (Step("low_light", 0.6),),
    "haze": (Step("haze", 0.6),),
    "mix": (Step("blur", 0.3, "gaussian"), Step("noise", 0.2, "gaussian"), Step("compression", 0.4, "jpeg_420")),
    "clean": (),
}


def hold_out(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Split photos into those to train on and those kept for validation.

    The latter are evenly spread, at most 8, and one of a few; a single photo is trained on.
    """
    kept = set(list(paths)[_EVERY // 2 :: _EVERY][:_MOST]) or set(paths[1:][-1:])
    return [p for p in paths if p not in kept], [p for p in paths if p in kept]


class Validation:
    """PSNR per degradation type on fixed crops.

    Args:
        paths: validation photos.
    """

    types = tuple(_TYPES)

    def __init__(self, paths: Sequence[Path]) -> None:
        self._pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in _TYPES}
        photos = PhotoStore(paths)
        for index, path in enumerate(paths):
            photo = photos[index]
            height, width = (side // 16 * 16 for side in (min(s, _SIDE) for s in photo.shape[:2]))
            y, x = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
            truth = photo[y : y + height, x : x + width]
            for name, steps in _TYPES.items():
                rng = np.random.default_rng(zlib.crc32(f"{name}/{path.name}".encode()))
                self._pairs[name].append((to_uint8(compose(from_uint8(truth), steps, rng).image), truth))

    def __call__(self, model: UareNano) -> dict[str, float]:
        """Mean PSNR in dB of the restored crops, per type; empty without validation photos."""
        with torch.inference_mode():
            return {
                name: float(np.mean([_psnr(model, *p) for p in pairs])) for name, pairs in self._pairs.items() if pairs
            }


def _psnr(model: UareNano, frame: np.ndarray, truth: np.ndarray) -> float:
    _, context = model.assess(torch.from_numpy(extract_views(frame))[None])
    restored = model.restore(to_image_tensor(frame[None]), context).clamp(0, 1)
    error = (restored - to_image_tensor(truth[None])).square().mean()
    return float(-10 * torch.log10(error.clamp_min(1e-6)))
