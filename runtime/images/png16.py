"""PNG with 16 bits per sample, which Pillow cannot hold in colour.

Decoded by FFmpeg; encoded here, since FFmpeg's encoder keeps neither profile nor EXIF.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from uare_rt.errors import InputError
from uare_rt.images.picture import DEFLATE_LEVEL, sample_bands

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from uare_rt.images.picture import Picture

__all__ = ["PngFile", "is_png16", "read_png16", "write_png16"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})  # what decides about pixels
_XMP_KEY = b"XML:com.adobe.xmp"
_COMPONENTS = {"gray16be": 1, "ya16be": 2, "rgb48be": 3, "rgba64be": 4}
_METRE = 0.0254  # an inch, in metres


@dataclass(frozen=True)
class PngFile:
    """A 16-bit PNG: samples uint16 big-endian [H, W, C] (grey or RGB, then alpha) and its ancillary data."""

    samples: NDArray[Any]
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    dpi: tuple[float, float] | None
    problems: tuple[str, ...]


def is_png16(head: bytes) -> bool:
    """Tell a PNG of 16 bits per sample by its first 26 bytes."""
    return head.startswith(_SIGNATURE) and len(head) >= 26 and head[12:16] == b"IHDR" and head[24] == 16


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int, bool]]:
    """Yield type, start and end (length and checksum included) and whether the checksum is right."""
    position = len(_SIGNATURE)
    while True:
        if position + 12 > len(data):
            raise ValueError("the file is cut off")
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ValueError("the file is cut off")
        kind = data[position + 4 : position + 8]
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        yield kind, position, end, zlib.crc32(memoryview(data)[position + 4 : end - 4]) == checksum
        if kind == b"IEND":
            return
        position = end


def _inflate(data: bytes) -> bytes:
    # A profile or a packet of more than 64 MB is an attack or an accident.
    return zlib.decompressobj().decompress(data, 1 << 26)


def _ancillary(kind: bytes, body: bytes) -> tuple[str, Any] | None:
    if kind == b"iCCP":
        return "icc", _inflate(body.split(b"\0", 1)[1][1:])
    if kind == b"eXIf":
        return "exif", body
    if kind == b"pHYs":
        x, y, unit = struct.unpack(">IIB", body)
        return ("dpi", (x * _METRE, y * _METRE)) if unit == 1 else None
    if kind == b"iTXt" and body.startswith(_XMP_KEY + b"\0"):
        compressed = body[len(_XMP_KEY) + 1]
        text = body[len(_XMP_KEY) + 3 :].split(b"\0", 2)[2]
        return "xmp", _inflate(text) if compressed else text
    return None


def _check_complete(data: bytes, spans: list[tuple[int, int]]) -> None:
    """FFmpeg takes a picture that ends early for whole: see that the compressed data has its end and checksum."""
    inflater = zlib.decompressobj()
    for start, end in spans:
        rest = data[start + 8 : end - 4] if data[start + 4 : start + 8] == b"IDAT" else b""
        while rest and not inflater.eof:
            inflater.decompress(rest, 1 << 20)
            rest = inflater.unconsumed_tail
    if not inflater.eof:
        raise ValueError("the pixel data ends early")


def _decode(data: bytes, spans: list[tuple[int, int]]) -> NDArray[Any]:
    import av

    packet = av.Packet(len(_SIGNATURE) + sum(end - start for start, end in spans))
    target = memoryview(packet)
    target[: len(_SIGNATURE)] = _SIGNATURE
    position = len(_SIGNATURE)
    for start, end in spans:
        target[position : position + end - start] = data[start:end]
        position += end - start
    decoder = av.CodecContext.create("png", "r")
    decoder.options = {"err_detect": "crccheck+explode"}
    frames = [*decoder.decode(packet), *decoder.decode(None)]
    if len(frames) != 1:
        raise ValueError("no picture could be decoded")
    frame = frames[0]
    count = _COMPONENTS[frame.format.name]
    plane = frame.planes[0]
    rows: NDArray[Any] = np.frombuffer(memoryview(plane), dtype=">u2").reshape(-1, plane.line_size // 2)
    return rows[: frame.height, : frame.width * count].reshape(frame.height, frame.width, count)


def read_png16(file: BinaryIO, name: object) -> PngFile:
    """Read a PNG of 16 bits per sample.

    Args:
        file: at its beginning.
        name: the file in error messages.

    Raises:
        InputError: the file is damaged.
    """
    import av

    data = file.read()
    found: dict[str, Any] = {}
    spans = []
    problems = []
    try:
        for kind, start, end, sound in _chunks(data):
            if kind in _NEEDED:
                if not sound:
                    raise ValueError(f"checksum error in {kind.decode()}")
                spans.append((start, end))
                continue
            try:
                item = _ancillary(kind, data[start + 8 : end - 4]) if sound else None
                found.update([item] if item else [])
            except (ValueError, IndexError, struct.error, zlib.error):
                sound = False
            if not sound:
                problems.append(f"damaged {kind.decode('latin-1')} chunk ignored")
        _check_complete(data, spans)
        samples = _decode(data, spans)
    except (ValueError, KeyError, zlib.error, av.error.FFmpegError) as error:
        cause = error if type(error) is ValueError else "bad data"
        raise InputError(f"{name}: damaged PNG ({cause}); get a whole copy of the file") from error
    return PngFile(samples, found.get("icc"), found.get("exif"), found.get("xmp"), found.get("dpi"), tuple(problems))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _filtered(rows: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> bytes:
    """Filter rows (PNG specification, section 9): per row, the one with the smallest sum of magnitudes."""
    up = np.concatenate([above[None], rows[:-1]])
    left = np.zeros_like(rows)
    left[:, step:] = rows[:, :-step]
    corner = np.zeros_like(rows)
    corner[:, step:] = up[:, :-step]
    a, b, c = (array.astype(np.int16) for array in (left, up, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    paeth = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
    types = np.array([1, 2, 4], dtype=np.uint8)
    candidates = np.stack([rows - left, rows - up, rows - paeth])
    cost = np.minimum(candidates, 0 - candidates).sum(axis=2, dtype=np.uint64)
    best = cost.argmin(axis=0)
    chosen = candidates[best, np.arange(len(rows))]
    return np.concatenate([types[best][:, None], chosen], axis=1).tobytes()


def write_png16(file: BinaryIO | io.BytesIO, picture: Picture, *, grey: bool) -> None:
    """Write a picture of uint16 samples as PNG, with its profile, EXIF, XMP and resolution."""
    height, width = picture.pixels.shape[:2]
    alpha = picture.alpha is not None
    about = picture.metadata
    file.write(_SIGNATURE)
    colour_type = (0 if grey else 2) + (4 if alpha else 0)
    file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)))
    if about.icc is not None:
        file.write(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(about.icc)))
    if about.dpi is not None:
        file.write(_chunk(b"pHYs", struct.pack(">IIB", *(round(dpi / _METRE) for dpi in about.dpi), 1)))
    if about.exif is not None:
        file.write(_chunk(b"eXIf", about.exif))
    if about.xmp is not None:
        file.write(_chunk(b"iTXt", _XMP_KEY + b"\0\0\0\0\0" + about.xmp))
    step = 2 * ((1 if grey else 3) + alpha)
    above = np.zeros(width * step, dtype=np.uint8)
    deflate = zlib.compressobj(DEFLATE_LEVEL)
    for band in sample_bands(picture, grey=grey):
        rows = band.astype(">u2").view(np.uint8).reshape(len(band), width * step)
        compressed = deflate.compress(_filtered(rows, above, step))
        above = rows[-1]
        if compressed:
            file.write(_chunk(b"IDAT", compressed))
    file.write(_chunk(b"IDAT", deflate.flush()))
    file.write(_chunk(b"IEND", b""))
