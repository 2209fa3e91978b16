"""What to compute of each frame: everything, what changed, or nothing at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.video.changes import ChangeDetector
from uare_rt.video.frames import Frame
from uare_rt.video.regions import CELL, plan_boxes
from uare_rt.video.scenes import ContextTracker, Guide

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.session import Session
    from uare_rt.video.options import VideoOptions
    from uare_rt.video.regions import Box

__all__ = ["FramePlanner", "Plan"]

_REFRESH_SECONDS = 8


@dataclass(frozen=True, eq=False)
class Plan:
    """What to do with a frame.

    Attributes:
        frame: the input.
        guide: what to restore it with.
        boxes: parts to compute; None computes all of it, none at all repeats the result before.
        weights: float32, per block of 8 px the weight of a new result against the one before; None takes the new one.
        leave: the frame is good as it is.
        exact: the frame is the very one that the result before was computed from.
    """

    frame: Frame
    guide: Guide
    boxes: tuple[Box, ...] | None
    weights: NDArray[np.float32] | None
    leave: bool = False
    exact: bool = False

    @property
    def repeats(self) -> bool:
        """Whether the result before is taken over whole."""
        return self.boxes is not None and not self.boxes and not self.leave


class FramePlanner:
    """Plans frame after frame.

    Args:
        session: assesses frames.
        rate: frames per second.
        options: what the caller asked for.
    """

    def __init__(self, session: Session, rate: float, options: VideoOptions) -> None:
        self._tracker = ContextTracker(session, every=options.assess_every)
        self._changes = ChangeDetector(max(2, round(rate * _REFRESH_SECONDS)))
        self._reuse = options.reuse
        self._skip_above = options.skip_above
        self._last: Guide | None = None

    @property
    def scenes(self) -> int:
        """Scenes found so far."""
        return self._tracker.scenes

    def standing(self) -> Plan | None:
        """A plan for what the result so far stands for, to begin from the state of another run; None for nothing."""
        if self._changes.reference is None or self._last is None:
            return None
        return Plan(Frame(self._changes.reference, 0, None), self._last, None, None)

    def plan(self, frame: Frame) -> Plan:
        """Plan the next frame."""
        change = self._changes.compare(frame.pixels)
        if change is not None and change.exact and self._reuse and self._last is not None:
            return Plan(frame, self._last._replace(assessment=None, cut=False), (), None, exact=True)
        guide = self._tracker.follow(frame.pixels)
        context_kept = self._last is not None and guide.context is self._last.context
        self._last = guide
        if self._skip_above is not None and guide.score > self._skip_above:
            self._changes.forget()
            return Plan(frame, guide, (), None, leave=True)
        if change is None or guide.cut or not context_kept:
            self._changes.computed(frame.pixels, None)
            return Plan(frame, guide, None, None)
        height, width = frame.pixels.shape[:2]
        boxes = plan_boxes(change.cells, height, width) if self._reuse else None
        self._changes.computed(frame.pixels, boxes)
        return Plan(frame, guide, boxes, change.weights)

    def tiles(self, plan: Plan) -> tuple[int, int]:
        """Tiles of 16 px of a frame: how many in all, and how many the plan computes."""
        height, width = plan.frame.pixels.shape[:2]
        every = np.zeros((-(-height // CELL), -(-width // CELL)), np.bool_)
        for box in plan.boxes if plan.boxes is not None else ():
            every[box.inner(height, width)] = True
        return every.size, every.size if plan.boxes is None else int(every.sum())

    def state(self) -> dict[str, Any]:
        """What is remembered, for a checkpoint."""
        return {
            **{f"tracker.{name}": value for name, value in self._tracker.state().items()},
            **{f"changes.{name}": value for name, value in self._changes.state().items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        parts: dict[str, dict[str, Any]] = {"tracker": {}, "changes": {}}
        for name, value in state.items():
            part, _, key = name.partition(".")
            parts[part][key] = value
        self._tracker.restore(parts["tracker"])
        self._changes.restore(parts["changes"])
        self._last = self._tracker.current()
