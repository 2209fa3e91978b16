"""GStreamer pipelines as sources (appsink) and sinks (appsrc)."""

from __future__ import annotations

import ctypes as c
import itertools
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import InputError, OutputError, UsageError
from uare_rt.frames import to_uint8
from uare_rt.live.frames import Shot
from uare_rt.live.gst_library import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.live.frames import LiveResult
    from uare_rt.live.gst_library import Library

__all__ = ["GstSink", "GstSource"]

_FIRST_SECONDS, _READ_SECONDS, _WRITE_SECONDS = 10.0, 5.0, 5.0
_STEP_SECONDS = 0.1  # between two looks at the bus
_NO_TIME = 2**64 - 1
_WAITING = 2  # buffers that wait in an appsrc
_NAMES = itertools.count()
_OK = 0  # GST_FLOW_OK


def _row_bytes(width: int) -> int:
    """GStreamer's rows of RGB begin at multiples of four bytes."""
    return (3 * width + 3) & ~3


class GstSource:
    """A pipeline as a camera.

    Args:
        description: as for gst-launch-1.0, without a sink; it must end in raw video in system memory.

    Raises:
        GstMissingError: GStreamer is not there.
    """

    ends = reopens = True
    damaged = 0

    def __init__(self, description: str) -> None:
        self.name = f"gst:{description}"
        self.rate: Fraction | None = None
        self._gst: Library = library()
        # The name keeps clear of those in the description.
        self._element = f"uare-sink-{next(_NAMES)}"
        self._description = (
            f"{description} ! videoconvert ! video/x-raw,format=RGB ! "
            f"appsink name={self._element} sync=false max-buffers=1"
        )
        self._pipeline: int | None = None
        self._sink: int | None = None
        self._first = True

    def open(self) -> None:
        """Start the pipeline.

        Raises:
            UsageError: the description is no pipeline.
            InputError: the pipeline does not start.
        """
        try:
            self._pipeline = self._gst.parse(self._description)
        except ValueError as error:
            raise UsageError(f"{self.name}: {error}") from None
        self._sink = self._gst.call("gst_bin_get_by_name", self._pipeline, self._element.encode())
        self._first = True
        if not self._gst.play(self._pipeline):
            reason = self._gst.ended(self._pipeline, 1.0) or "no reason given"
            self.close()
            raise InputError(f"{self.name}: does not start: {reason}")

    def read(self) -> Shot | None:
        """The next frame, None at the end of the stream.

        Raises:
            InputError: the pipeline failed, or gave nothing for 5 s (10 s at the start).
        """
        patience = time.monotonic() + (_FIRST_SECONDS if self._first else _READ_SECONDS)
        while time.monotonic() < patience:
            sample = self._gst.call("gst_app_sink_try_pull_sample", self._sink, round(_STEP_SECONDS * 1e9))
            if sample:
                try:
                    return self._shot(sample)
                finally:
                    self._gst.call("gst_mini_object_unref", sample)
            assert self._pipeline is not None
            failure = self._gst.ended(self._pipeline)
            if failure:
                raise InputError(f"{self.name}: {failure}")
            if failure == "" or self._gst.call("gst_app_sink_is_eos", self._sink):
                return None
        raise InputError(f"{self.name}: no frame came for {_READ_SECONDS:g} s")

    def close(self) -> None:
        """Stop the pipeline."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            self._gst.drop(pipeline, self._sink)

    def _shot(self, sample: int) -> Shot:
        structure = self._gst.call("gst_caps_get_structure", self._gst.call("gst_sample_get_caps", sample), 0)
        width, height = (self._number(structure, name) for name in (b"width", b"height"))
        if self._first:
            over, under = c.c_int(), c.c_int()
            self._gst.call("gst_structure_get_fraction", structure, b"framerate", c.byref(over), c.byref(under))
            self.rate = Fraction(over.value, under.value) if over.value > 0 and under.value > 0 else None
            self._first = False
        buffer = self._gst.call("gst_sample_get_buffer", sample)
        data = self._gst.read(buffer)
        row = _row_bytes(width)
        if data.size != row * height:
            raise InputError(f"{self.name}: {data.size} bytes are no RGB frame of {width}x{height}; add videoconvert")
        pixels = data.reshape(height, row)[:, : 3 * width].reshape(height, width, 3)
        pts = buffer.contents.pts
        return Shot(pixels, None if pts == _NO_TIME else pts / 1e9, 1)

    def _number(self, structure: int, name: bytes) -> int:
        value = c.c_int()
        self._gst.call("gst_structure_get_int", structure, name, c.byref(value))
        return value.value


class GstSink:
    """A pipeline as a display, an encoder, a server.

    Args:
        description: as for gst-launch-1.0, without a source; it must take raw RGB video (``videoconvert ! ...``).
        live: frames are stamped when they reach the pipeline; otherwise each comes with its time.

    Raises:
        GstMissingError: GStreamer is not there.
        UsageError: the description is no pipeline.
    """

    def __init__(self, description: str, *, live: bool = True) -> None:
        self.name = f"gst:{description}"
        self._gst: Library = library()
        element = f"uare-src-{next(_NAMES)}"
        clock = "is-live=true do-timestamp=true" if live else "is-live=false"
        try:
            self._pipeline: int | None = self._gst.parse(
                f"appsrc name={element} format=time {clock} block=false ! {description}"
            )
        except ValueError as error:
            raise UsageError(f"{self.name}: {error}") from None
        self._src: int = self._gst.call("gst_bin_get_by_name", self._pipeline, element.encode())
        self._caps = ""

    def write(self, result: LiveResult, rate: Fraction | None) -> int:
        """Hand a frame over; one copy.

        Raises:
            OutputError: the pipeline failed, or took nothing for 5 s.
        """
        self.push(to_uint8(result.pixels), rate)
        return 1

    def push(self, pixels: NDArray[np.uint8], rate: Fraction | None, nanoseconds: int | None = None) -> None:
        """Hand a picture over; one copy.

        Args:
            pixels: uint8 [H, W, 3], RGB.
            rate: frames per second, None for not known.
            nanoseconds: its time; None has it stamped.

        Raises:
            OutputError: the pipeline failed, or took nothing for 5 s.
        """
        height, width = pixels.shape[:2]
        self._negotiate(width, height, rate)
        self._wait_for_room()
        row = _row_bytes(width)
        buffer = self._gst.call("gst_buffer_new_allocate", None, row * height, None)
        if not buffer:
            raise OutputError(f"{self.name}: no memory for a frame of {width}x{height}")
        padded = _padded(pixels, row)
        self._gst.call("gst_buffer_fill", buffer, 0, padded.ctypes.data, padded.nbytes)
        if nanoseconds is not None:
            buffer.contents.pts = nanoseconds
        if self._gst.call("gst_app_src_push_buffer", self._src, buffer) != _OK:
            raise OutputError(f"{self.name}: {self._failure() or 'the pipeline has ended'}")

    def finish(self) -> None:
        """Send the end of the stream and wait until it got through.

        Raises:
            OutputError: the pipeline failed, or did not end within 10 s.
        """
        if self._pipeline is None:
            return
        try:
            if self._caps:
                self._gst.call("gst_app_src_end_of_stream", self._src)
                failure = self._gst.ended(self._pipeline, _FIRST_SECONDS)
                if failure != "":
                    raise OutputError(f"{self.name}: {failure or 'does not end'}")
        finally:
            self.discard()

    def discard(self) -> None:
        """Stop the pipeline."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            self._gst.drop(pipeline, self._src)

    def _negotiate(self, width: int, height: int, rate: Fraction | None) -> None:
        speed = f"{rate.numerator}/{rate.denominator}" if rate else "0/1"
        caps = f"video/x-raw,format=RGB,width={width},height={height},framerate={speed}"
        if caps == self._caps:
            return
        made = self._gst.call("gst_caps_from_string", caps.encode())
        self._gst.call("gst_app_src_set_caps", self._src, made)
        self._gst.call("gst_mini_object_unref", made)
        if not self._caps:
            assert self._pipeline is not None
            if not self._gst.play(self._pipeline):
                raise OutputError(f"{self.name}: does not start: {self._failure(1.0) or 'no reason given'}")
        self._caps = caps

    def _wait_for_room(self) -> None:
        patience = time.monotonic() + _WRITE_SECONDS
        while self._gst.call("gst_app_src_get_current_level_buffers", self._src) >= _WAITING:
            failure = self._failure()
            if failure is not None:
                raise OutputError(f"{self.name}: {failure or 'the pipeline has ended'}")
            if time.monotonic() > patience:
                raise OutputError(f"{self.name}: took no frame for {_WRITE_SECONDS:g} s")
            time.sleep(0.001)

    def _failure(self, seconds: float = 0.0) -> str | None:
        return None if self._pipeline is None else self._gst.ended(self._pipeline, seconds)


def _padded(pixels: NDArray[Any], row: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if row == 3 * width:
        return pixels
    out = np.zeros((height, row), np.uint8)
    out[:, : 3 * width] = pixels.reshape(height, 3 * width)
    return out
