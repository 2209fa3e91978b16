"""Whether a video file ends before its own structure does.

A cut of less than a second is invisible in durations, because timestamps are coarse and the last frame's length is a
guess; the sizes that Matroska and MP4 state for their parts are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["cut_off", "missing_bytes"]

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_BOXES = frozenset({b"ftyp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"styp", b"mfra", b"uuid"})


def cut_off(path: Path) -> str | None:
    """What is wrong with a Matroska, WebM, MP4 or MOV file that ends too early; None when nothing is known to be."""
    missing = missing_bytes(path)
    return f"the file is cut off, {missing} bytes or more are missing" if missing else None


def missing_bytes(path: Path) -> int:
    """Bytes that a Matroska, WebM, MP4 or MOV file lacks at its end.

    Args:
        path: the file.

    Returns:
        0 when it is whole, of another kind, or does not state sizes (a live recording).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        if head[:4] == _EBML.to_bytes(4, "big"):
            end = _end_of_segment(file, size)
        elif head[4:8] in _BOXES:
            end = _end_of_boxes(file, size)
        else:
            return 0
    return max(end - size, 0)


def _number(file: BinaryIO, *, marker: bool) -> int:
    """An EBML number: the leading zero bits of its first byte tell its length; -1 where the file ends or it is unknown.

    Args:
        file: where to read.
        marker: keep the length bit, as identifiers do.
    """
    first = file.read(1)
    if not first or not first[0]:
        return -1
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return -1
    value = int.from_bytes(first + rest, "big")
    bits = (1 << 7 * length) - 1
    if marker:
        return value
    return -1 if value & bits == bits else value & bits


def _end_of_segment(file: BinaryIO, size: int) -> int:
    """Where the first segment of a Matroska file ends by its own account; 0 if it does not say."""
    while True:
        element, length = _number(file, marker=True), _number(file, marker=False)
        if element < 0 or length < 0:
            return 0
        if element == _SEGMENT:
            return file.tell() + length
        if file.tell() + length > size:
            return 0
        file.seek(length, 1)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the last whole or cut box of an MP4 file ends; what follows the boxes is no concern of ours."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if kind not in _BOXES or length < 8:  # a length of 0 means: to the end of the file
            return 0
        place += length
    return place
