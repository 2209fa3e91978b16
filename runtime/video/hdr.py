"""Metadata of the mastering display: SMPTE ST 2086 and content light levels, read from frames, told to encoders."""

from __future__ import annotations

import struct
from typing import Any

from uare_rt.video.frames import HdrMetadata

__all__ = ["encoder_parameter", "read_hdr"]

_UNITS = (50000,) * 8 + (10000,) * 2  # of the standard: chromaticities, then luminances


def read_hdr(frame: Any) -> HdrMetadata | None:
    """What an `av.VideoFrame` says about its mastering display; None when it says nothing."""
    from av.sidedata.sidedata import Type

    display = frame.side_data.get(Type.MASTERING_DISPLAY_METADATA)
    light = frame.side_data.get(Type.CONTENT_LIGHT_LEVEL)
    primaries = luminance = None
    if display is not None:
        # FFmpeg's AVMasteringDisplayMetadata: ten fractions and two flags.
        *numbers, has_primaries, has_luminance = struct.unpack_from("=20i2i", bytes(display))
        pairs = zip(numbers[::2], numbers[1::2], _UNITS, strict=True)
        values = [round(unit * top / bottom) if bottom else 0 for top, bottom, unit in pairs]
        if has_primaries:
            primaries = tuple((values[i], values[i + 1]) for i in range(0, 8, 2))
        if has_luminance:
            luminance = (values[8], values[9])
    levels = struct.unpack_from("=2I", bytes(light)) if light is not None else None
    if primaries is None and luminance is None and levels is None:
        return None
    return HdrMetadata(primaries, luminance, (levels[0], levels[1]) if levels is not None else None)


def encoder_parameter(encoder: str, hdr: HdrMetadata) -> tuple[str, str] | None:
    """The encoder's own option that writes the metadata, and its value; None for an encoder that has none.

    Args:
        encoder: FFmpeg's name.
        hdr: what to write; the mastering display is written where primaries and luminance are both known.
    """
    names = {
        "libx264": ("x264-params", "mastering-display", "cll"),
        "libx265": ("x265-params", "master-display", "max-cll"),
        "libsvtav1": ("svtav1-params", "mastering-display", "content-light"),
    }
    if encoder not in names:
        return None
    option, display, light = names[encoder]
    parts = []
    if hdr.primaries is not None and hdr.luminance is not None:
        divisors = (50000, 10000) if encoder == "libsvtav1" else (1, 1)
        points = {key: _pair(xy, divisors[0]) for key, xy in zip("RGBW", hdr.primaries, strict=True)}
        levels = _pair(hdr.luminance[::-1], divisors[1])
        parts.append(f"{display}=G{points['G']}B{points['B']}R{points['R']}WP{points['W']}L{levels}")
    if hdr.light is not None:
        parts.append(f"{light}={hdr.light[0]},{hdr.light[1]}")
    return (option, ":".join(parts)) if parts else None


def _pair(values: tuple[int, ...], divisor: int) -> str:
    texts = [str(value) if divisor == 1 else f"{value / divisor:.4f}" for value in values]
    return f"({','.join(texts)})"
