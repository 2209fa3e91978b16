"""Streams: which frames come out, how old they are, what is counted, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import uare_rt
from uare_rt.errors import BackendError, InputError, UsageError
from uare_rt.live import LiveOptions, LiveResult, LiveStatistics, LiveStream, Retry, SyntheticCamera, frame_number

TINY = Path(__file__).parents[1] / "data" / "tiny.uare"


def test_every_frame_comes_out_in_order_as_the_session_restores_it(session: uare_rt.Session) -> None:
    camera = SyntheticCamera(96, 64, rate=None, frames=12)
    kept = SyntheticCamera(96, 64, rate=None, frames=12)
    kept.open()
    results = list(LiveStream(camera, session, LiveOptions(scale=2, policy="every", assess_every=5)))
    assert [result.index for result in results] == list(range(12))
    assert all(after.time > before.time for before, after in pairwise(results))
    context = None
    for result in results:
        shot = kept.read()
        assert shot is not None
        if result.assessment is not None and context is None:
            context = session.assess(shot.pixels).context
            assert result.score == pytest.approx(result.assessment.score)
            assert np.array_equal(result.pixels, session.restore(shot.pixels, scale=2, context=context).image)
        assert result.pixels.shape == (128, 192, 3)
    assert [result.index for result in results if result.assessment is not None] == [0, 5, 10]


def test_under_overload_frames_stay_young_and_drops_are_counted(slow: uare_rt.Session) -> None:
    camera = SyntheticCamera(64, 16, rate=500, frames=1500)
    seen: list[int] = []
    stream = LiveStream(camera, slow)
    counts = stream.run(lambda result: seen.append(frame_number(result.pixels)))
    assert seen == sorted(set(seen))
    assert counts.captured == 1500
    assert counts.captured == counts.dropped + counts.delivered
    assert counts.dropped > 2 * counts.delivered > 20
    assert counts.delivered == counts.restored == len(seen)
    assert counts.engine.p50 >= 20
    assert counts.latency.p50 <= 3 * counts.engine.p50
    assert counts.latency.p90 <= 3 * counts.engine.p90


def test_every_holds_the_source_back(slow: uare_rt.Session) -> None:
    """The source is asked for no more than what waits, is worked on and is being put."""
    ahead: list[int] = []
    asked = 0

    def frames() -> object:
        nonlocal asked
        for _ in range(40):
            asked += 1
            yield np.zeros((16, 64, 3), np.uint8)

    counts = LiveStream(frames(), slow, LiveOptions(policy="every")).run(lambda r: ahead.append(asked - r.index))
    assert counts.dropped == 0
    assert counts.delivered == 40
    assert max(ahead) <= 7  # one delivered, one before the sink, one in work, two waiting, one in hand, one asked for


def test_a_slow_sink_makes_drops_not_queues(session: uare_rt.Session) -> None:
    import time

    counts = LiveStream(SyntheticCamera(64, 16, rate=200, frames=200), session).run(lambda _: time.sleep(0.05))
    assert counts.dropped > counts.delivered
    assert counts.latency.p90 < 1000


SOAK = """
import json, os, sys
import uare_rt
from uare_rt.live import LiveOptions, LiveStream, SyntheticCamera

sizes = []
def hold(result):
    with open("/proc/self/statm") as file:
        sizes.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

with uare_rt.load(sys.argv[1], threads=1) as session:
    camera = SyntheticCamera(96, 64, rate=400, frames=10_000)
    counts = LiveStream(camera, session, LiveOptions(scale=2)).run(hold)
