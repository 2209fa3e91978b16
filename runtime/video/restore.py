"""Restoring a whole video: stages overlap, everything but the pixels is kept."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uare_rt.errors import UsageError
from uare_rt.machine import trim_memory
from uare_rt.video.excerpt import ExcerptSource, excerpt_range
from uare_rt.video.frames import Checkpoint, Frame, FrameSink, FrameSource, Picture
from uare_rt.video.journal import Journal
from uare_rt.video.opening import is_pipe, is_pipeline
from uare_rt.video.options import VideoOptions
from uare_rt.video.pipeline import Stage, run_stages
from uare_rt.video.piping import PipeSink
from uare_rt.video.planning import FramePlanner, Plan
from uare_rt.video.report import VideoProgress, VideoReport
from uare_rt.video.restoring import FrameRestorer
from uare_rt.video.segments import PIECE_SECONDS, SegmentSink
from uare_rt.video.sequences import ImageSink, ImageSource, is_pattern, pattern_of
from uare_rt.video.sink import VideoSink
from uare_rt.video.source import VideoSource
from uare_rt.video.targets import check_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uare_rt.session import Session
    from uare_rt.video.pipeline import StageTime
    from uare_rt.video.restoring import Computing

__all__ = ["Run", "check_options", "check_resumable", "open_source", "restore_video", "settings_of"]

_TRIM_EVERY = 32  # frames and packets; memory then stays what a few of them take


def restore_video(
    session: Session,
    source: str | Path,
    target: str | Path,
    *,
    scale: int = 1,
    strength: float = 1.0,
    overwrite: bool = False,
    resume: bool = False,
    options: VideoOptions | None = None,
    progress: Callable[[VideoProgress], None] | None = None,
) -> VideoReport:
    """Restore the pictures of a video and keep everything else.

    Kept: frame order and exact timestamps (variable rates too), audio, subtitles and attachments packet by packet,
    metadata, chapters, rotation, pixel aspect ratio, colour tags, HDR metadata, bit depth as far as the encoder
    offers it. What cannot be kept is named in the report's ``notes``. A source that cannot be read to
    its end is restored as far as it decodes; see ``VideoReport.damage``.

    Args:
        session: does the work.
        source: any file FFmpeg can read, a directory or pattern (``shot_%05d.png``) of images, ``-`` for frames
            on standard input, or ``gst:`` and a GStreamer pipeline that ends in raw video.
        target: ``.mp4``, ``.m4v``, ``.mov``, ``.mkv`` or ``.webm``, a directory (with a slash at its end) or pattern
            of images, ``-`` for standard output, or ``gst:`` and a pipeline that takes raw video; a file appears
            only when complete, but for what a pipeline writes.
        scale: 1, 2 or 4, as the session offers.
        strength: 0 (leave as is) to 1.
        overwrite: replace an existing target; the source itself is never replaced.
        resume: write in pieces that survive a kill, and go on from those that an earlier run with the same settings
            has left; for files only.
        options: how to encode and how to work.
        progress: called after every frame, in the caller's thread; what it raises stops the run.

    Raises:
        UsageError: target and source are the same, an option cannot be used, or the target's container
            cannot hold a stream of the source (the message names one that can).
        InputError: the source cannot be read, has no video stream, or not one frame decodes.
        OutputError: the result cannot be written; nothing is left behind.
    """
    options = options or VideoOptions()
    check_options(session, scale, strength, options)
    reader = open_source(source, options)
    try:
        writer: FrameSink
        journal = None
        if resume:
            check_resumable(reader, source, target, overwrite=overwrite)
            journal = Journal(Path(target), settings_of(session, source, scale, strength, options))
            writer = SegmentSink(
                reader,
                Path(target),
                journal,
                scale=scale,
                options=options,
                reopened=lambda: open_source(source, options),
            )
        else:
            writer = _open_sink(reader, source, target, scale=scale, overwrite=overwrite, options=options)
        run = Run(session, reader, writer, scale=scale, strength=strength, options=options)
        if journal is not None:
            run.resume(journal)
        return run.report(source, target, run(progress))
    finally:
        reader.close()


def check_options(session: Session, scale: int, strength: float, options: VideoOptions) -> None:
    """Refuse what the session cannot do and values out of range.

    Raises:
        UsageError: naming the value.
    """
    if scale not in session.scales:
        raise UsageError(f"scale {scale} is not offered; choose one of {', '.join(map(str, session.scales))}")
    if not 0 <= strength <= 1:
        raise UsageError(f"strength {strength} is out of range; choose 0 to 1")
    options.check()


def open_source(source: str | Path, options: VideoOptions) -> FrameSource:
    """Open what a path names: a file, images, or standard input; cut to the range that was asked for.

    Raises:
        InputError: it cannot be read, or nothing of it is in the range.
    """
    reader: FrameSource
    if is_pipeline(source):
        from uare_rt.video.gstreamer import PipelineSource

        reader = PipelineSource(source)
    elif not is_pipe(source) and (is_pattern(source) or Path(source).is_dir()):
        reader = ImageSource(source, options.rate)
    else:
        reader = VideoSource(source, raw=options.raw, deinterlace=options.deinterlace)
    try:
        span = excerpt_range(reader, options)
        return reader if span is None else ExcerptSource(reader, *span)
    except BaseException:
        reader.close()
        raise


def _open_sink(
    reader: FrameSource, source: str | Path, target: str | Path, *, scale: int, overwrite: bool, options: VideoOptions
) -> FrameSink:
    if is_pipeline(target):
        from uare_rt.video.gstreamer import PipelineSink

        return PipelineSink(reader, target, scale=scale)
    if is_pipe(target):
        return PipeSink(reader, scale=scale, options=options)
    if is_pattern(target):
        return ImageSink(reader, str(target), overwrite=overwrite)
    if str(target).endswith("/") or (isinstance(reader.origin, type(None)) and not Path(target).suffix):
        return ImageSink(reader, pattern_of(Path(target)), overwrite=overwrite)
    check_target(None if reader.origin is None or is_pipe(source) else Path(source), Path(target), overwrite=overwrite)
    return VideoSink(reader, Path(target), scale=scale, options=options)


def check_resumable(reader: FrameSource, source: str | Path, target: str | Path, *, overwrite: bool) -> None:
    """Refuse what is no video file, on either side.

    Raises:
        UsageError: source or target is a pipe or images, or the target cannot be what it names.
        OutputError: the target cannot be written.
    """
    if reader.origin is None or is_pipe(source) or any(what(target) for what in (is_pipe, is_pattern, is_pipeline)):
        raise UsageError("resume and spreading work from a video file to a video file, not with pipes and images")
    check_target(Path(source), Path(target), overwrite=overwrite)


def settings_of(
    session: Session, source: str | Path, scale: int, strength: float, options: VideoOptions
) -> dict[str, str]:
    """What determines a result: a run that is taken up again must have the same."""
    status = Path(source).stat()
    return {
        "source": f"{Path(source).name}, {status.st_size} bytes, {status.st_mtime_ns}",
        "model": session.manifest.source.weights_sha256,
        "backend": session.backend,
        "precision": session.precision,
        "engine of parts": session.parts,
        "scale": str(scale),
        "strength": str(strength),
        **{name: str(value) for name, value in vars(options).items()},
    }


class Run:
    """One pass over a source: its stages, and what they found.

    Args:
        session: does the work.
        reader: not iterated yet.
        writer: takes the result.
        scale: of the result.
        strength: 0 (leave as is) to 1.
        options: how to work.
    """

    def __init__(
        self,
        session: Session,
        reader: FrameSource,
        writer: FrameSink,
        *,
        scale: int,
        strength: float,
        options: VideoOptions,
    ) -> None:
        self._session = session
        self._reader = reader
        self._writer = writer
        self._options = options
        self._planner = FramePlanner(session, float(reader.info.rate), options)
        self._lanes = session.lanes(reader.info.height, reader.info.width, scale)
        self._restorer = FrameRestorer(
            session, scale=scale, strength=strength, options=options, frames=reader.info.frames, lanes=self._lanes
        )
        self._piece: int | None = None
        self._after: int | None = None
        self._resumed = 0
        self._progress: Callable[[VideoProgress], None] | None = None
        self._began = 0.0

    def __call__(self, progress: Callable[[VideoProgress], None] | None) -> tuple[StageTime, ...]:
        """Run to the end; on any failure the unfinished result is removed."""
        self._progress = progress
        self._began = time.perf_counter()
        stages = [
            Stage("read", self._read),
            Stage("convert", self._convert),
            Stage("assess", self._plan),
            Stage("restore", self._restore),
            Stage("finish", self._finish),
            Stage("write", self._write),
        ]
        try:
            times = run_stages(stages, here="restore", on_abort=self._stop)
            self._writer.finish()
        except BaseException:
            self._writer.discard()
            raise
        return times

    def resume(self, journal: Journal) -> None:
        """Work in pieces, and begin after those that a journal has."""
        self._piece = max(1, round(self._reader.info.rate * PIECE_SECONDS))
        self._after = journal.last
        self._resumed = journal.frames
        state = journal.state()
        if state is not None:
            self._planner.restore(state["assess"])
            self._restorer.load(state["restore"])

    def report(self, source: str | Path, target: str | Path, stages: tuple[StageTime, ...]) -> VideoReport:
        """What was done."""
        return VideoReport.of(
            self._restorer.counts,
            resumed=self._resumed,
            seconds=time.perf_counter() - self._began,
            source=str(source),
            target=str(target),
            encoding=self._writer.encoding,
            backend=self._session.backend,
            precision=self._session.precision,
            parts=self._session.parts,
            lanes=self._lanes,
            scenes=self._planner.scenes,
            stages=stages,
            damage=self._reader.damage,
            notes=(*self._reader.notes, *self._writer.notes),
        )

    def _stop(self) -> None:
        self._reader.stop()
        self._writer.stop()

    def _read(self, _: Iterator[Any]) -> Iterator[Any]:
        yield from self._reader

    def _convert(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, Picture):
                if self._after is not None and item.pts <= self._after:
                    continue
                yield Frame(self._reader.pixels(item), item.pts, item.duration)
            else:
                yield item

    def _plan(self, items: Iterator[Any]) -> Iterator[Any]:
        frames, since, last = self._resumed, 0, 0
        for item in items:
            if not isinstance(item, Frame):
                yield item
                continue
            yield self._planner.plan(item)
            frames, since, last = frames + 1, since + 1, item.pts
            if since == self._piece:
                yield Checkpoint(last, frames, {"assess": self._planner.state()})
                since = 0
        if self._piece is not None and since:
            yield Checkpoint(last, frames, {"assess": self._planner.state()})

    def _restore(self, items: Iterator[Any]) -> Iterator[Any]:
        waiting: deque[tuple[Any, Computing | None]] = deque()  # in their order; parts of plans are being computed
        with ThreadPoolExecutor(self._lanes, "uare-lane") as pool:
            try:
                for item in items:
                    begun = self._restorer.ahead(item, pool) if isinstance(item, Plan) else None
                    waiting.append((item, begun))
                    while len(waiting) > self._lanes:
                        yield self._restored(*waiting.popleft())
                while waiting:
                    yield self._restored(*waiting.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _restored(self, item: Any, ready: Computing | None) -> Any:
        if isinstance(item, Plan):
            seconds = float(item.frame.pts * self._reader.info.time_base)
            frame = self._restorer.restore(item, seconds, self._planner.tiles(item), ready)
            self._tell()
            return frame
        if isinstance(item, Checkpoint):
            item.state["restore"] = self._restorer.state()
        return item

    def _finish(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            yield self._writer.prepare(item) if isinstance(item, Frame) else item

    def _write(self, items: Iterator[Any]) -> Iterator[Any]:
        for count, item in enumerate(items):
            self._writer.write(item)
            if count % _TRIM_EVERY == 0:
                trim_memory()
            yield item

    def _tell(self) -> None:
        if self._progress is None:
            return
        counts, total = self._restorer.counts, self._reader.info.frames
        fps = (counts.frames - self._resumed) / max(time.perf_counter() - self._began, 1e-9)
        remaining = max(total - counts.frames, 0) / fps if total else None
        reused = 1 - counts.tiles_computed / counts.tiles
        after = counts.after[-1] if counts.after else None
        self._progress(VideoProgress(counts.frames, total, fps, remaining, counts.before[-1], after, reused))
