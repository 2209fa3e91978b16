"""Sinks: recordings that are whole or not there, network streams, and texts that name sinks."""

from __future__ import annotations

import errno
import socket
import threading
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

import uare_rt
from uare_rt.errors import InputError, OutputError, UsageError
from uare_rt.live import LiveOptions, LiveStream, Retry, SyntheticCamera, frame_number, open_sink

EVERY = LiveOptions(scale=2, policy="every", strength=0)


def frames_of(path: Path | str) -> tuple[list[float], list[int]]:
    """Times and numbers of the frames of a recording."""
    times, numbers = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.pts is not None
            times.append(float(frame.pts * frame.time_base))
            numbers.append(frame_number(frame.to_ndarray(format="rgb24"), 2))
    return times, numbers


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm"])
def test_a_recording_holds_every_frame_at_its_time(session: uare_rt.Session, tmp_path: Path, name: str) -> None:
    camera = SyntheticCamera(64, 32, rate=20, frames=12)
    counts = LiveStream(camera, session, EVERY).run(str(tmp_path / name))
    times, numbers = frames_of(tmp_path / name)
    assert numbers == list(range(12))
    assert [after - before for before, after in pairwise(times)] == pytest.approx([0.05] * 11, abs=0.002)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert counts.copies == 12


def test_a_camera_lost_for_good_leaves_a_whole_recording(session: uare_rt.Session, tmp_path: Path) -> None:
    camera = SyntheticCamera(64, 32, rate=None, outages={7: 99})
    options = LiveOptions(scale=2, policy="every", strength=0, retry=Retry(attempts=1, first=0.01))
    with pytest.raises(InputError, match="given up"):
        LiveStream(camera, session, options).run(str(tmp_path / "out.mp4"))
    assert frames_of(tmp_path / "out.mp4")[1] == list(range(7))


def test_a_picture_of_another_size_ends_a_recording(session: uare_rt.Session, tmp_path: Path) -> None:
    frames = [np.zeros((32, 64, 3), np.uint8), np.zeros((32, 80, 3), np.uint8)]
    with pytest.raises(OutputError, match="128x64 to 160x64"):
        LiveStream(frames, session, EVERY).run(str(tmp_path / "out.mp4"))
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_there_was_no_frame_or_no_space(
    session: uare_rt.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LiveStream([], session, EVERY).run(str(tmp_path / "out.mp4"))
    assert not list(tmp_path.iterdir())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="no space left"):
        LiveStream(SyntheticCamera(64, 32, rate=None, frames=3), session, EVERY).run(str(tmp_path / "out.mp4"))
    assert not list(tmp_path.iterdir())


def test_files_are_not_overwritten_unasked(session: uare_rt.Session, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        LiveStream("synthetic", session).run(str(path))
    assert path.read_bytes() == b"mine"
    LiveStream(SyntheticCamera(64, 32, rate=None, frames=3), session, EVERY).run(str(path), overwrite=True)
    assert frames_of(path)[1] == [0, 1, 2]


def test_a_network_stream_arrives(session: uare_rt.Session, tmp_path: Path) -> None:
    received = tmp_path / "received.ts"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def receive() -> None:
            connection, _ = server.accept()
            with connection, received.open("wb") as file:
                while data := connection.recv(65536):
                    file.write(data)

        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        LiveStream(SyntheticCamera(64, 32, rate=None, frames=8), session, EVERY).run(url)
        thread.join(10)
    assert frames_of(received)[1] == list(range(8))


def test_a_receiver_that_takes_nothing_does_not_hang_the_stream(
    session: uare_rt.Session, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uare_rt.live.recording._SECONDS", 0.5)
    noise = (rng.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(500))
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(OutputError, match="timed out"):
            LiveStream(noise, session, EVERY).run(url)


def test_a_function_that_never_returns_does_not_hang_the_stream(
    session: uare_rt.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uare_rt.live.streaming._SINK_SECONDS", 0.5)
    never = threading.Event()
    with pytest.raises(OutputError, match="took no frame"):
        LiveStream("synthetic:64x32@100", session, EVERY).run(lambda _: never.wait(30))
    never.set()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("out.xyz", UsageError, "cannot write a video of type"),
        ("gopher://x", UsageError, "gopher cannot be written to"),
        ("no/such/folder/out.mp4", OutputError, "does not exist"),
    ],
)
def test_texts_that_name_no_sink_are_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_sink(text)


def test_nobody_at_the_other_end_is_an_error(session: uare_rt.Session) -> None:
    with pytest.raises(OutputError, match="Connection refused"):
        LiveStream("synthetic:64x32", session, EVERY).run("tcp://127.0.0.1:9")
