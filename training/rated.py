"""Pictures with a mean opinion: distortions made like those of TID2013, with the database's mean opinions.

No package ships rated pictures. TID2013 sets the strength of a distortion by PSNR, so the same kinds at the same PSNR
on other photographs look alike, and the database's mean opinion of a kind and level (`tid2013.yaml`) stands in for a
rating. It is a proxy: nobody rated these pictures, and what a single picture's content does to its rating is lost.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np
import yaml
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["OpinionTable", "Rated", "opinion_table", "rated_versions"]

_SEARCH_STEPS = 8
_OFF_BY = 0.75  # dB; a picture that cannot be brought this close to a level has none there


class OpinionTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `tid2013.yaml` holds.

    Attributes:
        levels_db: PSNR of the levels.
        mean_opinion: for every kind the mean opinion at each level, 0 to 9.
        best: opinion that score 5 stands for.
        worst: opinion that score 1 stands for.
    """

    levels_db: tuple[float, ...]
    mean_opinion: dict[str, tuple[float, ...]]
    best: float
    worst: float

    def score(self, opinion: float) -> float:
        """An opinion on the scale 1..5."""
        return 1 + 4 * (opinion - self.worst) / (self.best - self.worst)


@dataclass(frozen=True, eq=False)
class Rated:
    """A distorted picture and what stands in for its rating.

    Attributes:
        kind: kind of distortion.
        psnr: level it was made for, in dB.
        score: mean opinion of that kind and level, on 1..5.
        pixels: uint8 [H, W, 3], RGB.
    """

    kind: str
    psnr: float
    score: float
    pixels: NDArray[np.uint8]


@lru_cache(maxsize=1)
def opinion_table() -> OpinionTable:
    """The opinions of `tid2013.yaml`."""
    text = (resources.files("uare_rt.training") / "tid2013.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text), OpinionTable)


def rated_versions(photo: NDArray[np.uint8], rng: np.random.Generator) -> Iterator[Rated]:
    """Every kind at every level that the photo allows.

    Args:
        photo: uint8 [H, W, 3], RGB.
        rng: source of the noise.
    """
    table = opinion_table()
    noise = rng.normal(size=photo.shape).astype(np.float32)
    makers: dict[str, tuple[Callable[[float], NDArray[np.uint8]], float, float]] = {
        "noise": (lambda x: _eight_bit(photo + x * noise), 2, 40),
        "blur": (lambda x: np.asarray(cv2.GaussianBlur(photo, (0, 0), x)), 0.3, 12),
        "jpeg": (lambda x: _coded(photo, "JPEG", quality=round(101 - x), subsampling=2), 1, 100),
        "jpeg2000": (
            lambda x: _coded(photo, "JPEG2000", quality_mode="dB", quality_layers=[60 - x]),
            10,
            45,
        ),
    }
    for kind, opinions in table.mean_opinion.items():
        make, mild, harsh = makers[kind]
        for level, opinion in zip(table.levels_db, opinions, strict=True):
            pixels = _at_level(photo, make, (mild, harsh), level)
            if pixels is not None:
                yield Rated(kind, level, table.score(opinion), pixels)


def _at_level(
    photo: NDArray[np.uint8], make: Callable[[float], NDArray[np.uint8]], span: tuple[float, float], level: float
) -> NDArray[np.uint8] | None:
    mild, harsh = span
    closest, least = None, _OFF_BY
    for _ in range(_SEARCH_STEPS):
        middle = (mild + harsh) / 2
        pixels = make(middle)
        off = _psnr(pixels, photo) - level
        if abs(off) <= least:
            closest, least = pixels, abs(off)
        mild, harsh = (middle, harsh) if off > 0 else (mild, middle)
    return closest


def _psnr(result: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    return float(cv2.PSNR(result, truth))


def _eight_bit(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _coded(photo: NDArray[np.uint8], codec: str, **options: object) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, codec, **options)
    buffer.seek(0)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded.convert("RGB"))
