"""The evaluation set: a folder of degraded pictures and their truths, written by benchmarks/make_evalset.py."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from uare_rt.errors import InputError
from uare_rt.images import read_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

__all__ = ["EvaluationSet", "bicubic", "psnr"]

_SAME = 0.002  # dB; the set's own figures are rounded to 0.001


def psnr(result: Pixels, truth: Pixels) -> float:
    """Peak signal-to-noise ratio in dB, at most 78, as the set's manifest has it: uint8 [H, W, 3] both."""
    error = np.mean((result.astype(np.float64) - truth) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def bicubic(pixels: Pixels, like: Pixels) -> Pixels:
    """A picture in the size of another one: uint8 [H, W, 3]."""
    height, width = like.shape[:2]
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class EvaluationSet:
    """A folder written by make_evalset.py.

    Attributes:
        folder: the folder.
        input_psnr: for every type the input PSNR of every picture by name, in dB.
    """

    folder: Path
    input_psnr: Mapping[str, Mapping[str, float]]

    @classmethod
    def open(cls, folder: Path, limit: int | None = None) -> EvaluationSet:
        """Read the manifest of a set; with a limit only its first pictures.

        Raises:
            InputError: the folder is not an evaluation set.
        """
        try:
            rows = json.loads((folder / "manifest.json").read_bytes())["input_psnr"]
            kept = {kind: dict(list(row.items())[:limit]) for kind, row in rows.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder} is not an evaluation set ({error}); write one with: python benchmarks/make_evalset.py"
            ) from error
        if not kept or not all(kept.values()):
            raise InputError(f"{folder} holds no pictures; write it again with: python benchmarks/make_evalset.py")
        return cls(folder, kept)

    @property
    def names(self) -> list[str]:
        """Names of the photographs."""
        return list(next(iter(self.input_psnr.values())))

    def digest(self) -> str:
        """SHA-256 of the manifest."""
        return hashlib.sha256((self.folder / "manifest.json").read_bytes()).hexdigest()

    def picture(self, kind: str, name: str) -> Pixels:
        """One picture of a type, or of `truth`: uint8 [H, W, 3], RGB.

        Raises:
            InputError: it is missing or damaged.
        """
        return read_image(self.folder / kind / f"{name}.png").pixels

    def pair(self, kind: str, name: str) -> tuple[Pixels, Pixels]:
        """A degraded picture and its truth, held to what the manifest says of them.

        Raises:
            InputError: one is missing, damaged or not the one that the manifest is about.
        """
        degraded, truth = self.picture(kind, name), self.picture("truth", name)
        found, written = psnr(bicubic(degraded, truth), truth), self.input_psnr[kind][name]
        if abs(found - written) > _SAME:
            raise InputError(
                f"{self.folder / kind / name}.png: {found:.3f} dB, its manifest says {written:.3f}; make it again"
            )
        return degraded, truth

    def pictures(self, kind: str) -> Iterator[tuple[str, Pixels, Pixels]]:
        """Name, degraded picture and truth of everything of one type."""
        for name in self.input_psnr[kind]:
            yield name, *self.pair(kind, name)
