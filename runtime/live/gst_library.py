"""The few functions of GStreamer that streams need, called in its C libraries.

GStreamer's Python bindings belong to the system's own Python and are missing from virtual environments; the C
interface of GStreamer 1.x does not change. Needs GStreamer 1.20 or newer.
"""

from __future__ import annotations

import ctypes as c
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import UareError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["PLAYING", "STOPPED", "Buffer", "GstMissingError", "Library", "MapInfo", "library"]

STOPPED, PLAYING = 1, 4  # GST_STATE_NULL, GST_STATE_PLAYING
_FAILURE = 0  # GST_STATE_CHANGE_FAILURE
_EOS, _ERROR = 1 << 0, 1 << 1
_READ = 1
_SECOND = 1_000_000_000


class GstMissingError(UareError):
    """GStreamer's libraries are not on this machine, or too old."""


class _Error(c.Structure):
    _fields_ = (("domain", c.c_uint32), ("code", c.c_int), ("message", c.c_char_p))


class _MiniObject(c.Structure):
    _fields_ = (
        ("type", c.c_size_t),
        ("refcount", c.c_int),
        ("lockstate", c.c_int),
        ("flags", c.c_uint),
        ("copy", c.c_void_p),
        ("dispose", c.c_void_p),
        ("free", c.c_void_p),
        ("priv_uint", c.c_uint),
        ("priv_pointer", c.c_void_p),
    )


class Buffer(c.Structure):
    """The public part of GstBuffer."""

    _fields_ = (
        ("mini_object", _MiniObject),
        ("pool", c.c_void_p),
        *((name, c.c_uint64) for name in ("pts", "dts", "duration", "offset", "offset_end")),
    )


class _Message(c.Structure):
    _fields_ = (("mini_object", _MiniObject), ("type", c.c_int))


class MapInfo(c.Structure):
    """GstMapInfo: where a buffer's bytes lie."""

    _fields_ = (
        ("memory", c.c_void_p),
        ("flags", c.c_int),
        ("data", c.c_void_p),
        ("size", c.c_size_t),
        ("maxsize", c.c_size_t),
        ("user_data", c.c_void_p * 4),
        ("reserved", c.c_void_p * 4),
    )


_POINTER, _TEXT, _INT, _LONG, _SIZE = c.c_void_p, c.c_char_p, c.c_int, c.c_uint64, c.c_size_t
# name: (result, arguments)
_CORE: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "gst_init_check": (_INT, (_POINTER, _POINTER, c.POINTER(c.POINTER(_Error)))),
    "gst_version": (None, tuple(c.POINTER(c.c_uint) for _ in range(4))),
    "gst_parse_launch": (_POINTER, (_TEXT, c.POINTER(c.POINTER(_Error)))),
    "gst_bin_get_by_name": (_POINTER, (_POINTER, _TEXT)),
    "gst_element_set_state": (_INT, (_POINTER, _INT)),
    "gst_element_get_bus": (_POINTER, (_POINTER,)),
    "gst_bus_timed_pop_filtered": (c.POINTER(_Message), (_POINTER, _LONG, _INT)),
    "gst_message_parse_error": (None, (_POINTER, c.POINTER(c.POINTER(_Error)), c.POINTER(_POINTER))),
    "gst_object_unref": (None, (_POINTER,)),
    "gst_mini_object_unref": (None, (_POINTER,)),
    "gst_sample_get_buffer": (c.POINTER(Buffer), (_POINTER,)),
    "gst_sample_get_caps": (_POINTER, (_POINTER,)),
    "gst_caps_get_structure": (_POINTER, (_POINTER, c.c_uint)),
    "gst_caps_from_string": (_POINTER, (_TEXT,)),
    "gst_structure_get_int": (_INT, (_POINTER, _TEXT, c.POINTER(_INT))),
    "gst_structure_get_fraction": (_INT, (_POINTER, _TEXT, c.POINTER(_INT), c.POINTER(_INT))),
    "gst_buffer_map": (_INT, (c.POINTER(Buffer), c.POINTER(MapInfo), _INT)),
    "gst_buffer_unmap": (None, (c.POINTER(Buffer), c.POINTER(MapInfo))),
    "gst_buffer_new_allocate": (c.POINTER(Buffer), (_POINTER, _SIZE, _POINTER)),
    "gst_buffer_fill": (_SIZE, (c.POINTER(Buffer), _SIZE, _POINTER, _SIZE)),
}
_APP: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "gst_app_sink_try_pull_sample": (_POINTER, (_POINTER, _LONG)),
    "gst_app_sink_is_eos": (_INT, (_POINTER,)),
    "gst_app_src_push_buffer": (_INT, (_POINTER, c.POINTER(Buffer))),
    "gst_app_src_set_caps": (None, (_POINTER, _POINTER)),
    "gst_app_src_end_of_stream": (_INT, (_POINTER,)),
    "gst_app_src_get_current_level_buffers": (_LONG, (_POINTER,)),
}
_GLIB: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "g_error_free": (None, (c.POINTER(_Error),)),
    "g_free": (None, (_POINTER,)),
}


