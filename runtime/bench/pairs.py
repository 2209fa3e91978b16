"""Timing things side by side, so that ratios hold on a machine that has other work too.

Everything runs once per round, in turn: what disturbs one disturbs its neighbours, and ratios of the same round stay
true where times do not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Samples", "interleaved", "ratio"]

# Threads of BLAS and ONNX Runtime spin for a while after their work and would slow down whoever comes next.
_SETTLE = 0.03


@dataclass(frozen=True)
class Samples:
    """Times of one subject, one per round.

    Attributes:
        wall: seconds.
        cpu: seconds of processor time of this process; zeros for what runs in another.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median wall time, seconds."""
        return median(self.wall)


def interleaved(
    subjects: Mapping[str, Callable[[], float | None]],
    *,
    rounds: int,
    warm_up: int = 1,
    settle: float = _SETTLE,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Samples]:
    """Time subjects in turn: A B C A B C ...

    Args:
        subjects: by name, what to time; one that times itself returns seconds.
        rounds: that count.
        warm_up: rounds before them that do not.
        settle: seconds of rest before each, in which threads of the one before stop spinning.
        progress: called after each round with the number done and the total.
    """
    walls: dict[str, list[float]] = {name: [] for name in subjects}
    cpus: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(warm_up + rounds):
        for name, call in subjects.items():
            time.sleep(settle)
            cpu, began = time.process_time(), time.perf_counter()
            own = call()
            wall, spent = time.perf_counter() - began, time.process_time() - cpu
            if turn >= warm_up:
                walls[name].append(wall if own is None else own)
                cpus[name].append(spent if own is None else 0.0)
        if progress is not None:
            progress(turn + 1, warm_up + rounds)
    return {name: Samples(tuple(walls[name]), tuple(cpus[name])) for name in subjects}


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """How many times as long as a reference something takes: the median over rounds of their ratios."""
    return median(a / b for a, b in zip(times, reference, strict=True))
