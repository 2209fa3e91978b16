"""Streams: a source's frames restored as they come, with a bounded age, to a sink or to the caller."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from uare_rt.errors import OutputError, UareError, UsageError
from uare_rt.live.frames import LiveResult
from uare_rt.live.retrying import Retry, capture
from uare_rt.live.sinks import open_sink
from uare_rt.live.sources import open_source
from uare_rt.live.statistics import Recorder
from uare_rt.video.pipeline import Cancelled, Channel
from uare_rt.video.scenes import ContextTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from uare_rt.live.frames import LiveFrame
    from uare_rt.live.sinks import Sink
    from uare_rt.live.sources import Source
    from uare_rt.live.statistics import LiveStatistics
    from uare_rt.session import Session

__all__ = ["LiveOptions", "LiveStream", "stream"]

T = TypeVar("T")
_QUEUED = 2  # frames that wait for the engine where every one is wanted
_PROGRESS_SECONDS = 1.0
_SINK_SECONDS = 30.0  # for one frame; sinks of our own have shorter limits
_LEAVE_SECONDS = 15.0  # a source's own limits are shorter; a caller's iterator has none
_LOG = logging.getLogger("uare_rt.live")


@dataclass(frozen=True)
class LiveOptions:
    """How a stream is restored.

    Attributes:
        scale: output size over input size, one of ``session.scales``.
        strength: 0 keeps frames, 1 restores them fully.
        policy: ``newest``: a frame that waits is replaced by one that arrives, so that frames stay young;
            ``every``: none is left out, and the source is held back while the engine is busy.
        assess_every: frames between two assessments inside a scene.
        skip_above: leave frames of scenes above this score (1..5) as they are; None restores all.
        frames: end after so many delivered; None does not.
        retry: what to do when the source is lost.
    """

    scale: int = 1
    strength: float = 1.0
    policy: Literal["newest", "every"] = "newest"
    assess_every: int = 30
    skip_above: float | None = None
    frames: int | None = None
    retry: Retry = field(default_factory=Retry)

    def check(self, session: Session) -> None:
        """Refuse values out of their range.

        Raises:
            UsageError: naming the first such value.
        """
        if self.scale not in session.scales:
            known = ", ".join(map(str, session.scales))
            raise UsageError(f"scale is {self.scale}, but {session.manifest.name} offers {known}")
        if not 0.0 <= self.strength <= 1.0:
            raise UsageError(f"strength is {self.strength}, but must be from 0 to 1")
        if self.policy not in ("newest", "every"):
            raise UsageError(f"policy is {self.policy!r}, but must be newest or every")
        if self.assess_every < 1:
            raise UsageError(f"assess_every is {self.assess_every}, but must be 1 or more")
        if self.skip_above is not None and not 1 <= self.skip_above <= 5:
            raise UsageError(f"skip_above is {self.skip_above}, but scores go from 1 to 5")
        if self.frames is not None and self.frames < 1:
            raise UsageError(f"frames is {self.frames}, but must be 1 or more")
        self.retry.check()


class _Newest(Channel[T]):
    """A place for one item: a newer one replaces one that waits."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(capacity=1)
        self._recorder = recorder

    def put(self, item: T) -> None:
        with self._changed:
            if self._aborted:
                raise Cancelled
            if self._items:
                self._items.clear()
                self._recorder.count(dropped=1)
            self._items.append(item)
            self._changed.notify_all()


class _ToSink(Channel[T]):
    """One item that waits for a sink, which must not stand still."""

    def __init__(self) -> None:
        super().__init__(capacity=1)

    def put(self, item: T) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._aborted or not self._items, _SINK_SECONDS):
                raise _standing_still()
            if self._aborted:
                raise Cancelled
            self._items.append(item)
            self._changed.notify_all()


def _standing_still() -> OutputError:
    return OutputError(f"the sink took no frame for {_SINK_SECONDS:g} s; what it holds is left behind")


