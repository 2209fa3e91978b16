"""The quality context over time: assessed at cuts and every N frames, smoothed in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from uare_rt.quality import QualityContext

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.quality import Assessment
    from uare_rt.session import Session
    from uare_rt.video.frames import Pixels

__all__ = ["ContextTracker", "CutDetector", "Guide"]

_ROWS, _COLUMNS, _BINS = 18, 32, 16
# A cut changes what is where (correlation of the thumbnails), and how much light or which tones there are; or, between
# views of one place, nothing is where it was all of a sudden, while motion comes with a run-up.
_MIN_CHANGE, _MAX_CORRELATION, _MIN_HISTOGRAM_CHANGE = 0.015, 0.6, 0.35
_SUDDEN_CHANGE, _SUDDEN_CORRELATION, _SUDDEN = 0.05, 0.3, 5
_MOTION_WEIGHT = 0.2  # of the newest change in what counts as motion so far
# Weight of a new assessment against what the scene has shown so far.
_EMA_WEIGHT = 0.3
# A smoothed context this near to the one in use changes nothing worth computing a whole frame again for.
_SAME_CONTEXT = 0.02


def thumbnail(frame: Pixels) -> NDArray[np.float32]:
    """Mean green of a 32x18 grid of blocks, 0..1: [H, W, 3] -> float32 [18, 32] (fewer for tiny frames)."""
    height, width = frame.shape[:2]
    rows, columns = min(_ROWS, height), min(_COLUMNS, width)
    step_y, step_x = height // rows, width // columns
    green = frame[: rows * step_y, : columns * step_x, 1].reshape(rows, step_y, columns, step_x)
    peak = np.float32(np.iinfo(frame.dtype).max)
    return np.asarray(green.mean(axis=(1, 3), dtype=np.float32) / peak, dtype=np.float32)


class CutDetector:
    """Tells the first frame of every scene from thumbnails of consecutive frames.

    Attributes:
        last: thumbnail of the frame before, None before the first.
        motion: mean change between frames lately, 0..1.
    """

    def __init__(self) -> None:
        self.last: NDArray[np.float32] | None = None
        self.motion = 0.0

    def is_cut(self, frame: Pixels) -> bool:
        """Whether ``frame`` (uint8 or uint16 [H, W, 3]) starts a new scene; True for the first frame."""
        now, last = thumbnail(frame), self.last
        self.last = now
        if last is None:
            return True
        change, motion = float(np.abs(now - last).mean()), self.motion
        self.motion += _MOTION_WEIGHT * (change - motion)
        if change < _MIN_CHANGE:
            return False
        a, b = now - now.mean(), last - last.mean()
        norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
        correlation = float((a * b).sum()) / norm if norm > 1e-6 else 0.0
        if correlation < _MAX_CORRELATION and _histogram_change(now, last) > _MIN_HISTOGRAM_CHANGE:
            return True
        return correlation < _SUDDEN_CORRELATION and change > max(_SUDDEN_CHANGE, _SUDDEN * motion)


def _histogram_change(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Half the L1 distance of two histograms over the range both use together, 0..1."""
    low, high = float(min(a.min(), b.min())), float(max(a.max(), b.max()))
    counts = [np.histogram(x, bins=_BINS, range=(low, high + 1e-6))[0] / x.size for x in (a, b)]
    return float(np.abs(counts[0] - counts[1]).sum()) / 2


class Guide(NamedTuple):
    """What to restore a frame with.

    Attributes:
        context: the quality context in use; the same object until it changes.
        score: of the scene so far, smoothed, 1..5.
        assessment: of this very frame, None when it was not one to assess.
        cut: whether the frame starts a scene.
    """

    context: QualityContext
    score: float
    assessment: Assessment | None
    cut: bool


class ContextTracker:
    """Follows a clip frame by frame and gives the quality context to restore each with.

    Args:
        session: assesses the frames.
        every: frames between two assessments inside a scene.
    """

    def __init__(self, session: Session, *, every: int) -> None:
        self._session = session
        self._every = every
        self._cuts = CutDetector()
        self._since = 0
        self._smoothed: QualityContext | None = None
        self._used: QualityContext | None = None
        self._score = 0.0
        self.scenes = 0

    def follow(self, frame: Pixels) -> Guide:
        """What to restore ``frame`` (uint8 or uint16 [H, W, 3]) with."""
        cut = self._cuts.is_cut(frame)
        self._since += 1
        if not cut and self._since < self._every and self._used is not None:
            return Guide(self._used, self._score, None, cut)
        self._since = 0
        assessment = self._session.assess(frame)
        if cut or self._smoothed is None or self._used is None:
            self.scenes += 1
            self._smoothed = self._used = assessment.context
            self._score = assessment.score
        else:
            self._smoothed = self._smoothed.blend(assessment.context, _EMA_WEIGHT)
            self._score += _EMA_WEIGHT * (assessment.score - self._score)
            if _distance(self._smoothed, self._used) > _SAME_CONTEXT:
                self._used = self._smoothed
        return Guide(self._used, self._score, assessment, cut)

    def current(self) -> Guide | None:
        """What the last frame was restored with; None before the first."""
        return None if self._used is None else Guide(self._used, self._score, None, cut=False)

    def state(self) -> dict[str, Any]:
        """What is remembered, for a checkpoint."""
        return {
            "thumbnail": self._cuts.last,
            "motion": self._cuts.motion,
            "since": self._since,
            "score": self._score,
            "scenes": self.scenes,
            **{f"smoothed_{name}": value for name, value in _parts(self._smoothed).items()},
            **{f"used_{name}": value for name, value in _parts(self._used).items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._cuts.last, self._cuts.motion = state["thumbnail"], state["motion"]
        self._since, self._score, self.scenes = state["since"], state["score"], state["scenes"]
        self._smoothed, self._used = (
            QualityContext(*(state[f"{which}_{name}"] for name in ("k", "v", "vec"))) if f"{which}_k" in state else None
            for which in ("smoothed", "used")
        )


def _parts(context: QualityContext | None) -> dict[str, Any]:
    return {} if context is None else {"k": context.k, "v": context.v, "vec": context.vec}


def _distance(a: QualityContext, b: QualityContext) -> float:
    """Largest relative difference of the parts of two contexts."""
    pairs = zip(_parts(a).values(), _parts(b).values(), strict=True)
    return max(float(np.linalg.norm(x - y) / (np.linalg.norm(y) + 1e-12)) for x, y in pairs)
