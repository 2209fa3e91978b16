"""One frame of a clip, as it is and restored: to see what a run will do before it is started."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from uare_rt.video.frames import Picture
from uare_rt.video.restore import check_options, open_source

if TYPE_CHECKING:
    from pathlib import Path

    from uare_rt.session import Restored, Session
    from uare_rt.video.frames import Pixels
    from uare_rt.video.options import VideoOptions

__all__ = ["preview_video"]


def preview_video(
    session: Session, source: str | Path, seconds: float, *, scale: int, strength: float, options: VideoOptions
) -> tuple[Pixels, Restored]:
    """Restore the first frame from a time on.

    Args:
        session: does the work.
        source: as for `restore_video`.
        seconds: from the start of the clip.
        scale: of the result.
        strength: 0 (leave as is) to 1.
        options: how the source is read.

    Returns:
        The frame, uint8 or uint16 [H, W, 3] RGB, and what became of it.

    Raises:
        UsageError: a value is out of its range.
        InputError: the source cannot be read, or no frame is there at that time.
    """
    options = replace(options, start=seconds, end=None, sample=None)
    check_options(session, scale, strength, options)
    reader = open_source(source, options)
    try:
        picture = next(item for item in reader if isinstance(item, Picture))
        pixels = reader.pixels(picture)
    finally:
        reader.close()
    return pixels, session.restore(pixels, scale=scale, strength=strength)