class LiveStream:
    """A source under restoration. Iterate over it for the results, or `run` it into a sink; once, either way.

    The source is read in a thread of its own, the engine works in the caller's. Between them wait one frame
    (``newest``) or two (``every``), so no memory grows and no frame gets older than the engine makes it.

    Args:
        source: what `sources.open_source` takes.
        session: a nano session; it is not closed.
        options: how to restore.

    Raises:
        UsageError: an option is out of its range, or the text names no source.
    """

    def __init__(
        self, source: str | Source | Iterable[Any], session: Session, options: LiveOptions | None = None
    ) -> None:
        self._options = options or LiveOptions()
        self._options.check(session)
        self._session = session
        self._source = open_source(source)
        self._tracker = ContextTracker(session, every=self._options.assess_every)
        self._recorder = Recorder()
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._frames: Channel[LiveFrame] = (
            _Newest(self._recorder) if self._options.policy == "newest" else Channel(_QUEUED)
        )

    @property
    def statistics(self) -> LiveStatistics:
        """The counters now; may be asked from any thread, and after the end."""
        return self._recorder.snapshot()

    def stop(self) -> None:
        """End the stream after the frame under way; from any thread."""
        self._stopped.set()
        self._frames.end()

    def __iter__(self) -> Iterator[LiveResult]:
        """Restored frames as they come.

        Raises:
            InputError: the source is not there, or stayed lost.
            BackendError: the model failed.
        """
        for result in self._results():
            self._recorder.delivered(result.taken)
            yield result

    def run(
        self,
        sink: str | Sink | Callable[[LiveResult], object],
        *,
        progress: Callable[[LiveStatistics], object] | None = None,
        overwrite: bool = False,
    ) -> LiveStatistics:
        """Restore everything into a sink, until the source ends, `stop` is called, or something fails.

        What reached the sink before an end of any kind is completed: a recording is a whole file also when the camera
        was lost for good. Only where the sink itself fails nothing is left.

        Args:
            sink: what `sinks.open_sink` takes.
            progress: called about every second, in this thread.
            overwrite: whether an existing file may be replaced.

        Raises:
            InputError: the source is not there, or stayed lost.
            BackendError: the model failed.
            OutputError: the sink failed.
            UsageError: the text names no sink.
        """
        opened = open_sink(sink, overwrite=overwrite)
        outgoing: _ToSink[LiveResult] = _ToSink()
        failures: list[BaseException] = []

        def write() -> None:
            try:
                for result in outgoing:
                    copies = opened.write(result, self._source.rate)
                    self._recorder.count(copies=copies)
                    self._recorder.delivered(result.taken)
            except Cancelled:
                pass
            # Whatever it is, it is raised again in the caller's thread.
            except BaseException as error:
                failures.append(error)
                outgoing.abort()
                self.stop()

        writer = threading.Thread(target=write, name="uare-live-sink", daemon=True)
        writer.start()
        told = time.monotonic()
        results = self._results()
        try:
            for result in results:
                outgoing.put(result)
                if progress is not None and time.monotonic() - told >= _PROGRESS_SECONDS:
                    told = time.monotonic()
                    progress(self.statistics)
        except Cancelled:
            pass  # the sink's failure follows
        finally:
            self.stop()
            outgoing.end()
            writer.join(_SINK_SECONDS)
            results.close()
            if failures:
                opened.discard()
            elif not writer.is_alive():
                opened.finish()
        if failures:
            raise failures[0]
        if writer.is_alive():
            raise _standing_still()
        return self.statistics

    def _results(self) -> Generator[LiveResult, None, None]:
        if self._stopped.is_set():
            raise UsageError("this stream has ended; make a new LiveStream")
        reader = threading.Thread(target=self._read, name="uare-live-source", daemon=True)
        reader.start()
        done = 0
        try:
            for frame in self._frames:
                if self._stopped.is_set():
                    break
                yield self._restored(frame)
                done += 1
                if done == self._options.frames:
                    break
        finally:
            self._stopped.set()
            self._frames.abort()
            reader.join(_LEAVE_SECONDS)
            if reader.is_alive():
                _LOG.warning("%s still waits for a frame; it is left behind", self._source.name)
        if self._failure is not None and done != self._options.frames:
            raise self._failure

    def _read(self) -> None:
        frames = capture(self._source, self._options.retry, self._stopped, self._recorder)
        try:
            for frame in frames:
                self._frames.put(frame)
        except Cancelled:
            pass
        # Whatever it is, it is raised again in the caller's thread.
        except BaseException as error:
            self._failure = error
        finally:
            frames.close()
            self._frames.end()

    def _restored(self, frame: LiveFrame) -> LiveResult:
        began = time.monotonic()
        guide = self._tracker.follow(frame.pixels)
        options = self._options
        restored = options.strength > 0 and (options.skip_above is None or guide.score <= options.skip_above)
        strength = options.strength if restored else 0.0
        if strength == 0 and options.scale == 1:
            pixels = frame.pixels
        else:
            pixels = self._session.restore(
                frame.pixels, scale=options.scale, strength=strength, context=guide.context
            ).image
        self._recorder.worked(time.monotonic() - began)
        self._recorder.count(restored=int(restored), passed=int(not restored))
        return LiveResult(pixels, frame.index, frame.time, frame.taken, restored, guide.score, guide.assessment)


def stream(
    source: str | Source | Iterable[Any],
    sink: str | Sink | Callable[[LiveResult], object],
    *,
    session: Session | None = None,
    options: LiveOptions | None = None,
    overwrite: bool = False,
) -> LiveStatistics:
    """Restore a live source into a sink until it ends.

    ::

        uare_rt.stream("rtsp://camera/1", "gst:videoconvert ! autovideosink")
        uare_rt.stream("/dev/video0", lambda result: publish(result.pixels))

    Args:
        source: a text (``synthetic``, ``/dev/video0``, a URL, ``gst:PIPELINE``, a file), an iterable of arrays, or a
            `live.Source`.
        sink: a text (``null``, a file, a URL, ``gst:PIPELINE``), a function of a `live.LiveResult`, or a `live.Sink`.
        session: a nano session; None loads the shipped one.
        options: how to restore.
        overwrite: whether an existing file may be replaced.

    Returns:
        What was counted.

    Raises:
        UareError: as `live.LiveStream.run`.
    """
    if session is not None:
        return LiveStream(source, session, options).run(sink, overwrite=overwrite)
    from uare_rt.session import Session, load

    with load() as loaded:
        if not isinstance(loaded, Session):
            raise UareError("the shipped bundle is no nano bundle; pass a session")
        return LiveStream(source, loaded, options).run(sink, overwrite=overwrite)
