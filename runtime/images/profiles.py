"""EXIF, XMP, ICC and resolution as bytes: checked when read, corrected in place, otherwise kept as they are."""

from __future__ import annotations

import math
import re
import struct

__all__ = ["exif_entries", "exif_order", "icc_space", "plain_dpi", "resized_exif", "upright_exif", "upright_xmp"]

_ORIENTATION = 0x0112
_EXIF_IFD = 0x8769
_WIDTH_TAGS = {0x0100, 0xA002}  # ImageWidth, PixelXDimension
_HEIGHT_TAGS = {0x0101, 0xA003}
_SHORT, _LONG = 3, 4
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)([1-8])")


def exif_order(exif: bytes | bytearray) -> str:
    """Byte order of a TIFF structure as `struct` spells it; ValueError if it is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(exif[:4]))
    if order is None or len(exif) < 14:
        raise ValueError("no TIFF header")
    return order


def exif_entries(exif: bytes | bytearray, start: int | None = None) -> tuple[dict[int, int], int]:
    """Find the entries of one directory of a TIFF structure.

    Args:
        exif: the structure.
        start: where the directory begins; None for the first one.

    Returns:
        Position of each tag's 12-byte entry, and the position of the link to the next directory.

    Raises:
        ValueError: the directory lies outside the data.
    """
    order = exif_order(exif)
    if start is None:
        (start,) = struct.unpack_from(order + "I", exif, 4)
    if not 8 <= start <= len(exif) - 2:
        raise ValueError("a directory lies outside the data")
    (count,) = struct.unpack_from(order + "H", exif, start)
    end = start + 2 + 12 * count
    if end + 4 > len(exif):
        raise ValueError("a directory is cut off")
    positions = range(start + 2, end, 12)
    return {struct.unpack_from(order + "H", exif, position)[0]: position for position in positions}, end


def _number(exif: bytes | bytearray, position: int) -> int | None:
    order = exif_order(exif)
    kind, count = struct.unpack_from(order + "HI", exif, position + 2)
    if count != 1 or kind not in (_SHORT, _LONG):
        return None
    value: int = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), exif, position + 8)[0]
    return value


def _set_number(exif: bytearray, position: int, value: int) -> None:
    order = exif_order(exif)
    if _number(exif, position) is None:
        return
    kind, layout = (_SHORT, "HIHxx") if value < 65536 else (_LONG, "HII")
    struct.pack_into(order + layout, exif, position + 2, kind, 1, value)


def upright_exif(exif: bytes) -> tuple[bytes, int | None]:
    """Take the orientation out of EXIF data.

    Args:
        exif: a TIFF structure, with or without the "Exif" prefix.

    Returns:
        The structure without prefix, orientation set to 1 and thumbnail unlinked (it would show the picture as it
        was), and the orientation that was there (None if none or not in 1..8).

    Raises:
        ValueError: the data is damaged.
    """
    data = bytearray(exif.removeprefix(b"Exif\0\0"))
    entries, link = exif_entries(data)
    found = None
    if _ORIENTATION in entries:
        found = _number(data, entries[_ORIENTATION])
        _set_number(data, entries[_ORIENTATION], 1)
    data[link : link + 4] = bytes(4)
    return bytes(data), found if found in range(1, 9) else None


def resized_exif(exif: bytes, width: int, height: int) -> bytes:
    """Correct the pixel dimensions that EXIF data states, where it states them."""
    data = bytearray(exif)
    directories = [exif_entries(data)[0]]
    if _EXIF_IFD in directories[0]:
        start = _number(data, directories[0][_EXIF_IFD])
        try:
            directories.append(exif_entries(data, start)[0])
        except ValueError:
            return exif  # the first directory is sound, the rest stays as it came
    for entries in directories:
        for tag, position in entries.items():
            if tag in _WIDTH_TAGS:
                _set_number(data, position, width)
            elif tag in _HEIGHT_TAGS:
                _set_number(data, position, height)
    return bytes(data)


def upright_xmp(xmp: bytes) -> tuple[bytes, int | None]:
    """Set the orientation of an XMP packet to 1; also returns the one that was there (None if none)."""
    match = _XMP_ORIENTATION.search(xmp)
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp), int(match[2]) if match else None


def icc_space(icc: bytes) -> str:
    """Colour space of an ICC profile ("RGB", "GRAY", "CMYK", ...); ValueError if it is not a profile."""
    if len(icc) < 132 or icc[36:40] != b"acsp" or int.from_bytes(icc[:4], "big") > len(icc):
        raise ValueError("not an ICC profile, or cut off")
    return icc[16:20].decode("latin-1").strip()


def plain_dpi(dpi: object) -> tuple[float, float] | None:
    """Resolution as two finite numbers above 1 (libraries say 1 for unknown), or None if it is anything else."""
    try:
        x, y = (float(value) for value in dpi)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(v) and 1 < v <= 1e6 for v in (x, y)) else None
