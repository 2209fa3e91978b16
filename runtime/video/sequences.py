"""Numbered images as a clip: read from a directory or a pattern such as ``shot_%05d.png``, written to one."""

from __future__ import annotations

import os
import re
import uuid
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uare_rt.errors import InputError, OutputError, UsageError
from uare_rt.images import WRITE_FORMATS, is_image, list_images, read_image, write_image
from uare_rt.images import Picture as Still
from uare_rt.video.frames import (
    Checkpoint,
    ColourTags,
    Damage,
    Frame,
    Picture,
    PicturesAlone,
    SidePacket,
    VideoInfo,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uare_rt.video.frames import FrameSource, Pixels

__all__ = ["ImageSink", "ImageSource", "is_pattern", "pattern_of"]

_NUMBER = re.compile(r"%0?(\d*)d")
_DIGITS = 8


def is_pattern(path: str | Path) -> bool:
    """Whether a name has one place for a number (``%d``, ``%05d``) and the suffix of an image."""
    return len(_NUMBER.findall(Path(path).name)) == 1 and is_image(Path(path))


def pattern_of(target: Path) -> str:
    """The pattern of a target that is a directory: eight digits, PNG."""
    return str(target / f"%0{_DIGITS}d.png")


class ImageSource(PicturesAlone):
    """Images as pictures, at a constant rate.

    Args:
        path: a directory (its images sorted by name) or a pattern (its numbers in order, from the smallest on).
        rate: frames per second.

    Raises:
        InputError: there is no image, or the first cannot be read.
    """

    def __init__(self, path: str | Path, rate: Fraction) -> None:
        self._path = Path(path)
        self._images = _listed(path)
        self._damage: list[Damage] = []
        first = read_image(self._images[0])
        height, width = first.pixels.shape[:2]
        self._deep = first.pixels.dtype == np.uint16
        self._info = VideoInfo(
            width=width,
            height=height,
            time_base=1 / rate,
            rate=rate,
            pix_fmt="rgb48le" if self._deep else "rgb24",
            depth=16 if self._deep else 8,
            # sRGB, as images are; IEC 61966-2-1 has the transfer of that name.
            colour=ColourTags(matrix=2, full_range=True, range_tagged=True, primaries=1, transfer=13),
            pixel_aspect=None,
            display_matrix=None,
            frames=len(self._images),
            duration=float(len(self._images) / rate),
        )

    @property
    def info(self) -> VideoInfo:
        """Facts of the clip."""
        return self._info

    @property
    def damage(self) -> tuple[Damage, ...]:
        """Images that could not be read."""
        return tuple(self._damage)

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing to say."""
        return ()

    def __iter__(self) -> Iterator[Picture | SidePacket]:
        for index, image in enumerate(self._images):
            try:
                pixels = read_image(image).pixels
            except InputError as error:
                self._damage.append(Damage(round(float(index / self._info.rate), 3), str(error)))
                continue
            if pixels.shape != (self._info.height, self._info.width, 3):
                raise InputError(
                    f"{image} is {pixels.shape[1]}x{pixels.shape[0]}, but {self._images[0].name} is "
                    f"{self._info.width}x{self._info.height}; the images of a clip have one size"
                )
            yield Picture(pixels, index, 1)

    def pixels(self, picture: Picture) -> Pixels:
        """A picture as RGB, with the samples of the first image."""
        samples: Pixels = picture.raw
        if (samples.dtype == np.uint16) == self._deep:
            return samples
        return samples.astype(np.uint16) * np.uint16(257) if self._deep else (samples >> 8).astype(np.uint8)

    def stop(self) -> None:
        """Files never wait."""

    def close(self) -> None:
        """Nothing is held open."""


class ImageSink:
    """Pictures as numbered images, which appear under their directory's name when all are written.

    Args:
        source: where the pictures come from.
        target: a pattern; the directory it names may exist, but not hold files of these names.
        overwrite: whether files of these names may be replaced.

    Raises:
        UsageError: the suffix is none that is written.
        OutputError: a file of such a name exists, or the directory cannot be written.
    """

    def __init__(self, source: FrameSource, target: str, *, overwrite: bool) -> None:
        self._folder, self._name = Path(target).parent, Path(target).name
        if Path(target).suffix.lower() not in WRITE_FORMATS:
            raise UsageError(f"{target}: images of this kind are not written; use {', '.join(sorted(WRITE_FORMATS))}")
        if not overwrite and self._folder.is_dir() and any(True for _ in _numbered(self._folder, self._name)):
            raise OutputError(f"{target}: images of this name exist; pass overwrite (--overwrite) to replace them")
        if not self._folder.parent.is_dir():
            raise OutputError(f"{self._folder.parent} does not exist or is no directory; create it first")
        self._work = self._folder.parent / f".{self._folder.name}.{uuid.uuid4().hex[:8]}.part"
        self._notes = list(_lost(source))
        self._count = 0
        self._finished = False
        try:
            self._work.mkdir()
        except OSError as error:
            raise OutputError(f"{self._folder.parent}: cannot be written ({error.strerror})") from error

    @property
    def notes(self) -> tuple[str, ...]:
        """What images cannot keep."""
        return tuple(self._notes)

    @property
    def encoding(self) -> str:
        """How pictures are stored."""
        return f"images {Path(self._name).suffix}"

    def prepare(self, frame: Frame) -> Picture:
        """The frame itself."""
        return Picture(frame.pixels, frame.pts, frame.duration)

    def write(self, item: Picture | SidePacket | Checkpoint) -> None:
        """Write a picture."""
        if isinstance(item, Picture):
            self._count += 1
            write_image(self._work / _named(self._name, self._count), Still(item.raw))

    def finish(self) -> None:
        """Move the images to their directory.

        Raises:
            OutputError: they cannot be moved; nothing is left behind.
        """
        try:
            self._folder.mkdir(exist_ok=True)
            for image in sorted(self._work.iterdir()):
                os.replace(image, self._folder / image.name)
            self._work.rmdir()
        except OSError as error:
            self.discard()
            raise OutputError(f"{self._folder}: writing failed ({error.strerror})") from error
        self._finished = True

    def stop(self) -> None:
        """Files never wait."""

    def discard(self) -> None:
        """Remove the images written so far; does nothing after `finish`."""
        if self._finished or not self._work.is_dir():
            return
        for image in self._work.iterdir():
            image.unlink()
        self._work.rmdir()


def _listed(path: str | Path) -> list[Path]:
    path = Path(path)
    if path.is_dir():
        found = list_images(path)
        what = "images"
    else:
        if not path.parent.is_dir():
            raise InputError(f"{path.parent} does not exist or is no directory")
        found = [image for _, image in sorted(_numbered(path.parent, path.name))]
        what = f"files {path.name}"
    if not found:
        raise InputError(f"{path if path.is_dir() else path.parent}: no {what} there")
    return found


def _numbered(folder: Path, name: str) -> Iterator[tuple[int, Path]]:
    """Files whose names follow a pattern, with their numbers."""
    before, _, after = _NUMBER.split(name)
    form = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    for path in folder.iterdir():
        match = form.fullmatch(path.name)
        if match is not None and _named(name, int(match[1])) == path.name:
            yield int(match[1]), path


def _named(name: str, number: int) -> str:
    return _NUMBER.sub(lambda place: str(number).zfill(int(place[1] or 0)), name)


def _lost(source: FrameSource) -> Iterator[str]:
    origin = source.origin
    if origin is not None and origin.side_streams:
        kinds = ", ".join(sorted({stream.type for stream in origin.side_streams}))
        yield f"images hold no other streams: {kinds} not kept"
    if source.info.display_matrix is not None:
        yield "images hold no rotation: pictures are stored as they are coded"
    yield "times are not kept in images, only their order"
