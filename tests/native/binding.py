"""The C interface through ctypes, for tests that compare it with the Python runtime."""

from __future__ import annotations

import ctypes as c
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

RGB24, RGBA, NV12, I420, P010 = 1, 2, 3, 4, 5
FOLLOW, FREEZE, RESET = 0, 1, 2
OK, ARGUMENT, FORMAT, SHAPE, BACKEND, BUSY, BUNDLE, CLOSED = 0, 1, 3, 4, 5, 7, 9, 10


class Frame(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("format", c.c_uint32),
        ("width", c.c_uint32),
        ("height", c.c_uint32),
        ("plane", c.c_void_p * 4),
        ("stride", c.c_size_t * 4),
        ("matrix", c.c_uint32),
        ("range", c.c_uint32),
        ("siting", c.c_uint32),
        ("reserved", c.c_uint32),
    )


class Info(c.Structure):
    _fields_ = (
        *((name, c.c_uint32) for name in ("struct_size", "scale", "formats", "multiple")),
        ("engine", c.c_char_p),
        ("model", c.c_char_p),
        *((name, c.c_uint64) for name in ("frames", "restored", "assessed", "scenes", "latency_ns", "latency_max_ns")),
    )


SEVERITIES = ("noise", "blur", "compression", "low_resolution", "low_light", "haze")


class Verdict(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        *((name, c.c_float) for name in ("score", *SEVERITIES)),
        ("description", c.c_char_p),
    )


class Error(c.Structure):
    _fields_ = (("struct_size", c.c_uint32), ("status", c.c_int32), ("message", c.c_char_p))


class NativeError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def frame_of(planes: list[np.ndarray], kind: int, width: int, height: int, **colour: int) -> Frame:
    """A view of numpy planes, whose rows may be apart."""
    view = Frame(c.sizeof(Frame), kind, width, height, **colour)
    for i, plane in enumerate(planes):
        view.plane[i] = plane.ctypes.data
        view.stride[i] = plane.strides[0]
    return view


class Library:
    """libuare_rt, loaded."""

    def __init__(self, path: Path) -> None:
        self.c = c.CDLL(str(path))
        handle = c.c_void_p
        self.c.uare_open.argtypes = (c.c_char_p, c.POINTER(c.c_char_p), c.c_size_t, c.POINTER(handle))
        self.c.uare_close.argtypes = (handle,)
        self.c.uare_close.restype = None
        for name, *rest in (
            ("uare_query", c.POINTER(Info)),
            ("uare_set", c.c_char_p),
            ("uare_process", c.POINTER(Frame), c.POINTER(Frame), c.c_void_p),
            ("uare_assess", c.POINTER(Frame), c.POINTER(Verdict)),
            ("uare_context_update", c.POINTER(Frame), c.c_float, c.POINTER(Verdict)),
            ("uare_context_control", c.c_uint32),
        ):
            getattr(self.c, name).argtypes = (handle, *rest)

    def check(self, status: int) -> None:
        if status != OK:
            error = Error(c.sizeof(Error), 0, None)
            self.c.uare_last_error(c.byref(error))
            raise NativeError(status, error.message.decode())

    @contextmanager
    def session(self, bundle: Path | None, **options: object) -> Iterator[Native]:
        texts = [f"{key.replace('_', '-')}={value}".encode() for key, value in options.items()]
        handle = c.c_void_p()
        path = None if bundle is None else str(bundle).encode()
        self.check(self.c.uare_open(path, (c.c_char_p * len(texts))(*texts), len(texts), c.byref(handle)))
        try:
            yield Native(self, handle)
        finally:
            self.c.uare_close(handle)


class Native:
    """An opened session."""

    def __init__(self, library: Library, handle: c.c_void_p) -> None:
        self.library, self.handle = library, handle

    def call(self, name: str, *arguments: object) -> None:
        self.library.check(getattr(self.library.c, name)(self.handle, *arguments))

    def process(self, source: Frame, target: Frame) -> None:
        self.call("uare_process", c.byref(source), c.byref(target), None)

    def restore(self, image: np.ndarray, scale: int = 1, **colour: int) -> np.ndarray:
        """uint8 [H, W, 3 or 4] -> uint8 [scale * H, scale * W, 3 or 4]."""
        height, width, channels = image.shape
        kind = RGB24 if channels == 3 else RGBA
        out = np.zeros((height * scale, width * scale, channels), np.uint8)
        self.process(
            frame_of([image], kind, width, height, **colour),
            frame_of([out], kind, width * scale, height * scale, **colour),
        )
        return out

    def assess(self, image: np.ndarray) -> Verdict:
        verdict = Verdict(c.sizeof(Verdict))
        view = frame_of([image], RGB24, image.shape[1], image.shape[0])
        self.call("uare_assess", c.byref(view), c.byref(verdict))
        return verdict

    def info(self) -> Info:
        info = Info(c.sizeof(Info))
        self.call("uare_query", c.byref(info))
        return info
