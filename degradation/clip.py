"""Degradation of clips: one scene, so parameters are drawn once; only noise fields change from frame to frame.

Map of compression: H.264 (x264) at CRF 15 + 36 * severity, 4:2:0, one group of pictures over the clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from uare_rt.degradation.composition import Step, combine, draw_effect
from uare_rt.degradation.light import from_uint8, to_uint8
from uare_rt.errors import BackendUnavailableError, UsageError

__all__ = ["DegradedClip", "degrade_clip", "h264_crf"]


@dataclass(frozen=True)
class DegradedClip:
    """A clip and what was done to it.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB.
        severities: severity 0..1 for every name in ``uare_rt.slots.DEGRADATIONS``; 0 where absent.
    """

    frames: NDArray[np.uint8]
    severities: dict[str, float]


def h264_crf(severity: float) -> int:
    """Constant rate factor of x264, 15 to 51, at a severity 0..1."""
    return round(15 + 36 * severity)


def _through_h264(frames: NDArray[np.uint8], crf: int) -> NDArray[np.uint8]:
    import av

    height, width = frames.shape[1:3]
    even = np.pad(frames, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)], mode="edge")
    try:
        encoder = av.CodecContext.create("libx264", "w")
    except av.FFmpegError as error:
        raise BackendUnavailableError(
            "this FFmpeg has no H.264 encoder (libx264); install the av wheel from PyPI"
        ) from error
    encoder.width, encoder.height, encoder.pix_fmt = even.shape[2], even.shape[1], "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.thread_count = 1  # the bits must not depend on the machine's cores
    # Macroblock trees with B-frames gave other bits from run to run (x264 as in PyAV's wheels, one thread).
    encoder.options = {"crf": str(crf), "preset": "veryfast", "mbtree": "0"}
    decoder = av.CodecContext.create("h264", "r")
    packets = []
    for index, pixels in enumerate(even):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = index, encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return np.stack([frame.to_ndarray(format="rgb24")[:height, :width] for frame in decoded])


def degrade_clip(frames: NDArray[np.uint8], steps: Sequence[Step], rng: np.random.Generator) -> DegradedClip:
    """Apply steps in the order given to a whole clip; ``compression`` is H.264 over all frames.

    Args:
        frames: uint8 [T, H, W, 3], RGB, T >= 1; not changed.
        steps: as for ``compose``; a variant given for compression is refused, the codec is H.264.
        rng: source of every random choice.

    Raises:
        UsageError: frames are not uint8 [T, H, W, 3], or a compression step names an image codec.
        BackendUnavailableError: PyAV was built without an H.264 encoder.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
        raise UsageError(
            f"a clip is uint8 [T, H, W, 3] with at least one frame, not {frames.dtype} {list(frames.shape)}"
        )
    labels: list[Mapping[str, float]] = []
    for step in steps:
        if step.kind == "compression":
            if step.variant is not None:
                raise UsageError(f"clips are compressed by H.264, not {step.variant}; leave the variant out")
            if step.severity > 0:
                frames = _through_h264(frames, h264_crf(step.severity))
                labels.append({"compression": step.severity})
            continue
        effect = draw_effect(step, rng)
        if effect is not None:
            frames = np.stack([to_uint8(effect.apply(from_uint8(frame), rng)) for frame in frames])
            labels.append(effect.severities)
    return DegradedClip(frames, combine(labels))
