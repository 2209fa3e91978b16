"""What a stream counts: frames, drops, copies, and how long things took."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["LiveStatistics", "Recorder", "Spread"]

_REMEMBERED = 4096  # newest frames that percentiles are of, so that memory does not grow with the stream


@dataclass(frozen=True)
class Spread:
    """How a duration was distributed over the newest 4,096 frames, in milliseconds.

    Attributes:
        p50: median.
        p90: 90 % were shorter.
        p99: 99 % were shorter.
        longest: of all frames, not only the newest.
    """

    p50: float
    p90: float
    p99: float
    longest: float


@dataclass(frozen=True)
class LiveStatistics:
    """Counters of a stream, at one moment.

    Attributes:
        captured: pictures that arrived from the source.
        dropped: of them, replaced by a newer one before the engine was free (only where the newest wins).
        restored: through the engine.
        passed: left as they were, or only enlarged, because their scene was good enough.
        delivered: handed to the sink or the caller.
        damaged: packets of the source that could not be decoded.
        reconnects: times that a lost source was found again.
        copies: whole pictures copied or converted outside the engine, between source and sink.
        seconds: since the stream began.
        latency: from arrival to delivered.
        engine: one frame's assessment and restoration.
    """

    captured: int
    dropped: int
    restored: int
    passed: int
    delivered: int
    damaged: int
    reconnects: int
    copies: int
    seconds: float
    latency: Spread
    engine: Spread

    @property
    def rate(self) -> float:
        """Delivered frames per second."""
        return self.delivered / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; durations in milliseconds."""
        return {**asdict(self), "rate": self.rate}


class _Durations:
    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=_REMEMBERED)
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        self._newest.append(seconds * 1e3)
        self._longest = max(self._longest, seconds * 1e3)

    def spread(self) -> Spread:
        if not self._newest:
            return Spread(0.0, 0.0, 0.0, 0.0)
        p50, p90, p99 = (float(value) for value in np.percentile(np.array(self._newest), (50, 90, 99)))
        return Spread(p50, p90, p99, self._longest)


class Recorder:
    """Counts, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(
            ("captured", "dropped", "restored", "passed", "delivered", "damaged", "reconnects", "copies"), 0
        )
        self._latency, self._engine = _Durations(), _Durations()
        self._began = time.monotonic()

    def count(self, **amounts: int) -> None:
        """Add to counters, named as in `LiveStatistics`."""
        with self._lock:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def worked(self, seconds: float) -> None:
        """Note the engine's time for a frame."""
        with self._lock:
            self._engine.add(seconds)

    def delivered(self, taken: float) -> None:
        """Note a frame that reached its sink; ``taken`` as in `LiveFrame`."""
        with self._lock:
            self._counts["delivered"] += 1
            self._latency.add(time.monotonic() - taken)

    def snapshot(self) -> LiveStatistics:
        """The counters now."""
        with self._lock:
            return LiveStatistics(
                **self._counts,
                seconds=time.monotonic() - self._began,
                latency=self._latency.spread(),
                engine=self._engine.spread(),
            )
