"""Carrying plans out: compute the planned parts, take the rest from the result before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from uare_rt.video.following import STEADY, Follower
from uare_rt.video.frames import Frame
from uare_rt.video.regions import FEATHER, Box
from uare_rt.video.verifying import complaint

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from numpy.typing import NDArray

    from uare_rt.session import Session
    from uare_rt.video.frames import Pixels
    from uare_rt.video.options import VideoOptions
    from uare_rt.video.planning import Plan

__all__ = ["Computing", "Counts", "FrameRestorer"]

_BLOCK = 8
_MANY = 250  # frames that a video of unknown length is expected to have
Computing: TypeAlias = "dict[Box, Future[Pixels]]"
"""Parts of a frame that are being computed, by what is read for them."""


@dataclass
class Counts:
    """What was done so far.

    Attributes:
        frames: restored, left or repeated, in all.
        repeated: of which nothing was computed again.
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
        options: how to work.
        frames: in all, about; None where nobody knows.
        lanes: parts that are computed side by side where some are begun ahead.
    """

    def __init__(
        self,
        session: Session,
        *,
        scale: int,
        strength: float,
        options: VideoOptions,
        frames: int | None = None,
        lanes: int = 1,
    ) -> None:
        self._session = session
        self._scale = scale
        self._strength = strength
        self._verify = options.verify
        self._compare = options.compare
        self._frames = frames if frames is not None else _MANY
        self._follower = Follower(scale)
        self._computed: Pixels | None = None
        self._followed: Pixels | None = None
        self._keeping = False
        self._lanes = lanes
        self.counts = Counts()

    def ahead(self, plan: Plan, pool: Executor) -> Computing | None:
        """Begin to compute what a plan needs of the model, for `restore`; None where that is not known yet.

        Args:
            plan: the plan, in the order of frames.
            pool: whose threads compute.
        """
        if plan.leave or self._keeping or self._strength == 0:
            return None
        height, width = plan.frame.pixels.shape[:2]
        whole = Box(0, height, 0, width)
        reads = {whole} if plan.boxes is None else {box.read(height, width) for box in plan.boxes}
        return {
            read: pool.submit(self._run, plan.frame.pixels[read.there()], plan, beside=self._lanes) for read in reads
        }

    def begin(self, plan: Plan) -> None:
        """Make up for the results of another run: restore what they stand for, and count nothing."""
        self._followed = self._compute(plan)

    def restore(self, plan: Plan, seconds: float, tiles: tuple[int, int], ready: Computing | None = None) -> Frame:
        """The result for a plan.

        Args:
            plan: what to do.
            seconds: time of the frame, for reports.
            tiles: of the frame, and how many of them the plan computes.
            ready: what `ahead` has begun.
        """
        counts = self.counts
        counts.frames += 1
        counts.tiles += tiles[0]
        assessed = plan.guide.assessment
        if plan.leave or self._strength == 0:
            counts.skipped += plan.leave
            self._computed = None
            shown = self.original(plan)
            if assessed is not None:
                self._note_scores(assessed.score, assessed.score)
        elif self._keeping and assessed is None:
            counts.kept += 1
            self._computed = None
            shown = self.original(plan)
        else:
            whole = self._computed is None or plan.boxes is None
            counts.repeated += not whole and plan.repeats
            counts.tiles_computed += tiles[0] if whole else tiles[1]
            shown = self._followed = self._compute(plan, ready)
            if assessed is not None:
                shown = self._judged(plan, shown, assessed.score, seconds)
        if self._compare:
            shown = _split(self.original(plan), shown)
        return Frame(shown, plan.frame.pts, plan.frame.duration)

    def state(self) -> dict[str, Any]:
        """What is remembered, for a checkpoint."""
        return {
            "computed": self._computed,
            "followed": self._followed if self._computed is not None else None,
            "keeping": self._keeping,
            "counts": {name: list(v) if isinstance(v, list) else v for name, v in vars(self.counts).items()},
            **{f"follower.{name}": value for name, value in self._follower.state().items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._computed, self._followed, self._keeping = state["computed"], state["followed"], state["keeping"]
        self._follower.restore({n.partition(".")[2]: v for n, v in state.items() if n.startswith("follower.")})
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

    def _compute(self, plan: Plan, ready: Computing | None = None) -> Pixels:
        pixels, base, before, follower = plan.frame.pixels, self._computed, self._followed, self._follower
        if base is None or before is None or (plan.boxes is None and plan.weights is None):
            self._computed = self._made(Box(0, pixels.shape[0], 0, pixels.shape[1]), plan, ready)
            follower.begin(pixels)
            return self._computed
        height, width = pixels.shape[:2]
        boxes = plan.boxes if plan.boxes is not None else (Box(0, height, 0, width),)
        if boxes:
            whole = boxes == (Box(0, height, 0, width),)
            base = self._computed = np.empty_like(base) if whole else base.copy()
            for box in boxes:
                self._paste(base, before, box, plan, ready)
        elif plan.exact and follower.still:
            return before
        follower.advance(pixels, [box.there() for box in boxes])
        return follower.add(base)

    def _paste(self, base: Pixels, before: Pixels, box: Box, plan: Plan, ready: Computing | None) -> None:
        """Compute one part and put it into ``base``, blended with what was shown ``before``."""
        pixels, scale = plan.frame.pixels, self._scale
        height, width = pixels.shape[:2]
        read = box.read(height, width)
        new = self._made(read, plan, ready)
        inside = Box(box.top - read.top, box.bottom - read.top, box.left - read.left, box.right - read.left)
        size = (box.bottom - box.top, box.right - box.left)
        if plan.weights is None:
            weights = np.ones(size, np.float32)
        else:
            blocks = plan.weights[box.top // _BLOCK : -(-box.bottom // _BLOCK), box.left // _BLOCK :]
            weights = _spread(blocks[:, : -(-size[1] // _BLOCK)], size)
        still = weights <= STEADY
        weights *= _ramp(size[0], box.top > 0, box.bottom < height)[:, None]
        weights *= _ramp(size[1], box.left > 0, box.right < width)[None, :]
        results = new[inside.there(scale)], before[box.there(scale)], base[box.there(scale)]
        self._follower.settle(box.there(), pixels, results, still, weights)

    def _made(self, part: Box, plan: Plan, ready: Computing | None) -> Pixels:
        """What the model makes of a part, computed ahead or now."""
        if ready is not None and part in ready:
            return ready[part].result()
        return self._run(plan.frame.pixels[part.there()], plan)

    def _run(self, pixels: Pixels, plan: Plan, *, strength: float | None = None, beside: int = 1) -> Pixels:
        whole = plan.frame.pixels.shape[0] * plan.frame.pixels.shape[1]
        restored: Pixels = self._session.restore(
            pixels,
            scale=self._scale,
            strength=self._strength if strength is None else strength,
            context=plan.guide.context,
            ahead=self._frames * whole,
            beside=beside,
            part=pixels.shape != plan.frame.pixels.shape,
        ).image
        return restored


def _split(original: Pixels, restored: Pixels) -> Pixels:
    """Left as it was, right restored, a white line between them."""
    middle = restored.shape[1] // 2
    both: Pixels = restored.copy()
    both[:, :middle] = original[:, :middle]
    both[:, max(middle - 1, 0) : middle + 1] = np.iinfo(both.dtype).max
    return both


def _spread(blocks: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Weights of blocks as weights of px, smooth in between."""
    rows, columns = blocks.shape
    image = Image.fromarray(blocks).resize((columns * _BLOCK, rows * _BLOCK), Image.Resampling.BILINEAR)
    weights: NDArray[np.float32] = np.array(image, np.float32)
    return weights[: size[0], : size[1]]


def _ramp(length: int, start: bool, end: bool) -> NDArray[np.float32]:
    """Weights along one axis that rise from the edges inside the frame."""
    weights = np.ones(length, np.float32)
    width = min(FEATHER, length // 2)
    rising = (np.arange(width, dtype=np.float32) + 0.5) / max(width, 1)
    if start:
        weights[:width] = rising
    if end:
        weights[length - width :] = rising[::-1]
    return weights
