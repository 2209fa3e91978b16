"""TIFF: 16-bit samples read, 8- and 16-bit samples written.

Pillow has no 16-bit colour and FFmpeg misreads tiles, so the strips and tiles are put together here;
byte-oriented compressions other than deflate are undone by Pillow's libtiff, one strip at a time.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from uare_rt.errors import InputError
from uare_rt.images.opening import relaxed_pillow
from uare_rt.images.picture import DEFLATE_LEVEL, sample_bands
from uare_rt.images.profiles import exif_entries, exif_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.images.picture import Picture

__all__ = ["deep_tags", "exif_of_tiff", "read_tiff16", "tiff_size", "write_tiff"]

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES = 273, 277, 278, 279
_X_RESOLUTION, _Y_RESOLUTION, _PLANAR, _RESOLUTION_UNIT, _PREDICTOR = 282, 283, 284, 296, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _XMP, _ICC = 338, 339, 700, 34675
_NONE, _DEFLATE, _OLD_DEFLATE = 1, 8, 32946
_BY_LIBTIFF = frozenset({5, 32773, 34925, 50000})  # LZW, PackBits, LZMA, Zstandard
_PREMULTIPLIED, _STRAIGHT = 1, 2
_BYTE, _SHORT, _LONG, _RATIONAL = 1, 3, 4, 5
_POINTERS = frozenset({0x8769, 0x8825})  # to the EXIF and GPS directories
_INTEROPERABILITY = 0xA005

# Tags about how samples are stored, and those kept elsewhere: they never travel to another file.
_STRUCTURE_TAGS = frozenset({
    *range(254, 260), 262, 263, 264, 265, 266, 273, 274, *range(277, 285), 288, 289, 290, 291, 292, 293, 296, 297,
    301, 317, 318, 319, 320, *range(321, 326), 330, *range(332, 348), 400, *range(512, 533), _XMP, _ICC, 34377, 37724,
})  # fmt: skip


def _read_tags(file: BinaryIO) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Read the first directory of a TIFF file; raises whatever Pillow does on damage."""
    head = file.read(8)
    if head[2:4] in (b"+\0", b"\0+"):
        head += file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(directory.next)
    directory.load(file)
    return directory


def deep_tags(head: bytes, file: BinaryIO) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    """Tags of a grey or RGB TIFF of 16-bit unsigned samples; None for anything else. Leaves the file rewound."""
    if not head.startswith(_MAGIC):
        return None
    file.seek(0)
    try:
        tags = _read_tags(file)
        bits, formats = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
        deep = set(bits) == {16} and set(formats) == {1} and tags.get(_PHOTOMETRIC) in (0, 1, 2)
        return tags if deep and tags[_WIDTH] > 0 and tags[_HEIGHT] > 0 else None
    except Exception:  # whatever is wrong with the directory, Pillow meets it again and it is reported then
        return None
    finally:
        file.seek(0)


