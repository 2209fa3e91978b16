"""Reading still images into `Picture`."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from uare_rt.errors import InputError
from uare_rt.images import profiles
from uare_rt.images.opening import LOGGER, relaxed_pillow
from uare_rt.images.picture import Metadata, Picture, oriented, row_bands
from uare_rt.images.png16 import is_png16, read_png16
from uare_rt.images.tiff import deep_tags, exif_of_tiff, read_tiff16, tiff_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["MAX_PIXELS", "read_image"]

MAX_PIXELS = 400_000_000
_MAX_DEEP_PNG = 250_000_000  # FFmpeg holds no frame of 2 GiB

# Only formats that decode in-process: Pillow would start Ghostscript for an EPS.
_FORMATS = ("JPEG", "MPO", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_KNOWN = "JPEG, PNG, TIFF, WebP, BMP, GIF, PPM, JPEG 2000 or AVIF"


def read_image(path: str | Path) -> Picture:
    """Read a still image; the content decides about the format, not the suffix.

    JPEG, PNG, TIFF, WebP, BMP, GIF, PPM, and JPEG 2000 and AVIF where Pillow has them. PNG and TIFF keep all 16 bits,
    grey or colour; every other deep format is read at 8 bits. Grey becomes R = G = B. CMYK goes to sRGB through the
    profile in the file, or by Pillow's plain formula without one. Of an animation or a file of several pages the first
    picture is read, with a warning in the log. Damaged EXIF or profiles are dropped, with a warning in the log;
    damaged or cut-off pixels are an error.

    Args:
        path: the file.

    Returns:
        The picture, upright.

    Raises:
        InputError: the file is missing, empty, damaged, no image, or larger than 400 megapixels.
    """
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: {_why(path, error)}") from error
    with file:
        try:
            head = file.read(26)
            if not head:
                raise InputError(f"{path}: the file is empty (0 bytes); get a whole copy of it")
            file.seek(0)
            if is_png16(head):
                return _from_png16(file, head, path)
            tags = deep_tags(head, file)
            return _from_pillow(file, path) if tags is None else _from_tiff16(file, tags, path)
        except MemoryError as error:
            raise InputError(f"{path}: not enough memory to read this image; use a smaller one") from error


def _why(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path"
    if isinstance(error, IsADirectoryError) or path.is_dir():
        return "is a directory, not an image; name a file in it"
    return f"cannot be opened ({error.strerror or error}); check its permissions"


def _check_size(width: int, height: int, path: Path, limit: int = MAX_PIXELS) -> None:
    if width * height > limit:
        raise InputError(
            f"{path}: {width}x{height} is {width * height / 1e6:.0f} megapixels, over the limit of "
            f"{limit // 1_000_000}; cut it into parts or make it smaller"
        )


def _assemble(
    bands: Iterable[tuple[int, NDArray[Any]]], size: tuple[int, int], orientation: int, alpha: bool, dtype: type
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Put bands (first row, samples [rows, W, C]) into upright arrays, so that nothing is held twice."""
    width, height = size if orientation < 5 else size[::-1]
    pixels: NDArray[Any] = np.empty((height, width, 3), dtype=dtype)
    mask: NDArray[Any] | None = np.empty((height, width), dtype=dtype) if alpha else None
    stored_pixels = _as_stored(pixels, orientation)
    stored_mask = None if mask is None else _as_stored(mask, orientation)
    for start, band in bands:
        colours = band[..., :3] if band.shape[2] >= 3 else band[..., :1]
        stored_pixels[start : start + len(band)] = colours
        if stored_mask is not None:
            stored_mask[start : start + len(band)] = band[..., -1]
    return pixels, mask


def _as_stored(upright: NDArray[Any], orientation: int) -> NDArray[Any]:
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    return oriented(upright, inverse)


def _kept(
    path: Path, what: str, data: Any, check: Callable[[Any], tuple[bytes, int | None]]
) -> tuple[bytes | None, int | None]:
    if not isinstance(data, bytes) or not data:
        return None, None
    try:
        return check(data)
    except ValueError as error:
        LOGGER.warning("%s: damaged %s ignored (%s)", path, what, error)
        return None, None


