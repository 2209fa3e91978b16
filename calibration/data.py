"""Pictures for calibration and for the proof of quality: from clean to severe, from dark to bright.

Whatever the pictures are, every condition of `CONDITIONS` comes equally often, so that ranges cover what a camera may
see. Everything is seeded: the same sources give the same samples, and their hash goes into the manifest.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from uare_rt.calibration.metrics import psnr
from uare_rt.calibration.patterns import dead_leaves
from uare_rt.degradation import Step, compose, from_uint8, linear_to_srgb, srgb_to_linear, to_uint8
from uare_rt.errors import InputError
from uare_rt.frames import to_uint8 as frame_to_uint8
from uare_rt.images import is_image, read_image
from uare_rt.slots import DEGRADATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["CONDITIONS", "HELD_OUT", "Picture", "Sample", "digest", "make_samples", "patterns", "read_pictures"]

_OVER_EXPOSED = 1.8  # gain of linear light
CONDITIONS: Mapping[str, tuple[Step, ...]] = {
    "clean": (),
    "noise": (Step("noise", 0.5),),
    "slight noise": (Step("noise", 0.2),),
    "dark": (Step("low_light", 0.9), Step("noise", 0.3)),
    "compression": (Step("compression", 0.6),),
    "haze": (Step("haze", 0.8),),
    "blur": (Step("blur", 0.5),),
    "bright": (),
    "mixed": (Step("blur", 0.3), Step("noise", 0.4), Step("compression", 0.4)),
    "low resolution": (Step("low_resolution", 0.5),),
    "severe noise": (Step("noise", 1.0),),
    "severe": (Step("low_light", 0.6), Step("blur", 0.5), Step("noise", 0.7), Step("compression", 0.9)),
    "severe compression": (Step("compression", 1.0),),
}
"""What is done to pictures, by name; `bright` is over-exposed instead of degraded."""

_SEVERITIES = {"light": 0.25, "medium": 0.5, "severe": 0.9}
_MIXES: Mapping[str, tuple[Step, ...]] = {
    "light mix": (Step("blur", 0.25), Step("noise", 0.2), Step("compression", 0.25)),
    "medium mix": (Step("blur", 0.4), Step("noise", 0.4), Step("compression", 0.5)),
    "severe mix": (Step("low_light", 0.6), Step("blur", 0.5), Step("noise", 0.7), Step("compression", 0.9)),
}
HELD_OUT: Mapping[str, tuple[Step, ...]] = {
    "clean": (),
    "bright": (),
    **{
        f"{severity} {kind.replace('_', ' ')}": (Step(kind, value),)
        for kind in DEGRADATIONS
        for severity, value in _SEVERITIES.items()
    },
    **_MIXES,
}
"""The same for the proof: every kind of damage from light to severe, so that none decides alone."""

_FRAMES_PER_VIDEO = 8
_FILES_PER_DIRECTORY = 48  # evenly spaced over larger ones
_PATTERN_SIDE = 768
_PATTERNS = 6
_FLAT = 6  # levels of 255 between the darkest and the brightest pixel


@dataclass(frozen=True, eq=False)
class Picture:
    """A clean picture: its name and uint8 [H, W, 3], RGB."""

    name: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Sample:
    """A degraded picture and what it should be restored to.

    Attributes:
        name: of the picture.
        condition: a name of `CONDITIONS` or `HELD_OUT`.
        frame: uint8 [side, side, 3], RGB.
        truth: uint8 [scale * side, scale * side, 3], RGB.
    """

    name: str
    condition: str
    frame: NDArray[np.uint8]
    truth: NDArray[np.uint8]

    @cached_property
    def before(self) -> float:
        """PSNR of the frame in dB, enlarged to the size of the truth (bicubic)."""
        height, width = self.truth.shape[:2]
        enlarged = Image.fromarray(self.frame).resize((width, height), Image.Resampling.BICUBIC)
        return psnr(np.asarray(enlarged, np.float32), self.truth)


def patterns(seed: int) -> list[Picture]:
    """Synthetic pictures, where no photographs are at hand."""
    rng = np.random.default_rng(seed)
    return [Picture(f"leaves-{seed}-{index}", dead_leaves(_PATTERN_SIDE, rng)) for index in range(_PATTERNS)]


def read_pictures(sources: Sequence[Path]) -> list[Picture]:
    """Read images, directories of images and videos, and frames of videos, first frames of scenes preferred.

    Args:
        sources: files and directories, at least one.

    Returns:
        The pictures in the order of the sources.

    Raises:
        InputError: a source is missing or cannot be read, a directory holds nothing, or every picture is flat.
    """
    pictures = [picture for source in sources for path in _files(source) for picture in _read(path)]
    if all(np.ptp(picture.pixels) < _FLAT for picture in pictures):
        levels = sorted({int(picture.pixels.max()) for picture in pictures})
        raise InputError(
            f"{sources[0]}: every calibration picture is flat (brightest level {levels[-1]} of 255), so no range "
            "can be learned from them; give photographs of what the camera sees"
        )
    return pictures


def make_samples(
    pictures: Sequence[Picture],
    conditions: Mapping[str, tuple[Step, ...]] = CONDITIONS,
    *,
    count: int,
    side: int,
    scale: int = 1,
    seed: int = 0,
) -> list[Sample]:
    """Cut and degrade.

    Args:
        pictures: pictures of any size, used in turn.
        conditions: what is done to them, in turn.
        count: of samples.
        side: of the frame, in px.
        scale: of the truth against the frame.
        seed: of crops and degradations.

    Returns:
        Samples in a fixed order.
    """
    found = []
    for index in range(count):
        name, steps = list(conditions.items())[index % len(conditions)]
        rng = np.random.default_rng((seed, index, zlib.crc32(name.encode())))
        found.append(_sample(pictures[index % len(pictures)], (name, steps), side, scale, rng))
    return found


def digest(samples: Sequence[Sample]) -> str:
    """SHA-256 of what the samples hold."""
    state = hashlib.sha256()
    for sample in samples:
        state.update(f"{sample.name}/{sample.condition}/{sample.frame.shape}/{sample.truth.shape}".encode())
        state.update(sample.frame.tobytes())
        state.update(sample.truth.tobytes())
    return state.hexdigest()


def _sample(
    picture: Picture, condition: tuple[str, tuple[Step, ...]], side: int, scale: int, rng: np.random.Generator
) -> Sample:
    name, steps = condition
    truth = _crop(picture.pixels, side * scale, rng)
    if name == "bright":
        truth = to_uint8(linear_to_srgb(srgb_to_linear(from_uint8(truth)) * np.float32(_OVER_EXPOSED)))
    frame = truth
    if scale > 1:
        frame = np.asarray(Image.fromarray(truth).resize((side, side), Image.Resampling.BICUBIC))
    degraded = compose(from_uint8(np.ascontiguousarray(frame)), steps, rng).image
    return Sample(picture.name, name, to_uint8(degraded), truth)


def _crop(pixels: NDArray[np.uint8], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    grow = [(0, max(0, side - length)) for length in pixels.shape[:2]]
    if any(after for _, after in grow):
        pixels = np.pad(pixels, [*grow, (0, 0)], mode="symmetric")
    y, x = (int(rng.integers(0, length - side + 1)) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[y : y + side, x : x + side])


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        if not source.exists():
            raise InputError(f"{source}: no such calibration picture or directory; check the path")
        return [source]
    found = sorted(path for path in source.iterdir() if not path.name.startswith(".") and _is_media(path))
    if not found:
        raise InputError(f"{source}: no images or videos to calibrate with in this directory; name another")
    if len(found) > _FILES_PER_DIRECTORY:
        found = [found[index * len(found) // _FILES_PER_DIRECTORY] for index in range(_FILES_PER_DIRECTORY)]
    return found


def _is_media(path: Path) -> bool:
    from uare_rt.video import is_video

    return path.is_file() and (is_image(path) or is_video(path))


def _read(path: Path) -> list[Picture]:
    from uare_rt.video import is_video

    if not is_video(path):
        return [Picture(path.name, frame_to_uint8(read_image(path).pixels))]
    from uare_rt.video.assess import sample_frames
    from uare_rt.video.scenes import CutDetector

    cuts = CutDetector()
    frames = [(seconds, cuts.is_cut(pixels), pixels) for seconds, pixels in sample_frames(path, 4 * _FRAMES_PER_VIDEO)]
    ranked = sorted(range(len(frames)), key=lambda i: (not frames[i][1], (i * 5) % len(frames)))
    kept = sorted(ranked[:_FRAMES_PER_VIDEO])
    return [Picture(f"{path.name}@{frames[i][0]:.2f}s", frame_to_uint8(frames[i][2])) for i in kept]
