"""Quality over time: a whole clip assessed at its cuts and in between, scene by scene."""

from __future__ import annotations

import heapq
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import InputError, UsageError
from uare_rt.quality import Judgement
from uare_rt.slots import DEGRADATIONS, describe
from uare_rt.video.assess import VideoSample
from uare_rt.video.frames import Frame, Picture
from uare_rt.video.options import VideoOptions
from uare_rt.video.pipeline import Stage, run_stages
from uare_rt.video.report import VideoProgress
from uare_rt.video.restore import open_source
from uare_rt.video.scenes import CutDetector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from uare_rt.session import Session
    from uare_rt.video.frames import Damage, FrameSource, Pixels

__all__ = ["Moment", "Scene", "Timeline", "video_timeline"]

_THUMBNAIL = 320  # px of the longer side


@dataclass(frozen=True)
class Scene:
    """What lies between two cuts.

    Attributes:
        start: seconds of its first frame.
        end: seconds at which its last frame ends.
        frames: in it.
        score: mean of its samples, 1 (bad) .. 5 (excellent).
        lowest: score of its worst sample.
        severities: mean severity of each degradation, 0..1.
        description: one sentence for the mean of its samples.
    """

    start: float
    end: float
    frames: int
    score: float
    lowest: float
    severities: dict[str, float]
    description: str


@dataclass(frozen=True, eq=False)
class Moment:
    """One of the worst samples, with a picture.

    Attributes:
        sample: time and verdict.
        thumbnail: uint8 [h, w, 3] RGB, 320 px at the longer side.
    """

    sample: VideoSample
    thumbnail: Pixels


@dataclass(frozen=True, eq=False)
class Timeline:
    """The quality of a clip over time.

    Attributes:
        score: mean over all frames, each counted with the score of the samples around it, 1..5.
        seconds: length of the clip.
        frames: in it.
        samples: every assessed frame, in time order.
        scenes: in time order.
        worst: the samples with the lowest scores, the worst first.
        damage: places where the clip could not be read.
    """

    score: float
    seconds: float
    frames: int
    samples: tuple[VideoSample, ...]
    scenes: tuple[Scene, ...]
    worst: tuple[Moment, ...]
    damage: tuple[Damage, ...]

    def to_dict(self) -> dict[str, Any]:
        """The timeline as JSON-ready values, without pictures."""
        return {
            "score": self.score,
            "seconds": self.seconds,
            "frames": self.frames,
            "scenes": [asdict(scene) for scene in self.scenes],
            "worst": [moment.sample.to_dict() for moment in self.worst],
            "samples": [sample.to_dict() for sample in self.samples],
            "damage": [asdict(place) for place in self.damage],
        }


def video_timeline(
    session: Session,
    source: str | Path,
    *,
    every: float = 2.0,
    worst: int = 6,
    progress: Callable[[VideoProgress], None] | None = None,
) -> Timeline:
    """Assess a whole clip: at every cut, and every so many seconds inside a scene.

    Args:
        session: assesses the frames.
        source: any file FFmpeg can read, or images as for `restore_video`.
        every: seconds between two samples of a scene.
        worst: how many of the worst samples are kept with a picture, at most one for each ``every`` seconds.
        progress: called after every frame, in the caller's thread; what it raises stops the run.

    Raises:
        UsageError: ``every`` or ``worst`` is out of its range.
        InputError: the source cannot be read, or not one frame decodes.
    """
    if not every > 0 or worst < 1:
        raise UsageError(f"every {every} or worst {worst} is out of range; give seconds above 0 and 1 or more")
    reader = open_source(source, VideoOptions())
    try:
        survey = _Survey(session, reader, every, worst, progress)
        run_stages(
            [Stage("read", survey.read), Stage("convert", survey.convert), Stage("assess", survey.assess)],
            here="assess",
            on_abort=reader.stop,
        )
        return survey.timeline(str(source))
    finally:
        reader.close()