def tiff_size(tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[int, int]:
    """Width and height in pixels, as stored."""
    return tags[_WIDTH], tags[_HEIGHT]


def exif_of_tiff(file: BinaryIO, tags: TiffImagePlugin.ImageFileDirectory_v2) -> bytes | None:
    """Gather what a TIFF says about its making (not about its samples) as EXIF; raises as Pillow does on damage."""
    exif = Image.Exif()
    for tag, value in tags.items():
        if tag in _POINTERS:
            file.seek(0)
            sub = TiffImagePlugin.ImageFileDirectory_v2(file.read(8), group=tag)
            file.seek(value)
            sub.load(file)
            exif[tag] = {key: item for key, item in sub.items() if key != _INTEROPERABILITY}
        elif tag not in _STRUCTURE_TAGS:
            exif[tag] = value
    return exif.tobytes() if len(exif) else None


def _inflated(data: bytes, compression: int, row_bytes: int, rows: int) -> bytes:
    size = row_bytes * rows
    if compression == _NONE:
        return data
    if compression in (_DEFLATE, _OLD_DEFLATE):
        return zlib.decompressobj().decompress(data, size)
    # The same bytes as a TIFF of one strip of 8-bit grey.
    values = [(_WIDTH, row_bytes), (_HEIGHT, rows), (_BITS, 8), (_COMPRESSION, compression), (_PHOTOMETRIC, 1),
              (_STRIP_OFFSETS, 8), (_SAMPLES, 1), (_ROWS_PER_STRIP, rows), (_STRIP_SIZES, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values)
    padding = bytes(len(data) % 2)
    start = 8 + len(data) + len(padding)
    tail = struct.pack("<H", len(values)) + entries + bytes(4)
    wrapped = io.BytesIO(struct.pack("<2sHI", b"II", 42, start) + data + padding + tail)
    with relaxed_pillow(), Image.open(wrapped) as strip:
        decoded: bytes = strip.tobytes()
        return decoded


def _straight(samples: NDArray[Any]) -> None:
    """Divide colour by alpha in place (a file may store them multiplied)."""
    for row in samples:
        alpha = row[:, -1:].astype(np.uint32)
        full = (row[:, :-1].astype(np.uint64) * 65535 + alpha // 2) // np.maximum(alpha, 1)
        row[:, :-1] = np.minimum(full, 65535)


def read_tiff16(file: BinaryIO, tags: TiffImagePlugin.ImageFileDirectory_v2, name: object) -> NDArray[Any]:
    """Read the first picture of a TIFF of 16-bit samples.

    Args:
        file: the file.
        tags: what `deep_tags` found in it.
        name: the file in error messages.

    Returns:
        uint16 [H, W, C] as stored (not turned), C = grey or RGB, then alpha (not multiplied in) if there is one.

    Raises:
        InputError: the file is damaged or of an unusual kind.
    """
    try:
        return _read_samples(file, tags)
    except (KeyError, IndexError, TypeError, ValueError, SyntaxError, OSError, struct.error, zlib.error) as error:
        cause = f"{error}" if type(error) is ValueError else "data missing or bad"
        raise InputError(f"{name}: unreadable 16-bit TIFF ({cause}); get a whole copy or save it as PNG") from error


def _read_samples(file: BinaryIO, tags: TiffImagePlugin.ImageFileDirectory_v2) -> NDArray[Any]:
    width, height, count = tags[_WIDTH], tags[_HEIGHT], tags.get(_SAMPLES, 1)
    compression, predictor = tags.get(_COMPRESSION, _NONE), tags.get(_PREDICTOR, 1)
    if compression not in {_NONE, _DEFLATE, _OLD_DEFLATE} | _BY_LIBTIFF:
        raise ValueError(f"compression {compression} is not supported")
    if predictor not in (1, 2) or tags.get(_FILL_ORDER, 1) != 1:
        raise ValueError(f"predictor {predictor} or its bit order is not supported")
    tiled = _TILE_OFFSETS in tags
    tile_width = tags[_TILE_WIDTH] if tiled else width
    tile_height = tags[_TILE_HEIGHT] if tiled else min(tags.get(_ROWS_PER_STRIP, height), height)
    offsets, sizes = (tags[_TILE_OFFSETS], tags[_TILE_SIZES]) if tiled else (tags[_STRIP_OFFSETS], tags[_STRIP_SIZES])
    planes, depth = (count, 1) if tags.get(_PLANAR, 1) == 2 else (1, count)
    places = [
        (plane, y, x)
        for plane in range(planes)
        for y in range(0, height, tile_height)
        for x in range(0, width, tile_width)
    ]
    if len(offsets) < len(places) or len(sizes) < len(places):
        raise ValueError("strips are missing")
    samples = np.empty((height, width, count), dtype=np.uint16)
    for (plane, y, x), offset, size in zip(places, offsets, sizes, strict=False):
        rows = tile_height if tiled else min(tile_height, height - y)
        file.seek(offset)
        data = _inflated(file.read(size), compression, tile_width * depth * 2, rows)
        order = ">u2" if tags.prefix == b"MM" else "<u2"
        tile = np.frombuffer(data, dtype=order, count=rows * tile_width * depth).reshape(rows, tile_width, depth)
        if predictor == 2:
            tile = np.add.accumulate(tile, axis=1, dtype=np.uint16)
        region = samples[y : y + rows, x : x + tile_width, plane : plane + depth]
        region[...] = tile[: region.shape[0], : region.shape[1]]
    return _without_extras(samples, tags)


def _without_extras(samples: NDArray[Any], tags: TiffImagePlugin.ImageFileDirectory_v2) -> NDArray[Any]:
    colours = 3 if tags[_PHOTOMETRIC] == 2 else 1
    if samples.shape[2] < colours:
        raise ValueError(f"RGB with {samples.shape[2]} samples per pixel")
    extras = tags.get(_EXTRA_SAMPLES, (_STRAIGHT,))  # writers that forget the tag mean alpha
    alpha = extras[0] if samples.shape[2] > colours else 0
    samples = samples[..., : colours + (alpha in (_PREMULTIPLIED, _STRAIGHT))]
    if tags[_PHOTOMETRIC] == 0:
        np.subtract(65535, samples[..., :1], out=samples[..., :1])
    if alpha == _PREMULTIPLIED:
        _straight(samples)
    return samples


def _rational(value: float) -> tuple[int, int]:
    scale = 1000 if value < 1e6 else 1
    return round(value * scale), scale


def write_tiff(file: BinaryIO, picture: Picture, *, grey: bool) -> None:
    """Write a picture as TIFF (deflate with horizontal differences), with its profile, EXIF, XMP and resolution.

    EXIF is itself a TIFF structure with offsets from its own beginning: the file begins with it, byte for byte, so
    that everything it points to stays where it was, and a new first directory takes over its entries.

    Raises:
        ValueError: the file would pass the 4 GiB that TIFF can address.
    """
    about = picture.metadata
    exif = about.exif or b"II*\0" + bytes(10)
    order = exif_order(exif)
    inherited = exif_entries(exif)[0] if about.exif else {}
    entries = {tag: exif[at : at + 12] for tag, at in inherited.items() if tag not in _STRUCTURE_TAGS}
    file.write(exif + bytes(len(exif) % 2))
    position = len(exif) + len(exif) % 2

    def put(data: bytes) -> int:
        nonlocal position
        start = position
        if start + len(data) >= 1 << 32:
            raise ValueError("a TIFF holds at most 4 GiB; write a .png")
        file.write(data + bytes(len(data) % 2))
        position += len(data) + len(data) % 2
        return start

    def add(tag: int, code: int, *values: int) -> None:
        data = struct.pack(f"{order}{len(values)}{'.B.HII'[code]}", *values)
        count = len(values) // (2 if code == _RATIONAL else 1)
        stored = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "I", put(data))
        entries[tag] = struct.pack(order + "HHI", tag, code, count) + stored

    depth = (1 if grey else 3) + (picture.alpha is not None)
    height, width = picture.pixels.shape[:2]
    bits = picture.pixels.dtype.itemsize * 8
    offsets, sizes, rows = [], [], 0
    for band in sample_bands(picture, grey=grey):
        rows = rows or len(band)
        differences = band.copy()
        differences[:, 1:] -= band[:, :-1]
        data = zlib.compress(differences.astype(f"{order}u{bits // 8}").tobytes(), DEFLATE_LEVEL)
        offsets.append(put(data))
        sizes.append(len(data))
    for tag, value in {_WIDTH: width, _HEIGHT: height, _ROWS_PER_STRIP: rows}.items():
        add(tag, _LONG, value)
    for tag, value in {_COMPRESSION: _DEFLATE, _PHOTOMETRIC: 1 if grey else 2, _SAMPLES: depth, _PLANAR: 1,
                       _PREDICTOR: 2, 274: 1}.items():  # fmt: skip
        add(tag, _SHORT, value)
    add(_BITS, _SHORT, *[bits] * depth)
    add(_SAMPLE_FORMAT, _SHORT, *[1] * depth)
    add(_STRIP_OFFSETS, _LONG, *offsets)
    add(_STRIP_SIZES, _LONG, *sizes)
    if picture.alpha is not None:
        add(_EXTRA_SAMPLES, _SHORT, _STRAIGHT)
    if about.dpi is not None:
        add(_RESOLUTION_UNIT, _SHORT, 2)
        for tag, dpi in zip((_X_RESOLUTION, _Y_RESOLUTION), about.dpi, strict=True):
            add(tag, _RATIONAL, *_rational(dpi))
    for tag, blob in ((_ICC, about.icc), (_XMP, about.xmp)):
        if blob:
            add(tag, _BYTE, *blob)
    start = put(struct.pack(order + "H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4))
    file.seek(4)
    file.write(struct.pack(order + "I", start))
