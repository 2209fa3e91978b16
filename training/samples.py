"""Training samples: a photo region, its degraded version, its views and labels, all drawn from a seed."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from uare_rt.degradation import compose, from_uint8, to_uint8
from uare_rt.errors import InputError
from uare_rt.slots import DEGRADATIONS, SLOTS
from uare_rt.training.teacher import quality
from uare_rt.views import cut_views, thumbnail_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from uare_rt.degradation import Mixture, Step
    from uare_rt.training.recipe import Recipe

__all__ = ["Batch", "PhotoStore", "find_photos", "make_batch", "quality_of", "soft_levels"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_MIN_SIDE = 256
_CACHE_BYTES = 3 << 30
_QUALITY_WEIGHT = 0.9  # what one degradation of severity 1 takes from quality
_DOWNSCALE = (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX, Image.Resampling.BILINEAR)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """One training step's samples: B pictures to restore, then further ones that are only assessed, N in all.

    Attributes:
        step: the step it belongs to.
        scale: output scale of the pictures to restore.
        frames: uint8 [B, h, w, 3], degraded, a part of the picture.
        targets: uint8 [B, scale h, scale w, 3].
        views: uint8 [N, 9, 96, 96, 3], of whole pictures.
        thumbnails: uint8 [N, 96, 96, 3], the undegraded pictures as the first view shows them.
        levels: float32 [N, 7, 5], soft level targets per slot.
        dropped: bool [N], use the null context.
    """

    step: int
    scale: int
    frames: NDArray[np.uint8]
    targets: NDArray[np.uint8]
    views: NDArray[np.uint8]
    thumbnails: NDArray[np.uint8]
    levels: NDArray[np.float32]
    dropped: NDArray[np.bool_]


def find_photos(folder: Path) -> list[Path]:
    """Usable photos of a directory tree, sorted by name; broken or tiny ones are logged and left out.

    Raises:
        InputError: the directory is missing or holds no usable photo.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such directory of training photos")
    found, skipped = [], 0
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES):
        try:
            with Image.open(path) as image:
                size = image.size
                image.draft("RGB", (1, 1))
                image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            _log.warning("%s: left out, cannot be read (%s)", path, error)
            skipped += 1
            continue
        if min(size) < _MIN_SIDE:
            _log.warning("%s: left out, %dx%d is below %d px", path, *size, _MIN_SIDE)
            skipped += 1
            continue
        found.append(path)
    if not found:
        raise InputError(f"{folder}: no photo of at least {_MIN_SIDE}x{_MIN_SIDE} px ({skipped} files left out)")
    return found


class PhotoStore:
    """Decoded photos, the latest ones kept in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._cache: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], RGB."""
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        with Image.open(self.paths[index]) as image:
            photo = np.asarray(image.convert("RGB"))
        self._cache[index] = photo
        self._bytes += photo.nbytes
        while self._bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._bytes -= self._cache.popitem(last=False)[1].nbytes
        return photo


def soft_levels(position: float) -> NDArray[np.float32]:
    """Distribution over five levels whose mean is ``position`` in 0..4, shared by the two nearest levels."""
    levels = np.zeros(5, np.float32)
    low = min(int(position), 3)
    levels[low], levels[low + 1] = low + 1 - position, position - low
    return levels


def quality_of(severities: Mapping[str, float]) -> float:
    """Quality 0..1 of a picture from its severities: the product of (1 - 0.9 s).

    A proxy with the right order, for recipes whose teacher is ``severity``.
    """
    return float(np.prod([1 - _QUALITY_WEIGHT * severities[name] for name in DEGRADATIONS]))


