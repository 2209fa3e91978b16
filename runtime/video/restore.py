"""Restoring a whole video: read, restore and write overlap; everything but the pixels is kept."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import UsageError
from uare_rt.video.frames import Damage, Frame, FrameSink, FrameSource, Pixels, SidePacket
from uare_rt.video.pipeline import run_overlapped
from uare_rt.video.scenes import ContextTracker
from uare_rt.video.sink import VideoOptions, VideoSink, check_target
from uare_rt.video.source import VideoSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from uare_rt.session import Session

__all__ = ["VideoProgress", "VideoReport", "restore_video"]


@dataclass(frozen=True)
class VideoProgress:
    """Where a running restoration stands.

    Attributes:
        frames: restored so far.
        total: how many there will be, None when the file does not say.
        fps: restored per second since the start.
        remaining: seconds left at this speed, None when the total is not known.
        score: of the last assessed frame before restoration, 1..5.
    """

    frames: int
    total: int | None
    fps: float
    remaining: float | None
    score: float | None


@dataclass(frozen=True)
class VideoReport:
    """What `restore_video` did.

    Attributes:
        source: the input.
        target: the result.
        frames: in the result.
        reused: of them, exact repetitions of the frame before that were not computed again.
        seconds: wall time.
        fps: frames per second of wall time.
        scenes: found by cut detection.
        assessed: frames that were assessed.
        score_before: mean score of the assessed frames, 1..5.
        score_after: mean score of the same frames after restoration.
        damage: places where the source could not be read; a damaged source is restored as far as it decodes.
        notes: what could not be kept, or was decided on the way.
    """

    source: Path
    target: Path
    frames: int
    reused: int
    seconds: float
    fps: float
    scenes: int
    assessed: int
    score_before: float
    score_after: float
    damage: tuple[Damage, ...]
    notes: tuple[str, ...]

    @property
    def damaged(self) -> bool:
        """Whether part of the source could not be read."""
        return bool(self.damage)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {**asdict(self), "source": str(self.source), "target": str(self.target), "damaged": self.damaged}


class _Restorer:
    """The middle stage: restores frames, lets packets pass."""

    def __init__(self, session: Session, *, scale: int, strength: float, every: int) -> None:
        self._session = session
        self._scale = scale
        self._strength = strength
        self._tracker = ContextTracker(session, every=every)
        self._last: tuple[Pixels, Pixels] | None = None
        self.frames = 0
        self.reused = 0
        self.before: list[float] = []
        self.after: list[float] = []

    @property
    def scenes(self) -> int:
        return self._tracker.scenes

    def __call__(self, item: Frame | SidePacket) -> Frame | SidePacket:
        if isinstance(item, SidePacket):
            return item
        self.frames += 1
        if self._last is not None and np.array_equal(self._last[0], item.pixels):
            self.reused += 1
            return Frame(self._last[1], item.pts, item.duration)
        context, assessment = self._tracker.follow(item.pixels)
        restored: Pixels = self._session.restore(
            item.pixels, scale=self._scale, strength=self._strength, context=context
        ).image
        if assessment is not None:
            self.before.append(assessment.score)
            self.after.append(self._session.assess(restored).score)
        self._last = (item.pixels, restored)
        return Frame(restored, item.pts, item.duration)


def restore_video(
    session: Session,
    source: str | Path,
    target: str | Path,
    *,
    scale: int = 1,
    strength: float = 1.0,
    overwrite: bool = False,
    options: VideoOptions | None = None,
    progress: Callable[[VideoProgress], None] | None = None,
) -> VideoReport:
    """Restore the pictures of a video and keep everything else.

    Kept: frame order and exact timestamps (variable rates too), audio and subtitles packet by packet,
    metadata, chapters, rotation, pixel aspect ratio, colour tags, bit depth as far as the encoder
    offers it. What cannot be kept is named in the report's ``notes``. A source that cannot be read to
    its end is restored as far as it decodes; see ``VideoReport.damage``.

    Args:
        session: does the work.
        source: any file FFmpeg can read.
        target: ``.mp4``, ``.m4v``, ``.mov``, ``.mkv`` or ``.webm``; appears only when complete.
        scale: 1, 2 or 4, as the session offers.
        strength: 0 (leave as is) to 1.
        overwrite: replace an existing target; the source itself is never replaced.
        options: how to encode and how often to assess.
        progress: called after every frame, in the caller's thread.

    Raises:
        UsageError: target and source are the same, an option cannot be used, or the target's container
            cannot hold a stream of the source (the message names one that can).
        InputError: the source cannot be read, has no video stream, or not one frame decodes.
        OutputError: the result cannot be written; nothing is left behind.
    """
    source, target = Path(source), Path(target)
    options = options or VideoOptions()
    if scale not in session.scales:
        raise UsageError(f"scale {scale} is not offered; choose one of {', '.join(map(str, session.scales))}")
    if not 0 <= strength <= 1:
        raise UsageError(f"strength {strength} is out of range; choose 0 to 1")
    if options.assess_every < 1:
        raise UsageError(f"assess_every {options.assess_every} is out of range; choose 1 or more")
    reader = VideoSource(source)
    try:
        check_target(source, target, overwrite=overwrite)
        writer = VideoSink(reader, target, scale=scale, options=options)
        worker = _Restorer(session, scale=scale, strength=strength, every=options.assess_every)
        started = time.perf_counter()
        _run(reader, worker, writer, progress)
        seconds = time.perf_counter() - started
        return VideoReport(
            source=source,
            target=target,
            frames=worker.frames,
            reused=worker.reused,
            seconds=seconds,
            fps=worker.frames / seconds,
            scenes=worker.scenes,
            assessed=len(worker.before),
            score_before=float(np.mean(worker.before)),
            score_after=float(np.mean(worker.after)),
            damage=reader.damage,
            notes=(*reader.notes, *writer.notes),
        )
    finally:
        reader.close()


def _run(
    reader: FrameSource,
    worker: _Restorer,
    writer: FrameSink,
    progress: Callable[[VideoProgress], None] | None,
) -> None:
    """Run the three stages; on any failure the unfinished result is removed."""
    started = time.perf_counter()
    total = reader.info.frames

    def work(item: Frame | SidePacket) -> Frame | SidePacket:
        result = worker(item)
        if progress is not None and isinstance(item, Frame):
            fps = worker.frames / (time.perf_counter() - started)
            remaining = max(total - worker.frames, 0) / fps if total else None
            progress(VideoProgress(worker.frames, total, fps, remaining, worker.before[-1]))
        return result

    try:
        run_overlapped(reader, work, writer.write)
        writer.finish()
    except BaseException:
        writer.discard()
        raise
