"""Blending a result that was computed again with the one before, and passing on small change: sums over every sample.

What is compiled (`uare_rt.compiled`) does it in one pass; NumPy does the same in several, some rows at a time. They
round alike but where the last bit of a float decides: one of a million samples of 8 bits, 3 of 10,000 of 16, at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from uare_rt.video.frames import Pixels

__all__ = ["GREEN", "add_changes", "advance_drift", "blend", "greatest"]

GREEN = 1
"""The channel that stands for all where one does: nearest to light."""
_ROWS = 16  # of a frame, at once: what is computed of them stays in the cache


def blend(
    *,
    given: Pixels,
    made: Pixels,
    shown: Pixels,
    there: Pixels,
    out: Pixels,
    drift: NDArray[np.float32] | None,
    still: NDArray[np.bool_],
    weights: NDArray[np.float32],
) -> tuple[float, float]:
    """Blend a part of a frame and of its result with what was there.

    Args:
        given: the input, uint8 or uint16 [h, w, 3].
        made: its result, [S * h, S * w, 3].
        shown: the result that was shown; the same shape.
        there: the filtered input, changed to the blended one.
        out: where the blended result goes.
        drift: float32 [h, w, 3], how far ``there`` had moved away from what ``shown`` stands for.
        still: bool [h, w], where only small change is.
        weights: float32 [h, w], of the new against the old, 0 to 1.

    Returns:
        The change of the input's green where it is still, squared, and multiplied with that of the result; summed up.
    """
    frames = {"given": given, "made": made, "shown": shown, "there": there, "out": out}
    sums = compiled.blend(frames, drift, still, weights)
    if sums is not None:
        return sums
    (height, width), scale = weights.shape, made.shape[0] // weights.shape[0]
    moved = answered = 0.0
    for rows in _row_blocks(height):
        before = there[rows].astype(np.float32)
        if drift is not None:
            before += drift[rows]
        change = given[rows] - before
        small = change[..., GREEN] * still[rows]
        lines = slice(rows.start * scale, min(rows.stop, height) * scale)
        answer = np.subtract(made[lines], shown[lines], dtype=np.float32)
        green = answer[..., GREEN].reshape(-1, scale, width, scale).mean(axis=(1, 3))
        moved += float(np.einsum("hw,hw->", small, small))
        answered += float(np.einsum("hw,hw->", small, green))
        change *= _of_samples(weights[rows])
        before += change
        there[rows] = np.rint(before, out=before)
        answer *= _of_samples(weights[rows].repeat(scale, 0).repeat(scale, 1))
        answer += shown[lines]
        # Between two results: nothing to clip.
        out[lines] = np.rint(answer, out=answer)
    return moved, answered


def advance_drift(frame: Pixels, reference: Pixels, steady: float, drift: NDArray[np.float32]) -> None:
    """Move a drift, float32 [H, W, 3], on to what a frame differs from a reference by, by that share of the way."""
    if compiled.advance_drift(frame, reference, steady, drift):
        return
    for rows in _row_blocks(len(frame)):
        change = np.subtract(frame[rows], reference[rows], dtype=np.float32)
        change *= steady
        drift[rows] *= 1 - steady
        drift[rows] += change


def greatest(values: NDArray[np.float32]) -> float:
    """The greatest size of any value."""
    found = compiled.greatest(values)
    return max(float(values.max()), -float(values.min())) if found is None else found


def add_changes(base: Pixels, changes: NDArray[np.float32], response: float) -> Pixels:
    """A result with changes, float32 of its shape, added by a share: clipped and rounded."""
    out = np.empty_like(base)
    if compiled.add_changes(base, changes, response, out):
        return out
    for rows in _row_blocks(len(base)):
        moved = changes[rows] * np.float32(response)
        moved += base[rows]
        np.clip(moved, 0, np.iinfo(base.dtype).max, out=moved)
        out[rows] = np.rint(moved, out=moved)
    return out


def _row_blocks(height: int) -> Iterator[slice]:
    return (slice(row, row + _ROWS) for row in range(0, height, _ROWS))


def _of_samples(values: NDArray[Any]) -> NDArray[Any]:
    """Values of px for each of their samples: [H, W] -> [H, W, 3]; computing with a broadcast third axis is slow."""
    samples = np.empty((*values.shape, 3), values.dtype)
    for channel in range(3):
        samples[..., channel] = values
    return samples
