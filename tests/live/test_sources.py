"""Sources: texts that name them, files at their own speed, and cameras that are lost and found."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import uare_rt
from uare_rt.errors import InputError, UsageError
from uare_rt.live import LiveOptions, LiveStream, Retry, SyntheticCamera, frame_number, open_source

Encoded = Callable[..., bytes]
FAST = Retry(attempts=3, first=0.01, longest=0.02, steady=0)


def numbers(stream: LiveStream) -> list[int]:
    return [frame_number(result.pixels) for result in stream]


def test_a_camera_that_is_unplugged_is_found_again(session: uare_rt.Session, caplog: pytest.LogCaptureFixture) -> None:
    camera = SyntheticCamera(64, 16, rate=None, frames=9, outages={3: 2, 6: 0})
    stream = LiveStream(camera, session, LiveOptions(policy="every", strength=0, retry=FAST))
    with caplog.at_level(logging.WARNING, "uare_rt.live"):
        results = list(stream)
    assert [frame_number(result.pixels) for result in results] == list(range(9))
    assert all(after.time > before.time for before, after in pairwise(results))
    assert stream.statistics.reconnects == 2
    messages = [record.getMessage() for record in caplog.records]
    assert (
        messages
        == [
            "synthetic camera: unplugged; trying again, up to 3 times",
            "synthetic camera: found again",
        ]
        * 2
    )


def test_a_camera_that_stays_lost_ends_the_stream_with_an_error(session: uare_rt.Session) -> None:
    camera = SyntheticCamera(64, 16, rate=None, outages={4: 99})
    stream = LiveStream(camera, session, LiveOptions(policy="every", strength=0, retry=FAST))
    seen: list[int] = []
    with pytest.raises(InputError, match="given up after 3 tries"):
        seen.extend(frame_number(result.pixels) for result in stream)
    assert stream.statistics.delivered == 4
    with pytest.raises(InputError, match="unplugged"):
        LiveStream(
            SyntheticCamera(64, 16, rate=None, outages={4: 0}), session, LiveOptions(retry=Retry(attempts=0))
        ).run("null")


def test_a_camera_that_was_never_there_is_an_error_at_once(session: uare_rt.Session) -> None:
    began = time.monotonic()
    for source in ("/dev/video63", "rtsp://127.0.0.1:9/x", "none.mp4"):
        with pytest.raises(InputError, match="cannot be opened"):
            LiveStream(source, session).run("null")
    assert time.monotonic() - began < 8


def test_a_camera_that_is_lost_again_and_again_is_given_up(session: uare_rt.Session) -> None:
    camera = SyntheticCamera(64, 16, rate=None, outages=dict.fromkeys(range(2, 100, 2), 0))
    retry = Retry(attempts=3, first=0.01, longest=0.02)
    stream = LiveStream(camera, session, LiveOptions(policy="every", strength=0, retry=retry))
    with pytest.raises(InputError, match="given up after 3 tries"):
        stream.run("null")
    assert stream.statistics.delivered == 8


def test_waits_between_tries_grow_to_their_bound() -> None:
    retry = Retry(first=0.5, factor=2, longest=8)
    assert [retry.wait(i) for i in range(6)] == [0.5, 1, 2, 4, 8, 8]
    assert retry.wait(10**6) == 8


def test_a_stop_ends_the_wait_for_a_lost_camera(session: uare_rt.Session) -> None:
    camera = SyntheticCamera(64, 16, rate=None, outages={2: 99})
    stream = LiveStream(camera, session, LiveOptions(policy="every", retry=Retry(first=60, longest=60)))
    began = time.monotonic()
    for result in stream:
        if result.index == 1:
            break
    stream.stop()
    assert time.monotonic() - began < 20


def test_a_network_stream_that_hangs_up_is_connected_again(
    session: uare_rt.Session, encoded: Encoded, serve: Callable[..., Any]
) -> None:
    server = serve(encoded(100), turns=2)
    stream = LiveStream(server.url, session, LiveOptions(policy="every", strength=0, retry=FAST))
    seen: list[int] = []
    with pytest.raises(InputError, match="given up after 3 tries"):
        seen.extend(frame_number(result.pixels) for result in stream)
    server.join()
    counts = stream.statistics
    assert counts.reconnects == 1
    assert 100 < counts.delivered <= 200  # what came while the stream was examined is left out, twice


def test_a_camera_that_falls_silent_is_lost(
    session: uare_rt.Session, encoded: Encoded, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cable that is pulled hangs up nothing: no more data comes."""
    monkeypatch.setattr("uare_rt.live.capture._READ_SECONDS", 0.5)
    server = serve(encoded(100), turns=1, wait=60)
    options = LiveOptions(policy="every", strength=0, retry=Retry(attempts=0))
    stream = LiveStream(server.url, session, options)
    began = time.monotonic()
    with pytest.raises(InputError, match="lost"):
        stream.run("null")
    assert stream.statistics.delivered > 50
    assert time.monotonic() - began < 40


def test_a_server_that_says_nothing_does_not_hang_the_stream(
    session: uare_rt.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr("uare_rt.live.capture._OPEN_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(InputError, match="cannot be opened"):
            LiveStream(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x", session).run("null")
        assert time.monotonic() - began < 10


def test_a_file_plays_at_its_own_speed_and_keeps_its_times(
    session: uare_rt.Session, encoded: Encoded, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(encoded(15, name="matroska", rate=10))
    began = time.monotonic()
    stream = LiveStream(str(path), session, LiveOptions(policy="every", strength=0))
    results = list(stream)
    assert time.monotonic() - began >= 1.3
    assert [frame_number(result.pixels) for result in results] == list(range(15))
    assert [after.time - before.time for before, after in pairwise(results)] == pytest.approx([0.1] * 14, abs=0.002)
    assert stream.statistics.copies == 15


def test_damaged_packets_are_counted_and_passed(session: uare_rt.Session, encoded: Encoded, tmp_path: Path) -> None:
    data = bytearray(encoded(30))
    for at in range(len(data) // 2, len(data) // 2 + 3000):
        data[at] ^= 0x55
    path = tmp_path / "damaged.ts"
    path.write_bytes(data)
    stream = LiveStream(str(path), session, LiveOptions(policy="every", strength=0))
    delivered = len(list(stream))
    assert 5 < delivered <= 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("synthetic:big", "cannot be read"),
        ("synthetic:64x16@1/0", "divided by 0"),
        ("synthetic:8x8", "8x8"),
        ("synthetic:64x16@5000", "5000"),
        ("/dev/video0?size", "write settings as"),
        (5, "is no source"),
    ],
)
def test_texts_that_name_no_source_are_refused(text: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_source(text)  # type: ignore[arg-type]


def test_the_synthetic_camera_is_the_same_for_the_same_seed() -> None:
    first, second, other = (SyntheticCamera(64, 16, rate=None, seed=seed) for seed in (1, 1, 2))
    for camera in (first, second, other):
        camera.open()
    shots = [camera.read() for camera in (first, second, other)]
    assert all(shot is not None for shot in shots)
    a, b, c = (shot.pixels for shot in shots if shot is not None)
    assert (a == b).all()
    assert (a != c).any()
