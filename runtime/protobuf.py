"""Protocol buffers as far as ONNX files need them, without the packages that are not in the base install.

A message is a run of fields, each a number and a value. Only what comes in ONNX files is read: whole numbers, bytes
(texts, nested messages, packed arrays), and floats where they are asked for.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["fields", "floats", "packed", "submessages", "varint"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}  # bytes


def fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of a message in order: their numbers, and whole numbers or bytes; those of fixed width are left out.

    Raises:
        IndexError: the message is cut short.
        ValueError: it is cut short, or no message.
    """
    for number, wire, value in _walk(data):
        if wire in (_VARINT, _BYTES):
            yield number, value


def floats(data: memoryview, wanted: int) -> Iterator[float]:
    """The values of all fields of one number that hold 32-bit floats.

    Raises:
        IndexError: the message is cut short.
        ValueError: it is cut short, or no message.
    """
    for number, wire, value in _walk(data):
        if number == wanted and wire == _FIXED32 and isinstance(value, memoryview):
            yield struct.unpack("<f", value)[0]


def _walk(data: memoryview) -> Iterator[tuple[int, int, memoryview | int]]:
    """Number, wire type and value of each field."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = varint(data, at)
        elif wire in _FIXED:
            length = _FIXED[wire]
        else:
            raise ValueError(f"unknown wire type {wire}")
        if at + length > len(data):
            raise ValueError("it is cut short")
        yield number, wire, data[at : at + length]
        at += length


def submessages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    """The values of all fields of one number that hold bytes."""
    for number, value in fields(data):
        if number == wanted and isinstance(value, memoryview):
            yield value


def packed(number: int, value: int | bytes | memoryview) -> bytes:
    """One field as it stands in a message: a whole number from 0, or bytes."""
    if isinstance(value, int):
        return _packed_varint(number << 3 | _VARINT) + _packed_varint(value)
    return b"".join((_packed_varint(number << 3 | _BYTES), _packed_varint(len(value)), value))


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The whole number that begins at a place, and the place behind it.

    Raises:
        IndexError: it is cut short.
    """
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _packed_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
