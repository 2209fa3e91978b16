"""What a restoration tells while it runs and at its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import InputError

if TYPE_CHECKING:
    from uare_rt.video.frames import Damage
    from uare_rt.video.pipeline import StageTime
    from uare_rt.video.restoring import Counts

__all__ = ["KeptOriginal", "VideoProgress", "VideoReport"]


@dataclass(frozen=True)
class VideoProgress:
    """Where a running restoration stands.

    Attributes:
        frames: restored so far.
        total: how many there will be, None when the file does not say.
        fps: restored per second since the start.
        remaining: seconds left at this speed, None when the total is not known.
        score: of the last assessed frame before restoration, 1..5.
        score_after: of the same frame after restoration.
        reused: part of all tiles so far that were not computed again, 0..1.
    """

    frames: int
    total: int | None
    fps: float
    remaining: float | None
    score: float | None
    score_after: float | None = None
    reused: float = 0.0


@dataclass(frozen=True)
class KeptOriginal:
    """A place where the original was kept because restoration did not help.

    Attributes:
        seconds: of the assessed frame, on the clip's own clock.
        reason: one plain phrase.
    """

    seconds: float
    reason: str


@dataclass(frozen=True)
class VideoReport:
    """What `restore_video` did.

    Attributes:
        source: the input.
        target: the result.
        encoding: how pictures are stored in it, as in ``libx264 yuv420p``.
        backend: that ran the graphs.
        precision: of the restore graph.
        parts: backend and precision for parts of frames, for example ``onnxruntime fp32``.
        lanes: frames computed side by side, in the end.
        frames: in the result.
        reused: of them, those of which nothing was computed again.
        skipped: of them, left as they are because they are good enough.
        kept: of them, left as they are because restoration did not help.
        tiles: of 16x16 px in all frames.
        tiles_computed: of them, computed; the others were reused or skipped.
        resumed: frames that an earlier, interrupted run had made.
        seconds: wall time of this run.
        fps: frames of this run per second of wall time.
        scenes: found by cut detection.
        assessed: frames that were assessed.
        score_before: mean score of the assessed frames, 1..5.
        score_after: mean score of the same frames of the result.
        stages: where the time went.
        originals: places where the original was kept.
        damage: places where the source could not be read; a damaged source is restored as far as it decodes.
        notes: what could not be kept, or was decided on the way.
    """

    source: str
    target: str
    encoding: str
    backend: str
    precision: str
    parts: str
    lanes: int
    frames: int
    reused: int
    skipped: int
    kept: int
    tiles: int
    tiles_computed: int
    resumed: int
    seconds: float
    fps: float
    scenes: int
    assessed: int
    score_before: float
    score_after: float
    stages: tuple[StageTime, ...]
    originals: tuple[KeptOriginal, ...]
    damage: tuple[Damage, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, counts: Counts, *, resumed: int, seconds: float, **facts: Any) -> VideoReport:
        """The report of a run that has counted its work.

        Args:
            counts: of all frames.
            resumed: frames of them that an earlier run had made.
            seconds: wall time of this run.
            facts: the other attributes that are not counted.

        Raises:
            InputError: there was not one frame.
        """
        if not counts.frames:
            raise InputError(f"{facts['source']}: not one frame could be restored")
        return cls(
            frames=counts.frames,
            reused=counts.repeated,
            skipped=counts.skipped,
            kept=counts.kept,
            tiles=counts.tiles,
            tiles_computed=counts.tiles_computed,
            resumed=resumed,
            seconds=seconds,
            fps=(counts.frames - resumed) / seconds,
            assessed=len(counts.before),
            score_before=float(np.mean(counts.before)),
            score_after=float(np.mean(counts.after)),
            originals=tuple(KeptOriginal(*place) for place in counts.complaints),
            **facts,
        )

    @property
    def damaged(self) -> bool:
        """Whether part of the source could not be read."""
        return bool(self.damage)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {**asdict(self), "damaged": self.damaged}
