"""Where live frames come from: the interface of a source, arrays of the caller, and texts that name sources."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from uare_rt.errors import UsageError
from uare_rt.live.frames import Shot, as_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ArraySource", "Source", "open_source"]

_SYNTHETIC = re.compile(r"synthetic(?::(\d+)x(\d+)(?:@(\d+(?:/\d+)?))?)?")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@runtime_checkable
class Source(Protocol):
    """A camera or what stands for one. Used by one thread at a time; may be opened again after it was closed."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def rate(self) -> Fraction | None:
        """Frames per second while open, None where not known."""

    @property
    def damaged(self) -> int:
        """Packets that could not be decoded since it was made."""

    @property
    def ends(self) -> bool:
        """Whether the end of its pictures is the end (a file), or a loss to come back from (a camera)."""

    @property
    def reopens(self) -> bool:
        """Whether it goes on where it is opened again after a failure (a camera), or begins anew (a file)."""

    def open(self) -> None:
        """Start it.

        Raises:
            InputError: it is not there, or gives no pictures.
        """

    def read(self) -> Shot | None:
        """The next picture, None after the last. Waits a bounded time.

        Raises:
            InputError: it was lost, or nothing came in time.
        """

    def close(self) -> None:
        """Release it; does nothing when it is not open."""


class ArraySource:
    """Arrays of the caller: NumPy, or DLPack tensors in processor memory, taken without a copy.

    Args:
        frames: uint8 or uint16 [H, W, 3], RGB. With "newest" frames wait in a queue of one, so an
            array must not be written to again before a newer one was taken.
    """

    name = "the frames given"
    rate: Fraction | None = None
    damaged = 0
    ends, reopens = True, False

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames = frames
        self._iterator: Iterator[Any] | None = None

    def open(self) -> None:
        """Begin the iteration."""
        self._iterator = iter(self._frames)

    def read(self) -> Shot | None:
        """The next array; waits for the iterator."""
        assert self._iterator is not None
        frame = next(self._iterator, None)
        return None if frame is None else Shot(as_pixels(frame), None, 0)

    def close(self) -> None:
        """Forget the iterator."""
        self._iterator = None


def open_source(what: str | Source | Iterable[Any]) -> Source:
    """A source by its name, not opened yet.

    Args:
        what: a text: ``synthetic[:WIDTHxHEIGHT[@RATE]]``, a device ``/dev/videoN[?video_size=1280x720&framerate=30]``,
            a URL (``rtsp://...``), ``gst:PIPELINE`` that ends in raw video, or a file, which plays at its own speed.
            A `Source` is returned itself; an iterable of arrays becomes one.

    Raises:
        UsageError: the text names no source.
    """
    if isinstance(what, Source):
        return what
    if not isinstance(what, str):
        if not hasattr(what, "__iter__"):
            raise UsageError(f"a {type(what).__name__} is no source; give a text, a Source or an iterable of frames")
        return ArraySource(what)
    synthetic = _SYNTHETIC.fullmatch(what)
    if synthetic:
        from uare_rt.live.synthetic import SyntheticCamera

        width, height, rate = (synthetic[1] or "640", synthetic[2] or "360", synthetic[3] or "30")
        try:
            return SyntheticCamera(int(width), int(height), rate=Fraction(rate))
        except ZeroDivisionError:
            raise UsageError(f"source {what!r}: a rate cannot be divided by 0") from None
    if what.startswith("gst:"):
        from uare_rt.live.gstreamer import GstSource

        return GstSource(what.removeprefix("gst:"))
    from uare_rt.live.capture import AvSource

    if what.startswith("synthetic:") or not what:
        raise UsageError(f"source {what!r} cannot be read; write synthetic:640x360@30, a device, a URL or a file")
    device, _, settings = what.partition("?")
    if device.startswith("/dev/video"):
        pairs = [pair.partition("=") for pair in settings.split("&") if pair]
        if not all(key and value for key, _, value in pairs):
            raise UsageError(f"source {what!r}: write settings as {device}?video_size=1280x720&framerate=30")
        return AvSource(device, kind="v4l2", options={key: value for key, _, value in pairs})
    return AvSource(what, kind="url" if _URL.match(what) else "file")
