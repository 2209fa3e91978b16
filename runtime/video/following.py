"""What is not computed again still follows the input: small change is passed on as the model would have passed it on.

A codec mends a still picture little by little, and noise shows differently in every frame. Both are too small to be
worth the model's work, but together they would leave the result behind. So the input runs through a filter in time,
and the change since a part was computed is added to its result, weakened as the model weakens such change: about 1
where it leaves the picture alone, near 0 where it takes noise away. How much that is shows wherever a part that stands
still is computed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from uare_rt.video.blending import add_changes, advance_drift, blend, greatest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.video.frames import Pixels

__all__ = ["STEADY", "Follower"]

STEADY = 0.35
"""Weight of a new frame, or a new result, where the picture stands still."""
_MEMORY = 0.9  # weight of what was known about the response before, for every new measurement
_NOTHING = 1 / 4  # of a level of 255, below which no change is left


class Follower:
    """Remembers the filtered input, and how much of its change belongs into the result.

    Args:
        scale: of the result.
    """

    def __init__(self, scale: int) -> None:
        self._scale = scale
        self._input: Pixels | None = None
        self._own = False  # whether nobody else holds that array, so that it may be written to
        self._drift: NDArray[np.float32] | None = None
        self._moved = 0.0
        self._answered = 0.0

    @property
    def still(self) -> bool:
        """Whether the result stands for the input as it is, so that nothing has to be added."""
        return self._drift is None

    @property
    def response(self) -> float:
        """Part of a small change of the input that the model lets through, 0..1; 0 before it was seen."""
        return min(max(self._answered / self._moved, 0.0), 1.0) if self._moved else 0.0

    def begin(self, frame: Pixels) -> None:
        """The whole of ``frame`` (uint8 or uint16 [H, W, 3]) was computed and nothing before it counts."""
        self._input, self._drift, self._own = frame, None, False

    def settle(
        self,
        part: tuple[slice, slice],
        frame: Pixels,
        results: tuple[Pixels, Pixels, Pixels],
        still: NDArray[np.bool_],
        weights: NDArray[np.float32],
    ) -> None:
        """A part of the result was computed again: blend it, learn from it, and stand for the input blended alike.

        Args:
            part: rows and columns of the input.
            frame: the input, whole.
            results: of the part, [scale * h, scale * w, 3]: the new one, the one that was shown, and where both go.
            still: bool [h, w], where only small change is.
            weights: float32 [h, w], of the new frame against what was there.
        """
        assert self._input is not None  # `begin` comes before any part
        if not self._own:
            self._input, self._own = self._input.copy(), True
        made, shown, out = results
        moved, answered = blend(
            given=frame[part],
            made=made,
            shown=shown,
            there=self._input[part],
            out=out,
            drift=None if self._drift is None else self._drift[part],
            still=still,
            weights=weights,
        )
        self._moved = _MEMORY * self._moved + moved
        self._answered = _MEMORY * self._answered + answered

    def advance(self, frame: Pixels, settled: list[tuple[slice, slice]]) -> None:
        """Take in the next frame, where it was not settled already."""
        assert self._input is not None  # `begin` comes before any other frame
        if any(frame[part].shape == frame.shape for part in settled):
            self._drift = None
            return
        drift = np.zeros(frame.shape, np.float32) if self._drift is None else self._drift
        advance_drift(frame, self._input, STEADY, drift)
        for part in settled:
            drift[part] = 0
        nothing = _NOTHING * np.iinfo(frame.dtype).max / 255
        self._drift = drift if greatest(drift) >= nothing else None

    def add(self, base: Pixels) -> Pixels:
        """A result with the change since its parts were computed: uint8 or uint16 [scale * H, scale * W, 3]."""
        response = np.float32(self.response)
        if self._drift is None or response == 0:
            return base
        return add_changes(base, _enlarged(self._drift, self._scale), float(response))

    def state(self) -> dict[str, Any]:
        """What is remembered, for a checkpoint."""
        self._own = False
        drift = None if self._drift is None else self._drift.copy()
        return {"input": self._input, "drift": drift, "moved": self._moved, "answered": self._answered}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._input, self._drift, self._own = state["input"], state["drift"], False
        self._moved, self._answered = state["moved"], state["answered"]


def _enlarged(drift: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    if scale == 1:
        return drift
    size = (drift.shape[1] * scale, drift.shape[0] * scale)
    channels = (Image.fromarray(np.ascontiguousarray(drift[..., c])) for c in range(3))
    return np.stack([np.asarray(c.resize(size, Image.Resampling.BILINEAR), np.float32) for c in channels], axis=-1)
