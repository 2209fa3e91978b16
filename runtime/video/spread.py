"""Restoring one video on many workers: split, restore the parts anywhere, join them without a seam."""

from __future__ import annotations

import shutil
import time
import uuid
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from uare_rt.errors import OutputError, UsageError
from uare_rt.video.copying import CONTAINERS
from uare_rt.video.frames import Damage
from uare_rt.video.journal import PiecePacket, load_state, save_state, write_safely
from uare_rt.video.parts import Part, PartFinder, PartTask
from uare_rt.video.report import VideoProgress, VideoReport
from uare_rt.video.restore import check_options, check_resumable, open_source, settings_of
from uare_rt.video.restoring import Counts
from uare_rt.video.segments import check_container, join_pieces
from uare_rt.video.sink import PictureEncoder, explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uare_rt.session import Session
    from uare_rt.video.engines import Engine
    from uare_rt.video.frames import FrameSource
    from uare_rt.video.options import VideoOptions
    from uare_rt.video.parts import SessionChoice

__all__ = ["PART_SECONDS", "spread_video"]

PART_SECONDS = 20.0
"""Length of a part, about."""
_KEPT = "what is finished is kept: run again with resume (--resume)"


class _Plan(msgspec.Struct):
    """How a clip was split, and what was found on the way."""

    settings: dict[str, str]
    parts: list[Part]
    scenes: int
    damage: list[tuple[float, str]]
    notes: list[str]


class _Done(msgspec.Struct):
    """A finished part beside its file of packets."""

    packets: list[PiecePacket]
    counts: dict[str, Any]


def spread_video(
    session: Session,
    engine: Engine,
    model: SessionChoice,
    source: str | Path,
    target: str | Path,
    *,
    scale: int = 1,
    strength: float = 1.0,
    overwrite: bool = False,
    resume: bool = False,
    options: VideoOptions,
    part_seconds: float = PART_SECONDS,
    progress: Callable[[VideoProgress], None] | None = None,
) -> VideoReport:
    """Restore a video like `uare_rt.video.restore_video`, with the parts restored by an engine's workers.

    Finished parts lie in a hidden directory beside the target until they are joined.

    Args:
        session: looks through the clip; the workers load their own.
        engine: runs the parts.
        model: what the workers load.
        source: a video file that every worker can read under this path.
        target: as for `restore_video`; only this process writes it.
        scale: 1, 2 or 4, as the session offers.
        strength: 0 (leave as is) to 1.
        overwrite: replace an existing target.
        resume: keep finished parts when the run fails, and take over those of an earlier one.
        options: how to encode and how to work.
        part_seconds: length of a part, about.
        progress: called as parts end, in the caller's thread; what it raises stops the run.

    Raises:
        UsageError: an option cannot be used, or parts of another run lie there.
        InputError: the source cannot be read.
        OutputError: the result cannot be written.
        BackendError: a part failed, or its workers died again and again.
    """
    check_options(session, scale, strength, options)
    began = time.perf_counter()
    reader = open_source(source, options)
    with closing(reader):
        check_resumable(reader, source, target, overwrite=overwrite)
        target = Path(target)
        encoder = PictureEncoder(reader, CONTAINERS[target.suffix.lower()], scale=scale, options=options)
        check_container(reader, target, encoder)
        # What "the default encoder" is must not depend on the worker.
        options = replace(options, codec=encoder.encoding.codec, pix_fmt=encoder.encoding.pix_fmt)
        settings = settings_of(session, source, scale, strength, options) | {"part": str(part_seconds)}
        # Without resume, nothing of another run is touched.
        mark = "" if resume else f".{uuid.uuid4().hex[:8]}"
        work = _Work(target.with_name(f".{target.name}{mark}.parts"), settings)
        task = PartTask(model, str(source), target.suffix.lower(), scale, strength, options, Part(0, 0, 0), {})
        tell = _teller(progress, reader.info.frames)
        try:
            with explained(target, kept=_KEPT if resume else "nothing is left behind"):
                plan = work.plan() or work.split(reader, PartFinder(session, reader, options, part_seconds, tell))
                resumed = work.finished()
                work.run(engine, task, tell)
                with closing(open_source(source, options)) as fresh:
                    notes = join_pieces(fresh, target, work.pieces(), encoder)
                counts = work.counts()
        except BaseException:
            if not resume:
                work.remove()
            raise
        work.remove()
        return VideoReport.of(
            counts,
            resumed=resumed,
            seconds=time.perf_counter() - began,
            source=str(source),
            target=str(target),
            encoding=encoder.encoding.name,
            backend=session.backend,
            precision=session.precision,
            parts=session.parts,
            lanes=1,
            scenes=plan.scenes,
            stages=(),
            damage=tuple(Damage(*place) for place in plan.damage),
            notes=(*plan.notes, *encoder.notes, *notes),
        )


