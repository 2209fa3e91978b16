"""What a caller may choose when a video is restored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from uare_rt.video.opening import RawFormat

__all__ = ["VideoOptions"]


@dataclass(frozen=True)
class VideoOptions:
    """How the result is encoded, and how the work is done.

    Attributes:
        codec: encoder, a name of `encoding.ENCODERS`; None takes hardware where it works, else libx264,
            libx265 for HDR, VP9 for ``.webm``.
        crf: constant rate factor; None takes the encoder's default here, near the source's quality.
        bit_rate: bits per second instead of a constant quality.
        preset: the encoder's speed preset (``cpu-used`` for VP9).
        pix_fmt: pixel format of the result; None takes the encoder's nearest to the source's.
        assess_every: frames between two assessments inside a scene.
        reuse: take over what did not change since the frame before instead of computing it again.
        skip_above: leave frames as they are while their score (1..5) is above this.
        verify: look at sampled results again and keep the original where it was better.
        compare: left half as it was, right half restored.
        deinterlace: make interlaced frames whole first; without it, interlaced video is refused.
        start: restore from this many seconds on.
        end: restore up to here, in seconds of the source.
        sample: restore this many seconds from the middle of the range.
        rate: frames per second of numbered images.
        raw: what headerless frames on standard input look like; the result has the same form. None: Y4M on both sides.
    """

    codec: str | None = None
    crf: int | None = None
    bit_rate: int | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    assess_every: int = 48
    reuse: bool = True
    skip_above: float | None = None
    verify: bool = False
    compare: bool = False
    deinterlace: bool = False
    start: float | None = None
    end: float | None = None
    sample: float | None = None
    rate: Fraction = Fraction(25)
    raw: RawFormat | None = None

    def check(self) -> None:
        """Refuse values out of their range.

        Raises:
            UsageError: naming the first such value.
        """
        if self.assess_every < 1:
            raise UsageError(f"assess_every {self.assess_every} is out of range; choose 1 or more")
        if self.skip_above is not None and not 1 <= self.skip_above <= 5:
            raise UsageError(f"skip_above {self.skip_above} is out of range; scores go from 1 to 5")
        if self.rate <= 0:
            raise UsageError(f"rate {self.rate} is out of range; give frames per second above 0")
        times = {"start": self.start, "end": self.end, "sample": self.sample}
        for name, seconds in times.items():
            if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
                raise UsageError(f"{name} {seconds} is out of range; give seconds from 0 on")
        if self.end is not None and self.end <= (self.start or 0):
            raise UsageError(f"end {self.end} is not after start {self.start or 0}; nothing would be left")
        if self.sample == 0:
            raise UsageError("sample 0 is out of range; give the seconds to restore")
