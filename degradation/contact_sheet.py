"""Contact sheet: every degradation and variant at five severities, for the eye."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, UnidentifiedImageError

from uare_rt.degradation.clip import degrade_clip
from uare_rt.degradation.composition import VARIANTS, Step, degrade
from uare_rt.degradation.light import from_uint8, to_uint8
from uare_rt.errors import InputError, OutputError, UsageError

__all__ = ["SEVERITIES", "contact_sheet", "write_contact_sheet"]

SEVERITIES = (0.1, 0.3, 0.5, 0.7, 1.0)

_CELL = 192
_GAP = 4
_LABEL_WIDTH = 176
_LABEL_HEIGHT = 20
_SEED = 2
_CLIP_LENGTH = 4


def _crop(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = (min(side, _CELL) for side in photo.shape[:2])
    y, x = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
    return photo[y : y + height, x : x + width]


def _h264(crop: NDArray[np.uint8], severity: float) -> NDArray[np.uint8]:
    moving = np.stack([np.roll(crop, shift, axis=1) for shift in range(1 - _CLIP_LENGTH, 1)])
    clip = degrade_clip(moving, [Step("compression", severity)], np.random.default_rng(_SEED))
    return clip.frames[-1]


def _rows(crop: NDArray[np.uint8]) -> Iterator[tuple[str, list[NDArray[np.uint8]]]]:
    image = from_uint8(crop)
    for kind, variants in VARIANTS.items():
        for variant in variants:
            results = [
                degrade(image, kind, severity, np.random.default_rng(_SEED), variant=variant) for severity in SEVERITIES
            ]
            yield f"{kind}\n{variant}", [to_uint8(result.image) for result in results]
    yield f"compression\nh264, frame {_CLIP_LENGTH}", [_h264(crop, severity) for severity in SEVERITIES]


def contact_sheet(photo: NDArray[np.uint8]) -> Image.Image:
    """Draw the sheet for the middle of one photo.

    Args:
        photo: uint8 [H, W, 3], RGB; at most 192x192 pixels of its middle are shown.

    Returns:
        An RGB picture: one row per variant, the untouched crop and then ``SEVERITIES`` from left to right.
    """
    crop = _crop(photo)
    rows = list(_rows(crop))
    pitch = _CELL + _GAP
    size = (_LABEL_WIDTH + pitch * (len(SEVERITIES) + 1), _LABEL_HEIGHT + pitch * len(rows))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(["original", *(f"severity {severity:g}" for severity in SEVERITIES)]):
        pen.text((_LABEL_WIDTH + column * pitch, _GAP), title, fill="black")
    for row, (title, cells) in enumerate(rows):
        y = _LABEL_HEIGHT + row * pitch
        pen.multiline_text((_GAP, y), title, fill="black")
        for column, cell in enumerate([crop, *cells]):
            sheet.paste(Image.fromarray(cell), (_LABEL_WIDTH + column * pitch, y))
    return sheet


def _read(photo: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(photo) as picture:
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise InputError(f"photo {photo} does not exist; check the path") from error
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{photo} is not a photo Pillow can read ({error}); give a JPEG, PNG, TIFF or WebP") from error
    except OSError as error:
        raise InputError(f"photo {photo} cannot be read: {error}; is it complete and readable?") from error


def write_contact_sheet(photo: Path, target: Path, *, overwrite: bool = False) -> None:
    """Read a photo and write its contact sheet, complete or not at all.

    Args:
        photo: any image Pillow reads.
        target: file to write; its suffix chooses the format.
        overwrite: replace an existing target.

    Raises:
        InputError: the photo is missing or damaged.
        OutputError: the target exists, is the photo itself, or cannot be written.
        UsageError: the suffix names no image format.
    """
    file_format = Image.registered_extensions().get(target.suffix.lower())
    if file_format not in Image.SAVE:
        raise UsageError(f"{target} has no image suffix that can be written; use .png or .jpg")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; pass --overwrite or choose another name")
    if target.exists() and photo.exists() and target.samefile(photo):
        raise OutputError(f"{target} is the photo itself; choose another name for the sheet")
    sheet = contact_sheet(_read(photo))
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}-") as folder:
            unfinished = Path(folder, target.name)
            sheet.save(unfinished, format=file_format)
            os.replace(unfinished, target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}; check folder, rights and space") from error
