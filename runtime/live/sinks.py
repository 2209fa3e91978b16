"""Where restored frames go: the interface of a sink, functions of the caller, and texts that name sinks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from fractions import Fraction

    from uare_rt.live.frames import LiveResult

__all__ = ["FunctionSink", "Sink", "open_sink"]

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# FFmpeg's names of the containers that travel over these.
_STREAMS = {"rtsp": "rtsp", "rtmp": "flv", "rtmps": "flv", "udp": "mpegts", "tcp": "mpegts", "srt": "mpegts"}


@runtime_checkable
class Sink(Protocol):
    """Takes results in order, in one thread. No call waits without bound."""

    def write(self, result: LiveResult, rate: Fraction | None) -> int:
        """Take one result.

        Args:
            result: the restored frame.
            rate: frames per second of the source, None where not known.

        Returns:
            Times that the whole picture was copied or converted.

        Raises:
            OutputError: it cannot be written.
        """

    def finish(self) -> None:
        """Complete what was written.

        Raises:
            OutputError: it cannot be completed.
        """

    def discard(self) -> None:
        """Remove what was written; after a failed `write`."""


class FunctionSink:
    """A function of the caller.

    Args:
        function: called with every `LiveResult`; None drops them.
    """

    def __init__(self, function: Callable[[LiveResult], object] | None) -> None:
        self._function = function

    def write(self, result: LiveResult, rate: Fraction | None) -> int:
        """Call the function."""
        if self._function is not None:
            self._function(result)
        return 0

    def finish(self) -> None:
        """Nothing to complete."""

    def discard(self) -> None:
        """Nothing to remove."""


def open_sink(what: str | Sink | Callable[[LiveResult], object], *, overwrite: bool = False) -> Sink:
    """A sink by its name; files and connections are opened by the first frame.

    Args:
        what: a text: ``null`` (counts only), ``gst:PIPELINE`` that begins with raw video, a URL (``rtsp``, ``rtmp``,
            ``udp``, ``tcp``, ``srt``) or a video file. A `Sink` is returned itself; a function becomes one.
        overwrite: whether an existing file may be replaced.

    Raises:
        UsageError: the text names no sink.
        OutputError: the file exists, or its directory cannot be written to.
    """
    if not isinstance(what, str):
        return what if isinstance(what, Sink) else FunctionSink(what)
    if what == "null":
        return FunctionSink(None)
    if what.startswith("gst:"):
        from uare_rt.live.gstreamer import GstSink

        return GstSink(what.removeprefix("gst:"))
    from uare_rt.live.recording import FileSink, UrlSink

    url = _URL.match(what)
    if url is None:
        return FileSink(Path(what), overwrite=overwrite)
    scheme = url[1].lower()
    if scheme not in _STREAMS:
        raise UsageError(f"sink {what!r}: {scheme} cannot be written to; choose one of {', '.join(_STREAMS)}")
    return UrlSink(what, _STREAMS[scheme])
