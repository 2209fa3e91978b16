"""A long clip in parts that can be restored anywhere, in any order, with the result of one run.

The clip is looked through once: cuts, assessments and changes depend on the input alone, so the state of the planner at
the start of each part is known without restoring anything. A part begins where a new scene or a new quality context
begins, since nothing from before is shown there. A scene that never changes is split at an assessed frame: the worker
first restores the input that the picture before stands for, which the planner remembers, and runs up to the part for a
few frames that are thrown away.
"""

from __future__ import annotations

import io
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from uare_rt.errors import InputError
from uare_rt.video.copying import CONTAINERS
from uare_rt.video.frames import Frame, Picture
from uare_rt.video.planning import FramePlanner
from uare_rt.video.restore import open_source
from uare_rt.video.restoring import Counts, FrameRestorer
from uare_rt.video.segments import PieceWriter
from uare_rt.video.sink import PictureEncoder
from uare_rt.video.source import VideoSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uare_rt.session import Session
    from uare_rt.video.frames import FrameSource
    from uare_rt.video.journal import PiecePacket
    from uare_rt.video.options import VideoOptions
    from uare_rt.video.planning import Plan

__all__ = ["Part", "PartFinder", "PartResult", "PartTask", "SessionChoice", "restore_part"]

_RUN_UP = 12  # frames after which 0.5 % is left of where the filter in time began


class Part(msgspec.Struct, frozen=True):
    """A range of frames.

    Attributes:
        warm: time of the frame at which work begins, in ticks; before ``first`` where a run-up is needed.
        first: time of the first frame of the part.
        frames: in the part.
    """

    warm: int
    first: int
    frames: int


class SessionChoice(NamedTuple):
    """What a worker loads; it must be there under the same path.

    Attributes:
        bundle: path, None for the shipped one.
        backend: name, or ``auto``.
        threads: processor threads, None for all cores.
    """

    bundle: str | None
    backend: str
    threads: int | None


@dataclass(frozen=True)
class PartTask:
    """All that a worker needs to know to restore one part.

    Attributes:
        model: what to load.
        source: path of the clip, readable by the worker.
        suffix: of the result.
        scale: of the result.
        strength: 0 to 1.
        options: with an encoder and a pixel format, so that every worker encodes alike.
        part: which frames.
        state: of the planner before the frame at ``part.warm``.
    """

    model: SessionChoice
    source: str
    suffix: str
    scale: int
    strength: float
    options: VideoOptions
    part: Part
    state: dict[str, Any]


@dataclass(frozen=True)
class PartResult:
    """A restored part.

    Attributes:
        data: its packets, one after another.
        packets: what they are.
        counts: what was done.
    """

    data: bytes
    packets: list[PiecePacket]
    counts: Counts


class PartFinder:
    """Looks through a clip and splits it; iterate once.

    Args:
        session: assesses frames.
        reader: not iterated yet.
        options: how the work will be done.
        seconds: length of a part, about; none is longer than twice that and the time to the next assessment.
        progress: called with the number of frames seen, after each.
    """

    def __init__(
        self,
        session: Session,
        reader: FrameSource,
        options: VideoOptions,
        seconds: float,
        progress: Callable[[int], None],
    ) -> None:
        self._reader, self._seconds, self._progress = reader, seconds, progress
        self._planner = FramePlanner(session, float(reader.info.rate), options)

    @property
    def scenes(self) -> int:
        """Scenes found so far."""
        return self._planner.scenes

    def __iter__(self) -> Iterator[tuple[Part, dict[str, Any]]]:
        """Each part, and the state of the planner at its ``warm``."""
        planner, base = self._planner, self._reader.info.time_base
        recent: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_RUN_UP + 1)
        begun: tuple[int, int, dict[str, Any]] | None = None  # warm, first, state
        count = seen = 0
        for item in self._reader:
            if not isinstance(item, Picture):
                continue
            recent.append((item.pts, planner.state()))
            plan = planner.plan(Frame(self._reader.pixels(item), item.pts, item.duration))
            length = float((item.pts - begun[1]) * base) if begun is not None else 0.0
            fresh = plan.boxes is None and plan.weights is None
            long, late = length >= self._seconds, length >= 2 * self._seconds
            if begun is None or (long and _may_begin(plan, fresh, late=late)):
                if begun is not None:
                    yield Part(begun[0], begun[1], count), begun[2]
                warm, state = recent[-1] if fresh else recent[0]
                begun, count = (warm, item.pts, state), 0
            count += 1
            seen += 1
            self._progress(seen)
        if begun is not None:
            yield Part(begun[0], begun[1], count), begun[2]


def _may_begin(plan: Plan, fresh: bool, *, late: bool) -> bool:
    """Whether a part may begin with this frame: nothing from before counts, or it is late and looked at anew."""
    return plan.guide.assessment is not None and (fresh or plan.leave or late)


def restore_part(task: PartTask) -> PartResult:
    """Restore one part; it depends on the task alone and leaves nothing but its result.

    Raises:
        InputError: the source cannot be read here.
        BundleError: the model cannot be loaded here.
        BackendError: the model failed.
    """
    session = _session(task.model)
    part, options = task.part, task.options
    reader = open_source(task.source, options)
    try:
        planner = FramePlanner(session, float(reader.info.rate), options)
        planner.restore(task.state)
        standing = planner.standing() if part.warm < part.first else None
        restorer = FrameRestorer(session, scale=task.scale, strength=task.strength, options=options, frames=part.frames)
        encoder = PictureEncoder(reader, CONTAINERS[task.suffix], scale=task.scale, options=options)
        if standing is not None:
            restorer.begin(standing)
        buffer = io.BytesIO()
        writer = PieceWriter(buffer, encoder, CONTAINERS[task.suffix])
        if isinstance(reader, VideoSource):
            reader.seek(part.warm)
        left = part.frames
        for item in reader:
            if not isinstance(item, Picture) or item.pts < part.warm:
                continue
            if item.pts == part.first:
                restorer.counts = Counts()
            plan = planner.plan(Frame(reader.pixels(item), item.pts, item.duration))
            frame = restorer.restore(plan, float(item.pts * reader.info.time_base), planner.tiles(plan))
            if item.pts >= part.first:
                writer.write(encoder.prepare(frame))
                left -= 1
            if not left:
                break
        if left:
            raise InputError(f"{task.source}: {left} frames that were there before cannot be read any more")
        writer.finish()
        return PartResult(buffer.getvalue(), writer.packets, restorer.counts)
    finally:
        reader.close()


@lru_cache(maxsize=1)
def _session(choice: SessionChoice) -> Session:
    """One model for a worker's whole life."""
    import uare_rt
    from uare_rt.session import Session

    session = uare_rt.load(choice.bundle, backend=choice.backend, threads=choice.threads)
    if not isinstance(session, Session):
        raise InputError(f"{choice.bundle}: is no model for video")
    return session
