"""`uare-rt live`: a camera restored as it films."""

from __future__ import annotations

import signal
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from uare_rt.cli.console import Meter, emit, emit_json
from uare_rt.cli.options import BackendOption, BundleOption, JsonOption, OverwriteOption, ThreadsOption
from uare_rt.cli.restore import Scale
from uare_rt.cli.unified import is_unified
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from uare_rt.live import LiveStatistics

__all__ = ["live"]


class Policy(str, Enum):
    """What happens to frames that arrive while the engine is busy."""

    newest = "newest"
    every = "every"


def live(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="/dev/videoN, a URL (rtsp://...), gst:PIPELINE, a file (at its own speed), synthetic[:WxH@FPS].",
        ),
    ],
    sink: Annotated[
        str,
        typer.Argument(
            metavar="SINK",
            help="A video file, a URL (rtsp://, rtmp://, udp://, tcp://, srt://), gst:PIPELINE, or null.",
        ),
    ],
    scale: Annotated[Scale, typer.Option("--scale", help="Enlarge by this factor.")] = Scale.x1,
    strength: Annotated[
        float,
        typer.Option("--strength", min=0.0, max=1.0, metavar="S", help="0 leaves frames alone, 1 restores fully."),
    ] = 1.0,
    policy: Annotated[
        Policy, typer.Option("--policy", help="newest: drop frames that wait; every: hold the source back.")
    ] = Policy.newest,
    assess_every: Annotated[
        int, typer.Option("--assess-every", min=1, metavar="N", help="Frames between two assessments in a scene.")
    ] = 30,
    skip_above: Annotated[
        float | None,
        typer.Option("--skip-above", min=1.0, max=5.0, metavar="SCORE", help="Leave scenes above this score alone."),
    ] = None,
    frames: Annotated[int | None, typer.Option("--frames", min=1, metavar="N", help="End after N frames.")] = None,
    retries: Annotated[
        int, typer.Option("--retries", min=0, metavar="N", help="Tries to find a lost source again, 0.5 to 8 s apart.")
    ] = 10,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Restore a live source into a sink until it ends, or until Ctrl-C or SIGTERM.

    Frames keep the time at which they were taken. A recording is complete however the stream ends: also when the
    camera was lost for good (exit code 1) or the run was interrupted (130).

    With --json, one object: source, sink, captured, dropped, restored, passed, delivered, damaged, reconnects, copies,
    seconds, rate, and latency (arrival to sink) and engine with p50, p90, p99 and longest in milliseconds.
    """
    import uare_rt
    from uare_rt.live import LiveOptions, LiveStream, Retry

    with uare_rt.load(bundle, backend=backend, threads=threads) as session:
        if is_unified(session):
            raise UsageError(f"{session.manifest.name} is too slow for live video; take a uare-nano bundle")
        options = LiveOptions(
            scale=int(scale.value),
            strength=strength,
            policy=policy.value,
            assess_every=assess_every,
            skip_above=skip_above,
            frames=frames,
            retry=Retry(attempts=retries),
        )
        stream = LiveStream(source, session, options)
        # A service is stopped with SIGTERM: as Ctrl-C does, it must leave a complete recording.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with Meter(1) as meter:
                meter.start(source)
                stream.run(sink, overwrite=overwrite, progress=lambda counts: _show(meter, counts, frames))
        finally:
            signal.signal(signal.SIGTERM, before)
            if stream.statistics.captured:
                _report(source, sink, stream.statistics, as_json=as_json)


def _show(meter: Meter, counts: LiveStatistics, frames: int | None) -> None:
    standing = f"{counts.latency.p50:.0f} ms late, {counts.dropped} dropped"
    meter.update(counts.delivered, frames, counts.rate, "frames", standing)


def _report(source: str, sink: str, counts: LiveStatistics, *, as_json: bool) -> None:
    if as_json:
        emit_json({"source": source, "sink": sink, **counts.to_dict()})
        return
    late = counts.latency
    emit(
        f"{source} -> {sink}: {counts.delivered} frames, {counts.rate:.1f} frames/s, {counts.dropped} dropped, "
        f"latency {late.p50:.0f} ms (p99 {late.p99:.0f}), engine {counts.engine.p50:.0f} ms, "
        f"{counts.reconnects} reconnects"
    )