json.dump({"sizes": sizes, "counts": counts.to_dict()}, sys.stdout)
"""


@pytest.mark.soak
def test_memory_is_flat_over_ten_thousand_frames() -> None:
    """In a process of its own: what other tests leave in the heap is given back and taken again."""
    done = subprocess.run([sys.executable, "-c", SOAK, TINY], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    counts, sizes = found["counts"], found["sizes"]
    assert counts["captured"] == 10_000
    assert counts["dropped"] > 0
    assert counts["latency"]["p90"] <= 3 * counts["engine"]["p90"]
    warm = len(sizes) // 10
    assert max(sizes[warm:]) - sizes[warm] < 8 << 20


def test_arrays_are_taken_and_given_without_a_copy(session: uare_rt.Session) -> None:
    torch = pytest.importorskip("torch")
    frames = torch.zeros((3, 16, 64, 3), dtype=torch.uint8)
    stream = LiveStream(list(frames), session, LiveOptions(strength=0, policy="every"))
    results = list(stream)
    assert [result.pixels.ctypes.data for result in results] == [frame.data_ptr() for frame in frames]
    assert torch.from_dlpack(results[0]).data_ptr() == frames[0].data_ptr()
    assert np.asarray(results[1]).ctypes.data == frames[1].data_ptr()
    assert stream.statistics.copies == 0


def test_ten_bit_frames_stay_deep(session: uare_rt.Session) -> None:
    (result,) = LiveStream([np.full((16, 64, 3), 40_000, np.uint16)], session)
    assert result.pixels.dtype == np.uint16


def test_good_scenes_are_left_alone(session: uare_rt.Session) -> None:
    counts = LiveStream(
        SyntheticCamera(64, 16, rate=None, frames=4), session, LiveOptions(skip_above=1, policy="every")
    ).run("null")
    assert (counts.passed, counts.restored) == (4, 0)


@pytest.mark.parametrize("policy", ["newest", "every"])
def test_a_stream_ends_after_so_many_frames_or_when_it_is_stopped(session: uare_rt.Session, policy: str) -> None:
    endless = LiveStream("synthetic:64x16@200", session, LiveOptions(policy=policy, frames=5))
    assert endless.run("null").delivered == 5
    stopped = LiveStream("synthetic:64x16@200", session, LiveOptions(policy=policy))

    def stop(result: LiveResult) -> None:
        if result.index >= 5:
            stopped.stop()

    assert stopped.run(stop).delivered < 20
    with pytest.raises(UsageError, match="has ended"):
        stopped.run("null")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("uare-live")]


def test_a_consumer_that_leaves_early_stops_the_source(session: uare_rt.Session) -> None:
    for _ in LiveStream("synthetic:64x16@200", session):
        break
    import gc

    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("uare-live")]


def test_failures_of_every_part_reach_the_caller(session: uare_rt.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise BackendError("the device is gone")

    def full(_: LiveResult) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        LiveStream("synthetic:64x16@200", session).run(full)
    with pytest.raises(InputError, match="str"):
        LiveStream(["no array"], session).run("null")
    seen: list[int] = []
    with pytest.raises(InputError, match="str"):  # and the list does not begin again
        LiveStream([np.zeros((16, 16, 3), np.uint8), "no array"], session, LiveOptions(policy="every")).run(
            lambda result: seen.append(result.index)
        )
    assert seen == [0]
    with pytest.raises(InputError, match="float32"):
        LiveStream([np.zeros((16, 16, 3), np.float32)], session).run("null")
    monkeypatch.setattr(session, "restore", refuse)
    with pytest.raises(BackendError, match="is gone"):
        LiveStream("synthetic:64x16@200", session).run("null")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 3}, "scale is 3"),
        ({"strength": 2.0}, "strength is 2.0"),
        ({"policy": "some"}, "policy is 'some'"),
        ({"assess_every": 0}, "assess_every is 0"),
        ({"skip_above": 9.0}, "skip_above is 9.0"),
        ({"frames": 0}, "frames is 0"),
        ({"retry": Retry(attempts=-1)}, "out of range"),
    ],
)
def test_options_out_of_range_are_refused(session: uare_rt.Session, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LiveStream("synthetic", session, LiveOptions(**options))


def test_stream_is_a_call(session: uare_rt.Session) -> None:
    frames = [np.zeros((16, 64, 3), np.uint8)] * 3
    counts = uare_rt.stream(frames, "null", session=session, options=LiveOptions(policy="every"))
    assert isinstance(counts, LiveStatistics)
    assert counts.to_dict()["delivered"] == 3
    assert counts.rate > 0