class Library:
    """GStreamer, loaded and initialised.

    Attributes:
        version: for example ``1.22.0``.
    """

    def __init__(self) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}
        names = (("libgstreamer-1.0.so.0", _CORE), ("libgstapp-1.0.so.0", _APP), ("libglib-2.0.so.0", _GLIB))
        try:
            for name, table in names:
                self._bind(c.CDLL(name), table)
        except (OSError, AttributeError) as error:
            raise GstMissingError(
                f"GStreamer 1.20 or newer is needed for gst: pipelines ({error}); install what Debian calls "
                "gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
            ) from None
        failure = c.POINTER(_Error)()
        if not self.call("gst_init_check", None, None, c.byref(failure)):
            raise GstMissingError(f"GStreamer does not start: {self.taken(failure)}")
        numbers = [c.c_uint() for _ in range(4)]
        self.call("gst_version", *map(c.byref, numbers))
        self.version = ".".join(str(number.value) for number in numbers[:3])

    def _bind(self, loaded: c.CDLL, table: dict[str, tuple[Any, tuple[Any, ...]]]) -> None:
        for name, (result, arguments) in table.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
            self._functions[name] = function

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of GStreamer by its C name."""
        return self._functions[name](*arguments)

    def taken(self, failure: Any) -> str:
        """The message of a GError, which is freed."""
        if not failure:
            return "no reason given"
        text = failure.contents.message.decode(errors="replace")
        self.call("g_error_free", failure)
        return " ".join(text.split())

    def parse(self, description: str) -> int:
        """Make a pipeline of a text as gst-launch-1.0 takes it.

        Raises:
            ValueError: with GStreamer's message.
        """
        failure = c.POINTER(_Error)()
        pipeline: int | None = self.call("gst_parse_launch", description.encode(), c.byref(failure))
        if failure:  # also where a pipeline came of it: something in the text was left out then
            reason = self.taken(failure)
            if pipeline:
                self.call("gst_object_unref", pipeline)
            raise ValueError(reason)
        assert pipeline is not None
        return pipeline

    def play(self, pipeline: int) -> bool:
        """Start a pipeline; False where it refuses at once."""
        return bool(self.call("gst_element_set_state", pipeline, PLAYING) != _FAILURE)

    def ended(self, pipeline: int, seconds: float = 0.0) -> str | None:
        """What ended a pipeline: an error's message, "" for the end of the stream, None when it goes on."""
        bus = self.call("gst_element_get_bus", pipeline)
        message = self.call("gst_bus_timed_pop_filtered", bus, round(seconds * _SECOND), _EOS | _ERROR)
        self.call("gst_object_unref", bus)
        if not message:
            return None
        text = ""
        if message.contents.type == _ERROR:
            failure, detail = c.POINTER(_Error)(), c.c_void_p()
            self.call("gst_message_parse_error", message, c.byref(failure), c.byref(detail))
            self.call("g_free", detail)
            text = self.taken(failure)
        self.call("gst_mini_object_unref", message)
        return text

    def drop(self, pipeline: int, *elements: int | None) -> None:
        """Stop a pipeline and give it and references to its elements back."""
        self.call("gst_element_set_state", pipeline, STOPPED)
        for element in (*elements, pipeline):
            if element:
                self.call("gst_object_unref", element)

    def read(self, buffer: Any) -> NDArray[np.uint8]:
        """The bytes of a buffer, copied: uint8 [size]; empty where they cannot be read."""
        where = MapInfo()
        if not self.call("gst_buffer_map", buffer, c.byref(where), _READ):
            return np.empty(0, np.uint8)
        try:
            copied = np.empty(where.size, np.uint8)
            c.memmove(copied.ctypes.data, where.data, where.size)
            return copied
        finally:
            self.call("gst_buffer_unmap", buffer, c.byref(where))


@lru_cache(maxsize=1)
def library() -> Library:
    """GStreamer, loaded once.

    Raises:
        GstMissingError: it is not there.
    """
    return Library()
