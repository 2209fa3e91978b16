"""A tiny session, clips and servers that the tests of live video share."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import uare_rt
from uare_rt.live import SyntheticCamera

TINY = Path(__file__).parents[1] / "data" / "tiny.uare"


@pytest.fixture(scope="session")
def session() -> Iterator[uare_rt.Session]:
    """The tiny bundle with its real graphs."""
    with uare_rt.load(TINY, threads=1) as loaded:
        yield loaded


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[uare_rt.Session]:
    """A session whose engine takes 20 ms a frame and computes nothing, for tests of time."""
    with uare_rt.load(TINY, backend="null") as loaded:
        restore = loaded.restore

        def slowly(*arguments: object, **options: object) -> object:
            time.sleep(0.02)
            return restore(*arguments, **options)

        monkeypatch.setattr(loaded, "restore", slowly)
        yield loaded


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """Makes a clip of numbered pictures as the bytes of a container."""
    return _encoded


@pytest.fixture
def serve() -> type[StreamServer]:
    """Starts a server of bytes."""
    return StreamServer


def _encoded(frames: int, *, name: str = "mpegts", rate: int = 25, width: int = 96, height: int = 64) -> bytes:
    camera = SyntheticCamera(width, height, rate=None, frames=frames, noise=2)
    camera.open()
    file = io.BytesIO()
    with av.open(file, "w", format=name) as container:
        stream = container.add_stream(
            "libx264", rate=rate, width=width, height=height, pix_fmt="yuv420p",
            options={"tune": "zerolatency", "g": "5", "crf": "10"},
        )  # fmt: skip
        for index in range(frames):
            shot = camera.read()
            assert shot is not None
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shot.pixels))
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


class StreamServer:
    """Sends the same bytes to whoever connects, waits, and hangs up; after `turns` connections it is gone."""

    def __init__(self, data: bytes, turns: int, wait: float = 0.0) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, args=(data, turns, wait), daemon=True)
        self._thread.start()

    def _serve(self, data: bytes, turns: int, wait: float) -> None:
        with self._socket:
            for _ in range(turns):
                connection, _ = self._socket.accept()
                with connection:
                    connection.sendall(data)
                    time.sleep(wait)

    def join(self) -> None:
        self._thread.join(10)
