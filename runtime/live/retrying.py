"""Sources that come back: frames of one source over losses, with waits between the tries that grow."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uare_rt.errors import InputError, UsageError
from uare_rt.live.frames import LiveFrame

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator, Iterator

    from uare_rt.live.frames import Shot
    from uare_rt.live.sources import Source
    from uare_rt.live.statistics import Recorder

__all__ = ["Retry", "capture"]

_LOG = logging.getLogger("uare_rt.live")
_LEAST_STEP = 1e-6  # seconds between two frames' times


@dataclass(frozen=True)
class Retry:
    """What to do when a source is lost.

    Attributes:
        attempts: openings that may fail in a row before the stream ends with an error; 0 ends it at the first loss.
        first: seconds before the first try.
        factor: of every further wait over the one before.
        longest: seconds that a wait grows to.
        steady: seconds of frames after which a source counts as found; one that is lost sooner has failed once more.
    """

    attempts: int = 10
    first: float = 0.5
    factor: float = 2.0
    longest: float = 8.0
    steady: float = 5.0

    def check(self) -> None:
        """Refuse values out of their range.

        Raises:
            UsageError: naming them.
        """
        least = min(self.attempts, self.first, self.factor - 1, self.longest - self.first, self.steady)
        if not least >= 0:  # also for NaN
            raise UsageError(f"{self} is out of range: attempts and waits from 0 on, factor from 1, longest from first")

    def wait(self, attempt: int) -> float:
        """Seconds before the try of that number, from 0 on."""
        return float(min(self.longest, self.first * self.factor ** min(attempt, 64)))


def capture(
    source: Source, retry: Retry, stopped: threading.Event, recorder: Recorder
) -> Generator[LiveFrame, None, None]:
    """Frames of a source until it ends, until ``stopped``, or until it stays lost. Opens and closes it.

    A source that was never there is an error at once; one that is lost later is opened again if it would go on.

    Raises:
        InputError: it cannot be opened, or stayed lost.
    """
    clock = _Clock()
    index, failed = 0, 0
    while True:
        away, began = failed > 0, 0.0
        try:
            if away and stopped.wait(retry.wait(failed - 1)):
                return
            source.open()
            clock.restart()
            for frame in _shots(source, stopped, recorder, clock, index):
                if away:
                    _LOG.warning("%s: found again", source.name)
                    recorder.count(reconnects=1)
                    away, began = False, frame.taken
                if failed and frame.taken - began >= retry.steady:
                    failed = 0
                index = frame.index + 1
                yield frame
            if source.ends or stopped.is_set():
                return
            raise InputError(f"{source.name}: the stream ended")
        except InputError as error:  # losses are rare
            if index == 0 or retry.attempts == 0 or not source.reopens:
                raise
            if failed == retry.attempts:
                raise InputError(f"{error}; given up after {failed} tries") from error
            if not failed:
                _LOG.warning("%s; trying again, up to %d times", error, retry.attempts)
            failed += 1
        finally:
            source.close()


def _shots(
    source: Source, stopped: threading.Event, recorder: Recorder, clock: _Clock, index: int
) -> Iterator[LiveFrame]:
    damaged = source.damaged
    while not stopped.is_set():
        shot = source.read()
        recorder.count(damaged=source.damaged - damaged)
        damaged = source.damaged
        if shot is None:
            return
        taken = time.monotonic()
        recorder.count(captured=1, copies=shot.copies)
        yield LiveFrame(shot.pixels, index, clock.time_of(shot, taken), taken)
        index += 1


class _Clock:
    """The stream's own time: the source's timestamps while it is open, arrival times from one opening to the next."""

    def __init__(self) -> None:
        self._first: float | None = None  # arrival of the stream's first frame
        self._offset: float | None = None
        self._last = -_LEAST_STEP

    def restart(self) -> None:
        self._offset = None

    def time_of(self, shot: Shot, taken: float) -> float:
        if self._first is None:
            self._first = taken
        arrived = taken - self._first
        if shot.time is None:
            seconds = arrived
        else:
            if self._offset is None:
                self._offset = arrived - shot.time
            seconds = shot.time + self._offset
        self._last = max(seconds, self._last + _LEAST_STEP)
        return self._last