def _region(photo: NDArray[np.uint8], side: int, smallest: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width = photo.shape[:2]
    low = min(1.0, max(smallest, side / min(height, width)))
    factor = float(rng.uniform(low, 1.0)) if rng.random() < 0.75 else 1.0
    window = min(round(side / factor), height, width)
    y, x = int(rng.integers(height - window + 1)), int(rng.integers(width - window + 1))
    region = photo[y : y + window, x : x + window]
    if window != side:
        region = cv2.resize(region, (side, side), interpolation=cv2.INTER_AREA if window > side else cv2.INTER_CUBIC)
    region = np.rot90(region, int(rng.integers(4)))
    return np.ascontiguousarray(region[:, ::-1] if rng.random() < 0.5 else region)


def _draw(options: list[tuple[float, Mixture]], rng: np.random.Generator) -> Mixture:
    weights = np.array([weight for weight, _ in options], dtype=np.float64)
    return options[int(rng.choice(len(options), p=weights / weights.sum()))][1]


@dataclass(frozen=True)
class _Picture:
    truth: NDArray[np.uint8]
    frame: NDArray[np.uint8]
    views: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]
    levels: NDArray[np.float32]


def _picture(
    truth: NDArray[np.uint8], scale: int, steps: list[Step], recipe: Recipe, rng: np.random.Generator
) -> _Picture:
    source = truth
    if scale > 1:
        side = len(truth) // scale
        kernel = _DOWNSCALE[int(rng.choice(4, p=(0.55, 0.15, 0.15, 0.15)))]
        source = np.asarray(Image.fromarray(truth).resize((side, side), kernel))
    degraded = compose(from_uint8(source), steps, rng)
    frame = to_uint8(degraded.image)
    positions = {name: 4 * degraded.severities[name] for name in DEGRADATIONS}
    by_reference = recipe.teacher == "reference"
    positions["quality"] = quality(source, frame) - 1 if by_reference else 4 * quality_of(degraded.severities)
    levels = np.stack([soft_levels(positions[slot]) for slot in SLOTS])
    return _Picture(truth, frame, cut_views(frame), thumbnail_of(source), levels)


def make_batch(photos: PhotoStore, recipe: Recipe, step: int) -> Batch:
    """Draw the batch of one step; depends on the recipe, the photos and the step alone."""
    rng = np.random.default_rng((recipe.seed, step))
    scales = sorted(recipe.scales)
    weights = np.array([recipe.scales[s].weight for s in scales])
    scale = scales[int(rng.choice(len(scales), p=weights / weights.sum()))]
    task, phase = recipe.scales[scale], recipe.phase(step)
    pictures, frames, targets = [], [], []
    options = phase.options()
    for generator in rng.spawn(task.batch):
        truth = _region(_any(photos, generator), task.region * scale, recipe.photo_scale, generator)
        steps = _draw(options, generator).sample(generator) if generator.random() < task.degrade else []
        picture = _picture(truth, scale, steps, recipe, generator)
        y, x = (int(generator.integers(task.region - task.size + 1)) for _ in range(2))
        frames.append(picture.frame[y : y + task.size, x : x + task.size])
        targets.append(truth[scale * y : scale * (y + task.size), scale * x : scale * (x + task.size)])
        pictures.append(picture)
    more = phase.assess_batch if recipe.assesses(step) else 0
    options = phase.assess_options() if more else []
    for index, generator in enumerate(rng.spawn(more)):
        if index % 2 == 0 or index >= 2 * recipe.pairs:
            side = int(generator.choice(recipe.assess_regions))
            truth = _region(_any(photos, generator), side, recipe.photo_scale, generator)
        pictures.append(_picture(truth, 1, _draw(options, generator).sample(generator), recipe, generator))
    dropped = rng.random(len(pictures)) < recipe.context_dropout
    views, thumbnails, levels = (
        np.stack([getattr(picture, name) for picture in pictures]) for name in ("views", "thumbnail", "levels")
    )
    return Batch(step, scale, np.stack(frames), np.stack(targets), views, thumbnails, levels, dropped)


def _any(photos: PhotoStore, rng: np.random.Generator) -> NDArray[np.uint8]:
    return photos[int(rng.integers(len(photos)))]
