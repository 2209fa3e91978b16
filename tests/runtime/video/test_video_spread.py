"""One video on many workers: the parts, their order and lost workers do not show in the result."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from video_clips import FakeSession, make_clip, read_frames, read_packets, tone

import uare_rt
from uare_rt.errors import BackendError, MissingExtraError, OutputError, UsageError
from uare_rt.video import VideoOptions, restore_video
from uare_rt.video.engines import LocalEngine, RayEngine
from uare_rt.video.parts import PartFinder, PartResult, SessionChoice, restore_part
from uare_rt.video.restore import open_source
from uare_rt.video.spread import spread_video

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from uare_rt.video.parts import PartTask

TINY = Path(__file__).parents[2] / "data" / "tiny.uare"
MODEL = SessionChoice(str(TINY), "onnxruntime", 1)
FAST = VideoOptions(crf=4, preset="ultrafast", assess_every=10)


def clip(path: Path, cuts: tuple[int, ...] = (45, 70), frames: int = 120) -> Path:
    """Frames of noise over blocks, in scenes that differ in light."""
    rng = np.random.default_rng(8)
    pictures = []
    for index in range(frames):
        number = sum(index >= cut for cut in cuts)
        scene = np.random.default_rng(number).integers(0, 120, (6, 8, 3)).repeat(8, 0).repeat(8, 1) + 60 * number
        pictures.append(np.clip(scene + rng.normal(0, 4, scene.shape), 0, 255).astype(np.uint8))
    return make_clip(path, pictures, audio=tone(5.0), options={"crf": "8", "g": "25", "bf": "2"})


class Here:
    """Runs tasks in this process, the last first and that one twice: order and repetition must not matter."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.done: list[int] = []
        self._left = fail_after

    def run(self, tasks: Iterable[tuple[int, PartTask]]) -> Iterator[tuple[int, PartResult]]:
        for number, task in reversed(list(tasks)):
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    raise BackendError("the power is gone")
            result = restore_part(task)
            if not self.done:
                assert restore_part(task).data == result.data
            self.done.append(number)
            yield number, result

    def close(self) -> None:
        pass


def spread(engine: object, source: Path, target: Path, **arguments: object) -> object:
    with uare_rt.load(TINY, backend="onnxruntime", threads=1) as session:
        return spread_video(session, engine, MODEL, source, target, options=FAST, **{"part_seconds": 1.0, **arguments})


def single(source: Path, target: Path) -> object:
    with uare_rt.load(TINY, backend="onnxruntime", threads=1) as session:
        return restore_video(session, source, target, options=FAST)


def assert_same(one: Path, other: Path, source: Path) -> None:
    a, b = read_frames(one), read_frames(other)
    assert [t for t, _ in a] == [t for t, _ in b] == [t for t, _ in read_frames(source)]
    # Encoders begin anew with each part; the pictures they are given are the same up to the filter in time.
    assert max(np.abs(x.astype(int) - y).mean() for (_, x), (_, y) in zip(a, b, strict=True)) < 0.5
    assert read_packets(one, "audio") == read_packets(other, "audio") == read_packets(source, "audio")