def _metadata(path: Path, info: dict[str, Any], origin: Metadata) -> tuple[Metadata, int]:
    """Check what came with the pixels; returns it with the orientation."""
    exif, from_exif = _kept(path, "EXIF", info.get("exif"), profiles.upright_exif)
    xmp, from_xmp = _kept(path, "XMP", info.get("xmp"), profiles.upright_xmp)
    icc, _ = _kept(path, "ICC profile", info.get("icc_profile"), lambda data: (data, len(profiles.icc_space(data))))
    dpi = profiles.plain_dpi(info.get("dpi"))
    return Metadata(origin.format, icc, exif, xmp, dpi, origin.mode, origin.bits), from_exif or from_xmp or 1


def _from_png16(file: BinaryIO, head: bytes, path: Path) -> Picture:
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    _check_size(width, height, path, _MAX_DEEP_PNG)
    png = read_png16(file, path)
    for problem in png.problems:
        LOGGER.warning("%s: %s", path, problem)
    mode = {1: "I;16", 2: "LA", 3: "RGB", 4: "RGBA"}[png.samples.shape[2]]
    info = {"exif": png.exif, "xmp": png.xmp, "icc_profile": png.icc, "dpi": png.dpi}
    metadata, orientation = _metadata(path, info, Metadata("PNG", mode=mode, bits=16))
    size, alpha = (width, height), mode in ("LA", "RGBA")
    return Picture(*_assemble([(0, png.samples)], size, orientation, alpha, np.uint16), metadata)


def _from_tiff16(file: BinaryIO, tags: Any, path: Path) -> Picture:
    width, height = tiff_size(tags)
    _check_size(width, height, path)
    samples = read_tiff16(file, tags, path)
    if tags.next:
        LOGGER.warning("%s: only the first page is used", path)
    mode = {1: "I;16", 2: "LA", 3: "RGB", 4: "RGBA"}[samples.shape[2]]
    info = {"exif": _tiff_exif(file, tags, path), "xmp": tags.get(700), "icc_profile": tags.get(34675)}
    scale = {2: 1.0, 3: 2.54}.get(tags.get(296, 2))
    if scale and 282 in tags and 283 in tags:
        info["dpi"] = (tags[282] * scale, tags[283] * scale)
    metadata, from_xmp = _metadata(path, info, Metadata("TIFF", mode=mode, bits=16))
    orientation = tags.get(274) if tags.get(274) in range(1, 9) else from_xmp
    alpha = mode in ("LA", "RGBA")
    return Picture(*_assemble([(0, samples)], (width, height), orientation, alpha, np.uint16), metadata)


def _tiff_exif(file: BinaryIO, tags: Any, path: Path) -> bytes | None:
    try:
        with relaxed_pillow():
            return exif_of_tiff(file, tags)
    except Exception as error:  # Pillow raises nearly anything on damaged directories
        LOGGER.warning("%s: damaged EXIF ignored (%s)", path, error)
        return None


def _from_pillow(file: BinaryIO, path: Path) -> Picture:
    try:
        with relaxed_pillow():
            image = _opened(file)
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path}: not an image that can be read, whatever its name says; give a whole {_KNOWN} file"
        ) from error
    except Exception as error:  # Pillow raises nearly anything on damaged headers
        raise InputError(f"{path}: damaged image ({error}); get a whole copy of the file") from error
    with image:
        _check_size(*image.size, path)
        kind = image.format or ""
        tags = getattr(image, "tag_v2", None) if kind == "TIFF" else None
        exif = None if tags is None else _tiff_exif(file, dict(tags), path)
        try:
            if tags is None:
                image.load()
            else:
                with relaxed_pillow():  # its loader reads EXIF, and warns
                    image.load()
        except MemoryError:
            raise
        except Exception as error:  # as above
            raise InputError(f"{path}: damaged or cut-off image ({error}); get a whole copy of the file") from error
        frames = _picture_count(image)
        if kind != "MPO" and frames > 1:  # an MPO holds previews of the same picture
            LOGGER.warning("%s: only the first of %d pictures is used", path, frames)
        return _converted(image, exif, path)


def _picture_count(image: Image.Image) -> int:
    """Pictures in the file; 1 where what follows the first one is damaged."""
    try:
        with relaxed_pillow():  # it reads the directories of further pages, and warns
            return int(getattr(image, "n_frames", 1))
    except Exception:  # as above: the first picture is whole all the same
        return 1


