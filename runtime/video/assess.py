"""Assessing a video from frames spread over its duration."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import InputError, UsageError
from uare_rt.slots import DEGRADATIONS, LEVELS, SLOTS, describe
from uare_rt.video.colour import ToRgb, guessed_matrix, read_tags
from uare_rt.video.frames import Damage
from uare_rt.video.opening import open_input, picture_stream
from uare_rt.video.truncation import cut_off

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uare_rt.quality import Judgement
    from uare_rt.session import Session
    from uare_rt.video.frames import Pixels

__all__ = ["VideoAssessment", "VideoSample", "assess_video", "sample_frames"]

# Decoding this far ahead is about as cheap as a seek.
_NEAR_SECONDS = 1.0


@dataclass(frozen=True)
class VideoSample:
    """One assessed frame.

    Attributes:
        seconds: its time in the clip.
        assessment: its verdict.
    """

    seconds: float
    assessment: Judgement

    def to_dict(self) -> dict[str, Any]:
        """Time and verdict as JSON-ready values."""
        return {"seconds": self.seconds, **self.assessment.to_dict()}


@dataclass(frozen=True)
class VideoAssessment:
    """The verdict on a video.

    Attributes:
        score: mean over the samples, 1 (bad) .. 5 (excellent).
        level: the quality level nearest to the score.
        severities: mean severity of each degradation, 0..1.
        description: one sentence for the mean of all samples.
        worst: the sample with the lowest score.
        samples: every sample, in time order.
        damage: after which sample the file is known to be cut off; `samples` come from before.
    """

    score: float
    level: str
    severities: dict[str, float]
    description: str
    worst: VideoSample
    samples: tuple[VideoSample, ...]
    damage: tuple[Damage, ...]

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON-ready values."""
        return {
            "score": self.score,
            "level": self.level,
            "severities": dict(self.severities),
            "description": self.description,
            "worst": self.worst.to_dict(),
            "samples": [sample.to_dict() for sample in self.samples],
            "damage": [{"seconds": place.seconds, "reason": place.reason} for place in self.damage],
        }


def assess_video(session: Session, source: str | Path, *, samples: int = 16) -> VideoAssessment:
    """Assess a video by frames spread evenly over it.

    Args:
        session: assesses each frame.
        source: any file FFmpeg can read.
        samples: how many frames at most; short clips have fewer.

    Raises:
        UsageError: ``samples`` is below 1.
        InputError: the source cannot be read, has no video stream, or not one frame decodes.
    """
    found = tuple(VideoSample(seconds, session.assess(pixels)) for seconds, pixels in sample_frames(source, samples))
    verdicts = [sample.assessment for sample in found]
    missing = cut_off(Path(source))
    mean = {slot: np.mean([v.probabilities[slot] for v in verdicts], axis=0) for slot in SLOTS}
    score = float(np.mean([v.score for v in verdicts]))
    return VideoAssessment(
        score=score,
        level=LEVELS["quality"][round(score) - 1],
        severities={d: float(np.mean([v.severities[d] for v in verdicts])) for d in DEGRADATIONS},
        description=describe(mean),
        worst=min(found, key=lambda sample: sample.assessment.score),
        samples=found,
        damage=() if missing is None else (Damage(round(found[-1].seconds, 3), missing),),
    )


def sample_frames(source: str | Path, count: int) -> Iterator[tuple[float, Pixels]]:
    """Frames spread evenly over a video, by seeking to key frames and decoding on from there.

    Streams that state no duration or cannot seek are decoded once from start to end.

    Args:
        source: any file FFmpeg can read.
        count: how many frames at most.

    Yields:
        (seconds, uint8 or uint16 [H, W, 3] RGB), in time order, each frame once.

    Raises:
        UsageError: ``count`` is below 1.
        InputError: the source cannot be read, has no video stream, or not one frame decodes.
    """
    if count < 1:
        raise UsageError(f"samples must be 1 or more, not {count}")
    path = Path(source)
    container = open_input(path)
    try:
        stream = picture_stream(container, path)
        stated = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1_000_000
        frames = _seek_through(container, stream, float(stated), count) if stated else _read_through(stream, count)
        convert: ToRgb | None = None
        found = False
        for frame in frames:
            if convert is None:
                tags = read_tags(frame, stream.codec_context)
                deep = max(component.bits for component in frame.format.components) > 8
                matrix = guessed_matrix(tags, frame.width, frame.height)
                convert = ToRgb(matrix, full_range=tags.full_range, deep=deep)
            found = True
            yield float(frame.time or 0.0), convert(frame)
        if not found:
            raise InputError(f"{path}: not one frame could be decoded; it is damaged, get a whole copy of it")
    finally:
        container.close()


def _decoded(stream: Any) -> Iterator[Any]:
    """Frames from here on; packets that cannot be decoded are left out."""
    import av

    try:
        for packet in stream.container.demux(stream):
            with contextlib.suppress(av.error.FFmpegError, ValueError):
                yield from packet.decode()
    except (av.error.FFmpegError, OSError, ValueError):
        return


def _seek_through(container: Any, stream: Any, duration: float, count: int) -> Iterator[Any]:
    import av

    start = float((stream.start_time or 0) * stream.time_base)
    frames = _decoded(stream)
    frame = next(frames, None)
    shown = None
    for index in range(count):
        wanted = start + duration * (index + 0.5) / count
        if frame is not None and wanted - _time(frame) > _NEAR_SECONDS:
            try:
                container.seek(int(wanted / stream.time_base), stream=stream)
                frames = _decoded(stream)
                frame = next(frames, None)
            # Not seekable: decode on from where we are.
            except (av.error.FFmpegError, OSError):
                pass
        while frame is not None and _time(frame) + 1e-6 < wanted:
            following = next(frames, None)
            if following is None:
                break
            frame = following
        if frame is None:
            break
        if shown is None or _time(frame) > shown:
            shown = _time(frame)
            yield frame


def _time(frame: Any) -> float:
    return float(frame.time) if frame.time is not None else 0.0


def _read_through(stream: Any, count: int) -> Iterator[Any]:
    """Evenly spaced frames of a stream of unknown length, holding at most twice as many as asked."""
    kept: list[Any] = []
    stride = 1
    for index, frame in enumerate(_decoded(stream)):
        if index % stride:
            continue
        kept.append(frame)
        if len(kept) >= 2 * count:
            kept = kept[::2]
            stride *= 2
    picks = np.unique(np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(int)) if kept else ()
    yield from (kept[i] for i in picks)
