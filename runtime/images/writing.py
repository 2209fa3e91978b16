"""Writing `Picture` to a file: complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from uare_rt.errors import OutputError, UsageError
from uare_rt.images import profiles
from uare_rt.images.formats import WRITE_FORMATS
from uare_rt.images.opening import LOGGER
from uare_rt.images.picture import DEFLATE_LEVEL, Picture, eight_bit, sample_bands
from uare_rt.images.png16 import write_png16
from uare_rt.images.tiff import write_tiff

if TYPE_CHECKING:
    from uare_rt.images.picture import Metadata

__all__ = ["check_format", "write_image"]

_MAX_SIDE = {"JPEG": 65500, "WEBP": 16383, "BMP": 65535}
_MARKER = 65533  # bytes in one segment of a JPEG
_XMP_MARKER = _MARKER - 29
_FINE_CHROMA = 90  # from this quality on a JPEG keeps colour at full resolution
_CAN_BE_GREY = frozenset({"JPEG", "PNG", "TIFF"})


def write_image(
    path: str | Path, picture: Picture, *, overwrite: bool = False, quality: int = 95, lossless: bool = False
) -> None:
    """Write a picture in the format its suffix names; missing directories are made.

    PNG and TIFF keep 16 bits, the others get them rounded to 8. ICC profile, EXIF (with the new pixel dimensions), XMP
    and resolution go along, to BMP only the resolution. A picture read from a grey file is written grey where the
    format can (JPEG, PNG, TIFF). The file appears under its name only when complete and on disk.

    Args:
        path: the target; .jpg, .jpeg, .jpe, .jfif, .png, .tif, .tiff, .webp or .bmp.
        picture: what to write.
        overwrite: replace an existing file.
        quality: 1..100 for JPEG and WebP; JPEG keeps colour at full resolution from 90 on.
        lossless: write WebP without loss.

    Raises:
        UsageError: unknown suffix, quality out of range, or `lossless` for a JPEG.
        OutputError: the target exists, cannot be written, is too large for its format, or the picture has an alpha
            channel and the format none.
    """
    path = Path(path)
    kind = _checked_format(path, picture, quality, lossless)
    try:
        target = Path(os.path.realpath(path))  # a link stays a link
        _refuse_existing(path, target, overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".uare-{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                _encode(_Sink(file), kind, picture, quality, lossless)
                file.flush()
                os.fsync(file.fileno())
            _refuse_existing(path, target, overwrite)
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({_why(path, error)}") from error
    except (MemoryError, ValueError) as error:
        raise OutputError(f"{path}: cannot be encoded as {kind} ({error or 'not enough memory'})") from error


def check_format(path: str | Path, *, width: int, height: int, alpha: bool) -> str:
    """Tell whether the format that a suffix names can hold a picture, before the work of making it.

    Args:
        path: the target.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        alpha: whether it has an alpha channel.

    Returns:
        The format, as Pillow spells it.

    Raises:
        UsageError: unknown suffix.
        OutputError: the format has no alpha channel, or the picture is too large for it.
    """
    suffix = Path(path).suffix
    kind = WRITE_FORMATS.get(suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: cannot write '{suffix}' files; use one of {', '.join(WRITE_FORMATS)}")
    if alpha and kind in ("JPEG", "BMP"):
        raise OutputError(f"{path}: {kind} cannot hold the alpha channel of this picture; write .png, .tif or .webp")
    if max(height, width) > _MAX_SIDE.get(kind, 1 << 31):
        raise OutputError(
            f"{path}: {width}x{height} is too large for {kind} (at most {_MAX_SIDE[kind]} a side); write .png or .tif"
        )
    return kind


def _checked_format(path: Path, picture: Picture, quality: int, lossless: bool) -> str:
    height, width = picture.pixels.shape[:2]
    kind = check_format(path, width=width, height=height, alpha=picture.alpha is not None)
    if not 1 <= quality <= 100:
        raise UsageError(f"quality {quality} is out of range; give 1 to 100")
    if lossless and kind == "JPEG":
        raise UsageError(f"{path}: a JPEG cannot be lossless; write .png, .tif or .webp")
    return kind


def _refuse_existing(path: Path, target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise OutputError(f"{path}: is a directory; name a file in it")
    if not overwrite and target.exists():
        raise OutputError(f"{path}: exists already; choose another name or pass --overwrite")


def _why(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(folder).free / 1e6
            return f"{error.strerror}, {free:.1f} MB free in {folder}); free some space or write elsewhere"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.strerror}: {error.filename}); a file stands where a directory is needed, choose another place"
    if error.strerror is None:
        return f"{error}); try a .png or .tif"
    return f"{error.strerror}); check the place and its permissions or write elsewhere"


class _Sink:
    """A file without a descriptor: Pillow would write past Python then, and lose the cause of a failure."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write
        self.flush = file.flush
        self.seek = file.seek
        self.tell = file.tell