def test_parts_cover_the_clip_and_begin_at_cuts_where_there_are_some(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4")
    with closing(open_source(source, FAST)) as reader:
        finder = PartFinder(FakeSession(), reader, FAST, 1.0, lambda _: None)
        parts = [part for part, _ in finder]
        base = reader.info.time_base
    assert finder.scenes == 3
    assert sum(part.frames for part in parts) == 120
    starts = [round(part.first * base * 25) for part in parts]
    assert [part.frames for part in parts] == np.diff([*starts, 120]).tolist()
    assert {45, 70} <= set(starts)
    assert all(part.warm <= part.first for part in parts)


def test_parts_in_any_order_make_the_result_of_one_run(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4")
    one = single(source, tmp_path / "one.mp4")
    engine = Here()
    report = spread(engine, source, tmp_path / "out.mp4")
    assert len(engine.done) >= 3
    assert (report.frames, report.scenes, report.resumed) == (120, one.scenes, 0)
    assert report.tiles == one.tiles
    assert report.score_before == pytest.approx(one.score_before)
    assert_same(tmp_path / "one.mp4", tmp_path / "out.mp4", source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "one.mp4", "out.mp4"]


def test_a_join_inside_a_scene_does_not_show(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", cuts=())
    single(source, tmp_path / "one.mp4")
    engine = Here()
    spread(engine, source, tmp_path / "out.mp4")
    assert len(engine.done) >= 2
    assert_same(tmp_path / "one.mp4", tmp_path / "out.mp4", source)
    frames = [f.astype(int) for _, f in read_frames(tmp_path / "out.mp4")]
    steps = [float(np.abs(b - a).mean()) for a, b in pairwise(frames)]
    before = [f.astype(int) for _, f in read_frames(tmp_path / "one.mp4")]
    usual = [float(np.abs(b - a).mean()) for a, b in pairwise(before)]
    assert max(steps) <= max(usual) + 0.3


def test_an_interrupted_run_goes_on_with_what_is_finished(tmp_path: Path) -> None:
    source, target = clip(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    for resume in (False, True):
        with pytest.raises(BackendError, match="power is gone"):
            spread(Here(fail_after=2), source, target, resume=resume)
        assert not target.exists()
        assert (tmp_path / ".out.mp4.parts").exists() == resume
    with pytest.raises(UsageError, match="another strength"):
        spread(Here(), source, target, resume=True, strength=0.5)
    engine = Here()
    report = spread(engine, source, target, resume=True)
    assert report.resumed > 0
    assert report.frames == 120
    assert engine.done
    assert len(engine.done) < 4
    spread(Here(), source, tmp_path / "whole.mp4")
    assert (tmp_path / "whole.mp4").read_bytes() == target.read_bytes()
    assert not (tmp_path / ".out.mp4.parts").exists()
    with pytest.raises(OutputError, match="--overwrite"):
        spread(Here(), source, target)


def test_a_killed_process_is_replaced_and_its_part_begun_again(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4")
    killed: list[int] = []

    with closing(LocalEngine(2)) as engine:

        def kill_one(progress: object) -> None:
            if progress.frames and not killed and len(engine.processes()) == 2:
                killed.append(engine.processes()[0])
                os.kill(killed[0], signal.SIGKILL)

        # The look through the clip counts no parts, so the first kill comes when workers are there.
        report = spread(engine, source, tmp_path / "out.mp4", progress=kill_one)
    assert killed
    assert report.frames == 120
    single(source, tmp_path / "one.mp4")
    assert_same(tmp_path / "one.mp4", tmp_path / "out.mp4", source)


def test_workers_that_are_none_and_a_ray_that_is_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with pytest.raises(UsageError, match="workers 0"):
        LocalEngine(0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"uare-rt\[ray\]"):
        RayEngine("auto")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_that_loses_a_worker_ends_as_one_run_does(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    source = clip(tmp_path / "in.mp4", frames=160)
    single(source, tmp_path / "one.mp4")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    killed: list[int] = []
    looked: list[int] = []

    def kill_one(progress: object) -> None:
        if len(looked) < 160:  # the look through the clip
            looked.append(progress.frames)
        elif not killed:
            killed.append(_ray_workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    with closing(RayEngine("local")) as engine:
        report = spread(engine, source, tmp_path / "out.mp4", progress=kill_one)
    assert killed
    assert report.frames == 160
    assert_same(tmp_path / "one.mp4", tmp_path / "out.mp4", source)


def _ray_workers() -> list[int]:
    """Processes that restore a part now; Ray names them after their task."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::restore_part"):
                found.append(int(entry.name))
    assert found
    return sorted(found)
