"""Carrying plans out: compute the planned parts, take the rest from the result before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from uare_rt.frames import from_unit, to_unit
from uare_rt.video.frames import Frame
from uare_rt.video.regions import FEATHER
from uare_rt.video.verifying import complaint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.session import Session
    from uare_rt.video.frames import Pixels
    from uare_rt.video.planning import Plan
    from uare_rt.video.regions import Box

__all__ = ["Counts", "FrameRestorer"]

_BLOCK = 8


@dataclass
class Counts:
    """What was done so far.

    Attributes:
        frames: restored, left or repeated, in all.
        repeated: taken over whole from the frame before.
        skipped: left as they are because they are good.
        kept: left as they are because restoration did not help.
        tiles: of 16x16 px in all frames.
        tiles_computed: of them, computed.
        before: score of every assessed frame.
        after: score of its result.
        complaints: (seconds, why) of every assessed frame whose original was kept.
    """

    frames: int = 0
    repeated: int = 0
    skipped: int = 0
    kept: int = 0
    tiles: int = 0
    tiles_computed: int = 0
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    complaints: list[tuple[float, str]] = field(default_factory=list)


class FrameRestorer:
    """Restores frame after frame.

    Args:
        session: does the work.
        scale: of the result.
        strength: 0 (leave as is) to 1.
        verify: keep the original where the result is worse.
    """

    def __init__(self, session: Session, *, scale: int, strength: float, verify: bool) -> None:
        self._session = session
        self._scale = scale
        self._strength = strength
        self._verify = verify
        self._grid = session.manifest.tiling.grid
        self._computed: Pixels | None = None
        self._shown: Pixels | None = None
        self._keeping = False
        self.counts = Counts()

    def restore(self, plan: Plan, seconds: float, tiles: tuple[int, int]) -> Frame:
        """The result for a plan.

        Args:
            plan: what to do.
            seconds: time of the frame, for reports.
            tiles: of the frame, and how many of them the plan computes.
        """
        counts = self.counts
        counts.frames += 1
        counts.tiles += tiles[0]
        assessed = plan.guide.assessment
        if plan.leave:
            counts.skipped += 1
            self._computed = None
            shown = self.original(plan)
            if assessed is not None:
                self._note_scores(assessed.score, assessed.score)
        elif plan.repeats and self._shown is not None and assessed is None:
            counts.repeated += 1
            counts.kept += self._keeping
            shown = self._shown
        elif self._keeping and assessed is None:
            counts.kept += 1
            self._computed = None
            shown = self.original(plan)
        else:
            before = self._computed
            shown = self._computed = self._compute(plan)
            counts.repeated += before is not None and shown is before
            if before is None or shown is not before:
                counts.tiles_computed += tiles[1] if before is not None or plan.boxes is None else tiles[0]
            if assessed is not None:
                shown = self._judged(plan, shown, assessed.score, seconds)
        self._shown = shown
        return Frame(shown, plan.frame.pts, plan.frame.duration)

    def state(self) -> dict[str, Any]:
        """What is remembered, for a checkpoint."""
        return {
            "computed": self._computed,
            "shown": self._shown if self._shown is not self._computed else None,
            "keeping": self._keeping,
            "counts": {name: list(v) if isinstance(v, list) else v for name, v in vars(self.counts).items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._computed = state["computed"]
        self._shown = state["shown"] if state["shown"] is not None else self._computed
        self._keeping = state["keeping"]
        self.counts = Counts(**state["counts"])
        self.counts.complaints = [(float(seconds), str(why)) for seconds, why in self.counts.complaints]

    def _judged(self, plan: Plan, restored: Pixels, before: float, seconds: float) -> Pixels:
        """The result of an assessed frame, or its original where that is better."""
        after = self._session.assess(restored).score
        why = complaint(before, after, plan.frame.pixels, restored) if self._verify else None
        self._keeping = why is not None
        self._note_scores(before, after if why is None else before)
        if why is None:
            return restored
        self.counts.kept += 1
        self.counts.complaints.append((seconds, why))
        return self.original(plan)

    def _note_scores(self, before: float, after: float) -> None:
        self.counts.before.append(before)
        self.counts.after.append(after)

    def original(self, plan: Plan) -> Pixels:
        """The input of a plan in the size of the result."""
        pixels = plan.frame.pixels
        if self._scale == 1:
            return pixels
        return self._run(pixels, plan, strength=0.0)

    def _compute(self, plan: Plan) -> Pixels:
        pixels, before = plan.frame.pixels, self._computed
        if before is None or (plan.boxes is None and plan.weights is None):
            return self._run(pixels, plan, strength=self._strength)
        if plan.boxes is None:
            new = self._run(pixels, plan, strength=self._strength)
            self._blend(new, before, new, np.s_[:, :], self._spread(plan.weights, new.shape[:2]))
            return new
        if not plan.boxes:
            return before
        out: Pixels = before.copy()
        for box in plan.boxes:
            self._paste(out, before, box, plan)
        return out

    def _paste(self, out: Pixels, before: Pixels, box: Box, plan: Plan) -> None:
        """Compute one part and put it into ``out``."""
        pixels, scale = plan.frame.pixels, self._scale
        height, width = pixels.shape[:2]
        read = box.read(height, width, self._grid)
        new = self._run(pixels[read.top : read.bottom, read.left : read.right], plan, strength=self._strength)
        rows = slice((box.top - read.top) * scale, (box.bottom - read.top) * scale)
        columns = slice((box.left - read.left) * scale, (box.right - read.left) * scale)
        there = np.s_[box.top * scale : box.bottom * scale, box.left * scale : box.right * scale]
        size = ((box.bottom - box.top) * scale, (box.right - box.left) * scale)
        weights = np.ones(size, np.float32)
        if plan.weights is not None:
            blocks = plan.weights[box.top // _BLOCK : -(-box.bottom // _BLOCK), box.left // _BLOCK :]
            weights = self._spread(blocks[:, : -(-(box.right - box.left) // _BLOCK)], size)
        weights *= _ramp(size[0], box.top > 0, box.bottom < height, scale)[:, None]
        weights *= _ramp(size[1], box.left > 0, box.right < width, scale)[None, :]
        self._blend(out, before, new[rows, columns], there, weights)

    def _blend(
        self, out: Pixels, before: Pixels, new: Pixels, there: tuple[slice, slice], weights: NDArray[np.float32]
    ) -> None:
        old = to_unit(before[there])
        out[there] = from_unit(old + weights[..., None] * (to_unit(new) - old), out.dtype)

    def _spread(self, blocks: NDArray[np.float32] | None, size: tuple[int, int]) -> NDArray[np.float32]:
        """Weights of blocks as weights of px, smooth in between."""
        if blocks is None:
            return np.ones(size, np.float32)
        side = _BLOCK * self._scale
        rows, columns = blocks.shape
        image = Image.fromarray(blocks).resize((columns * side, rows * side), Image.Resampling.BILINEAR)
        weights: NDArray[np.float32] = np.array(image, np.float32)
        return weights[: size[0], : size[1]]

    def _run(self, pixels: Pixels, plan: Plan, *, strength: float) -> Pixels:
        restored: Pixels = self._session.restore(
            pixels, scale=self._scale, strength=strength, context=plan.guide.context
        ).image
        return restored


def _ramp(length: int, start: bool, end: bool, scale: int) -> NDArray[np.float32]:
    """Weights along one axis that rise from the edges inside the frame."""
    weights = np.ones(length, np.float32)
    width = min(FEATHER * scale, length // 2)
    rising = (np.arange(width, dtype=np.float32) + 0.5) / max(width, 1)
    if start:
        weights[:width] = rising
    if end:
        weights[length - width :] = rising[::-1]
    return weights