def _teller(progress: Callable[[VideoProgress], None] | None, total: int | None) -> Callable[[int], None]:
    """Progress in frames: of the look through the clip first, then of the parts."""
    began = time.perf_counter()

    def tell(frames: int) -> None:
        if progress is not None:
            fps = frames / max(time.perf_counter() - began, 1e-9)
            remaining = max(total - frames, 0) / fps if total and frames else None
            progress(VideoProgress(frames, total, fps, remaining, None))

    return tell


class _Work:
    """The directory of a run: how the clip is split, states to begin from, and finished parts.

    Every file is there whole or not at all, so that a run can be taken up again after any end.
    """

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self._folder, self._settings = folder, settings
        self._parts: list[Part] = []

    def plan(self) -> _Plan | None:
        """How an earlier run has split the clip; None where there was none.

        Raises:
            UsageError: it had other settings.
            OutputError: its plan is damaged.
        """
        try:
            found = msgspec.json.decode((self._folder / "plan.json").read_bytes(), type=_Plan)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise OutputError(f"{self._folder}: is damaged ({error}); delete it to begin anew") from error
        for name in sorted({*found.settings, *self._settings}):
            then, now = found.settings.get(name), self._settings.get(name)
            if then != now:
                raise UsageError(
                    f"{self._folder}: was begun with another {name} ({then}, now {now}); "
                    "resume with the same, or delete it to begin anew"
                )
        self._parts = found.parts
        return found

    def split(self, reader: FrameSource, finder: PartFinder) -> _Plan:
        """Split the clip and write down how."""
        self.remove()
        self._folder.mkdir()
        for number, (part, state) in enumerate(finder):
            save_state(self._folder / f"state-{number:05d}.npz", {"assess": state})
            self._parts.append(part)
        damage = [(place.seconds, place.reason) for place in reader.damage]
        plan = _Plan(self._settings, self._parts, finder.scenes, damage, list(reader.notes))
        write_safely(self._folder / "plan.json", msgspec.json.encode(plan))
        return plan

    def finished(self) -> int:
        """Frames in the parts that are finished."""
        return sum(part.frames for number, part in enumerate(self._parts) if self._facts(number).exists())

    def run(self, engine: Engine, task: PartTask, tell: Callable[[int], None]) -> None:
        """Restore what is not finished."""
        frames = self.finished()
        for number, result in engine.run(self._open(task)):
            write_safely(self._file(number), result.data)
            done = _Done(result.packets, vars(result.counts))
            write_safely(self._facts(number), msgspec.json.encode(done))
            frames += self._parts[number].frames
            tell(frames)

    def pieces(self) -> list[tuple[Path, list[PiecePacket]]]:
        """Files of packets in order, and what they hold."""
        return [(self._file(number), self._done(number).packets) for number in range(len(self._parts))]

    def counts(self) -> Counts:
        """What was done in all parts."""
        total = Counts()
        for number in range(len(self._parts)):
            for name, value in self._done(number).counts.items():
                setattr(total, name, getattr(total, name) + value)
        total.complaints = [(float(seconds), str(why)) for seconds, why in total.complaints]
        return total

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self, task: PartTask) -> Iterator[tuple[int, PartTask]]:
        for number, part in enumerate(self._parts):
            if not self._facts(number).exists():
                state = load_state(self._folder / f"state-{number:05d}.npz")["assess"]
                yield number, replace(task, part=part, state=state)

    def _done(self, number: int) -> _Done:
        return msgspec.json.decode(self._facts(number).read_bytes(), type=_Done)

    def _file(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}"

    def _facts(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.json"
