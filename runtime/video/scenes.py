"""The quality context over time: assessed at cuts and every N frames, smoothed in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.quality import Assessment, QualityContext
    from uare_rt.session import Session
    from uare_rt.video.frames import Pixels

__all__ = ["ContextTracker", "CutDetector"]

_ROWS, _COLUMNS, _BINS = 18, 32, 16
# A cut changes what is where (correlation of the thumbnails), and how much light or which tones there are.
_MIN_CHANGE, _MAX_CORRELATION, _MIN_HISTOGRAM_CHANGE = 0.015, 0.6, 0.35
# Weight of a new assessment against what the scene has shown so far.
_EMA_WEIGHT = 0.3


def thumbnail(frame: Pixels) -> NDArray[np.float32]:
    """Mean green of a 32x18 grid of blocks, 0..1: [H, W, 3] -> float32 [18, 32] (fewer for tiny frames)."""
    height, width = frame.shape[:2]
    rows, columns = min(_ROWS, height), min(_COLUMNS, width)
    step_y, step_x = height // rows, width // columns
    green = frame[: rows * step_y, : columns * step_x, 1].reshape(rows, step_y, columns, step_x)
    peak = np.float32(np.iinfo(frame.dtype).max)
    return np.asarray(green.mean(axis=(1, 3), dtype=np.float32) / peak, dtype=np.float32)


class CutDetector:
    """Tells the first frame of every scene from thumbnails of consecutive frames."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None

    def is_cut(self, frame: Pixels) -> bool:
        """Whether ``frame`` (uint8 or uint16 [H, W, 3]) starts a new scene; True for the first frame."""
        now, last = thumbnail(frame), self._last
        self._last = now
        if last is None:
            return True
        if float(np.abs(now - last).mean()) < _MIN_CHANGE:
            return False
        a, b = now - now.mean(), last - last.mean()
        norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
        correlation = float((a * b).sum()) / norm if norm > 1e-6 else 0.0
        return correlation < _MAX_CORRELATION and _histogram_change(now, last) > _MIN_HISTOGRAM_CHANGE


def _histogram_change(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Half the L1 distance of two histograms over the range both use together, 0..1."""
    low, high = float(min(a.min(), b.min())), float(max(a.max(), b.max()))
    counts = [np.histogram(x, bins=_BINS, range=(low, high + 1e-6))[0] / x.size for x in (a, b)]
    return float(np.abs(counts[0] - counts[1]).sum()) / 2


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
        self._context: QualityContext | None = None
        self.scenes = 0

    def follow(self, frame: Pixels) -> tuple[QualityContext, Assessment | None]:
        """The context for ``frame``, and its assessment when this frame was one to assess."""
        cut = self._cuts.is_cut(frame)
        self._since += 1
        if not cut and self._since < self._every and self._context is not None:
            return self._context, None
        self._since = 0
        assessment = self._session.assess(frame)
        if cut or self._context is None:
            self.scenes += 1
            self._context = assessment.context
        else:
            self._context = self._context.blend(assessment.context, _EMA_WEIGHT)
        return self._context, assessment