def _opened(file: BinaryIO) -> Image.Image:
    """Loading all of Pillow's formats takes longer than reading most pictures: the common ones are tried first."""
    Image.preinit()
    try:
        return Image.open(file, formats=_available())
    except UnidentifiedImageError:
        file.seek(0)
        Image.init()
        return Image.open(file, formats=_available())


def _available() -> list[str]:
    return [name for name in _FORMATS if name in Image.OPEN]


def _converted(image: Image.Image, exif: bytes | None, path: Path) -> Picture:
    tiff = image.format == "TIFF"
    info: dict[str, Any] = {str(key): value for key, value in image.info.items()}
    if tiff:
        info["exif"] = exif
    elif image.format == "PNG" and "exif" not in info:
        with relaxed_pillow():  # ImageMagick used to put EXIF into a text chunk
            stored = image.getexif()
            info["exif"] = stored.tobytes() if len(stored) else None
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    bits = {"1": 1, "I;16": 16, "I": 16}.get(mode, 8)
    kind = "JPEG" if image.format == "MPO" else image.format or ""
    metadata, orientation = _metadata(path, info, Metadata(kind, mode=mode, bits=bits))
    if tiff:
        orientation = 1  # Pillow has turned it already
    alpha = mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in info
    if mode in ("CMYK", "LAB"):
        convert, metadata = _to_srgb(image, metadata, path)
    elif mode in ("I;16", "I"):
        convert = _grey16(image, path)
    elif mode == "F":
        raise InputError(f"{path}: floating-point samples are not supported; save it as a 16-bit TIFF or PNG")
    elif mode in ("L", "RGB") and not alpha:
        convert = np.asarray
    else:
        target = ("RGBA" if alpha else "RGB") if mode not in ("1", "L", "LA", "La") else ("LA" if alpha else "L")
        convert = _by_pillow(target)
    dtype = np.uint16 if bits == 16 else np.uint8
    return Picture(*_assemble(_bands(image, convert), image.size, orientation, alpha, dtype), metadata)


def _bands(image: Image.Image, convert: Callable[[Image.Image], NDArray[Any]]) -> Iterator[tuple[int, NDArray[Any]]]:
    for start, stop in row_bands(image.height, image.width * 3):
        band = convert(image.crop((0, start, image.width, stop)))
        yield start, band if band.ndim == 3 else band[..., None]


def _by_pillow(target: str) -> Callable[[Image.Image], NDArray[Any]]:
    # "La" and "RGBa" (multiplied by alpha) only convert to their plain form
    plain = {"La": "LA", "RGBa": "RGBA"}

    def convert(band: Image.Image) -> NDArray[Any]:
        if band.mode in plain:
            band = band.convert(plain[band.mode])
        return np.asarray(band.convert(target))

    return convert


def _grey16(image: Image.Image, path: Path) -> Callable[[Image.Image], NDArray[Any]]:
    low, high = image.getextrema() if image.mode == "I" else (0, 65535)
    if float(low) < 0 or float(high) > 65535:  # type: ignore[arg-type]
        raise InputError(f"{path}: 32-bit grey samples {low}..{high} are not supported; save it with 16 bits")
    return lambda band: np.asarray(band).astype(np.uint16)


def _to_srgb(
    image: Image.Image, metadata: Metadata, path: Path
) -> tuple[Callable[[Image.Image], NDArray[Any]], Metadata]:
    from PIL import ImageCms

    icc = metadata.icc
    metadata = replace(metadata, icc=None)  # the pixels leave that space
    if icc is not None and profiles.icc_space(icc) != "CMYK":
        icc = None
    if icc is None and image.mode == "CMYK":
        return _by_pillow("RGB"), metadata
    try:
        source = ImageCms.createProfile("LAB") if icc is None else ImageCms.ImageCmsProfile(io.BytesIO(icc))
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except ImageCms.PyCMSError as error:
        LOGGER.warning("%s: unusable CMYK profile ignored (%s)", path, error)
        return _by_pillow("RGB"), metadata
    return lambda band: np.asarray(ImageCms.applyTransform(band, transform)), metadata