class _Survey:
    """One pass over a clip."""

    def __init__(
        self,
        session: Session,
        reader: FrameSource,
        every: float,
        worst: int,
        progress: Callable[[VideoProgress], None] | None,
    ) -> None:
        self._session, self._reader = session, reader
        self._every, self._keep, self._progress = every, worst, progress
        self._cuts = CutDetector()
        self._starts: list[tuple[float, int]] = []  # of every scene: seconds, frames before it
        self._samples: list[VideoSample] = []
        self._worst: list[tuple[float, float, Moment]] = []  # a heap whose first is the least bad
        self._frames = 0
        self._end = 0.0
        self._began = time.perf_counter()

    def read(self, _: Iterator[Any]) -> Iterator[Picture]:
        yield from (item for item in self._reader if isinstance(item, Picture))

    def convert(self, pictures: Iterator[Picture]) -> Iterator[Frame]:
        for picture in pictures:
            yield Frame(self._reader.pixels(picture), picture.pts, picture.duration)

    def assess(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        info = self._reader.info
        for frame in frames:
            seconds = float(frame.pts * info.time_base)
            cut = self._cuts.is_cut(frame.pixels)
            if cut:
                self._starts.append((seconds, self._frames))
            if cut or seconds - self._samples[-1].seconds >= self._every - 1e-6:
                self._look(seconds, frame.pixels)
            self._frames += 1
            self._end = seconds + float((frame.duration or 0) * info.time_base or 1 / info.rate)
            self._tell()
            yield frame

    def timeline(self, name: str) -> Timeline:
        """What was found."""
        if not self._samples:
            raise InputError(f"{name}: not one frame could be decoded; get a whole copy of it")
        ends = [*self._starts[1:], (self._end, self._frames)]
        scenes = []
        for (start, first), (end, last) in zip(self._starts, ends, strict=True):
            inside = [sample for sample in self._samples if start <= sample.seconds < end]
            scenes.append(_scene(start, end, last - first, inside))
        weights = np.diff([sample.seconds for sample in self._samples] + [self._end])
        scores = [sample.assessment.score for sample in self._samples]
        return Timeline(
            score=float(np.average(scores, weights=np.maximum(weights, 1e-9))),
            seconds=self._end - self._samples[0].seconds,
            frames=self._frames,
            samples=tuple(self._samples),
            scenes=tuple(scenes),
            worst=tuple(moment for _, _, moment in sorted(self._worst, key=lambda entry: (-entry[0], -entry[1]))),
            damage=self._reader.damage,
        )

    def _look(self, seconds: float, pixels: Pixels) -> None:
        verdict = self._session.assess(pixels)
        # Without its context: thousands of them would fill the memory.
        sample = VideoSample(seconds, Judgement(**{f.name: getattr(verdict, f.name) for f in fields(Judgement)}))
        self._samples.append(sample)
        badness = -sample.assessment.score
        # Two cuts close together show the same trouble once.
        near = [entry for entry in self._worst if seconds - entry[2].sample.seconds < self._every - 1e-6]
        if near:
            if badness <= near[0][0]:
                return
            self._worst.remove(near[0])
            heapq.heapify(self._worst)
        if len(self._worst) < self._keep or badness > self._worst[0][0]:
            heapq.heappush(self._worst, (badness, -seconds, Moment(sample, _thumbnail(pixels))))
            if len(self._worst) > self._keep:
                heapq.heappop(self._worst)

    def _tell(self) -> None:
        if self._progress is None:
            return
        total = self._reader.info.frames
        fps = self._frames / max(time.perf_counter() - self._began, 1e-9)
        remaining = max(total - self._frames, 0) / fps if total else None
        self._progress(VideoProgress(self._frames, total, fps, remaining, self._samples[-1].assessment.score))


def _scene(start: float, end: float, frames: int, samples: Sequence[VideoSample]) -> Scene:
    verdicts = [sample.assessment for sample in samples]
    scores = [verdict.score for verdict in verdicts]
    mean = {slot: np.mean([v.probabilities[slot] for v in verdicts], axis=0) for slot in verdicts[0].probabilities}
    return Scene(
        start=start,
        end=end,
        frames=frames,
        score=float(np.mean(scores)),
        lowest=min(scores),
        severities={d: float(np.mean([v.severities[d] for v in verdicts])) for d in DEGRADATIONS},
        description=describe(mean),
    )


def _thumbnail(pixels: Pixels) -> Pixels:
    from PIL import Image

    from uare_rt.frames import to_uint8

    image = Image.fromarray(to_uint8(pixels))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return np.asarray(image)