def _encode(sink: Any, kind: str, picture: Picture, quality: int, lossless: bool) -> None:
    grey = picture.metadata.grey and kind in _CAN_BE_GREY
    picture = replace(picture, metadata=_fitting(picture, kind, grey))
    if kind == "TIFF":
        write_tiff(sink, picture, grey=grey)
    elif kind == "PNG" and picture.pixels.dtype == np.uint16:
        write_png16(sink, picture, grey=grey)
    else:
        picture = eight_bit(picture)
        options = _options(kind, picture.metadata, quality, lossless)
        _as_pillow(picture, grey).save(sink, format=kind, **options)


def _fitting(picture: Picture, kind: str, grey: bool) -> Metadata:
    """Leave out what the format or the pixels cannot carry; state the new dimensions in EXIF."""
    about = picture.metadata
    height, width = picture.pixels.shape[:2]
    icc, exif, xmp = about.icc, about.exif, about.xmp
    if icc is not None and profiles.icc_space(icc) != ("GRAY" if grey else "RGB"):
        LOGGER.warning("profile for %s left out of a %s picture", profiles.icc_space(icc), "grey" if grey else "RGB")
        icc = None
    if exif is not None:
        exif = profiles.resized_exif(exif, width, height)
    if kind == "JPEG" and exif is not None and len(exif) + 6 > _MARKER:
        LOGGER.warning("EXIF of %d bytes left out: a JPEG holds at most %d", len(exif), _MARKER - 6)
        exif = None
    if kind == "JPEG" and xmp is not None and len(xmp) > _XMP_MARKER:
        LOGGER.warning("XMP of %d bytes left out: a JPEG holds at most %d", len(xmp), _XMP_MARKER)
        xmp = None
    return replace(about, icc=icc, exif=exif, xmp=xmp)


def _options(kind: str, about: Metadata, quality: int, lossless: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if about.dpi is not None and kind != "WEBP":
        options["dpi"] = about.dpi
    if kind == "BMP":
        return options
    if about.icc is not None:
        options["icc_profile"] = about.icc
    if about.exif is not None:
        options["exif"] = b"Exif\0\0" + about.exif
    if kind == "PNG":
        options["compress_level"] = DEFLATE_LEVEL
        if about.xmp is not None:
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", about.xmp.decode("utf-8", "replace"))
        return options
    if about.xmp is not None:
        options["xmp"] = about.xmp
    if kind == "JPEG":
        return {**options, "quality": quality, "subsampling": "4:4:4" if quality >= _FINE_CHROMA else "4:2:0"}
    return {**options, "quality": quality, "lossless": lossless, "exact": lossless}


def _as_pillow(picture: Picture, grey: bool) -> Image.Image:
    if not grey:
        image = Image.fromarray(np.ascontiguousarray(picture.pixels))
        if picture.alpha is not None:
            image.putalpha(Image.fromarray(np.ascontiguousarray(picture.alpha)))
        return image
    samples = np.concatenate(list(sample_bands(picture, grey=True)))
    return Image.fromarray(samples if samples.shape[2] == 2 else samples[..., 0])
