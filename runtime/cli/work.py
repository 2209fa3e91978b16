"""Restoring one file: read, restore, keep what belongs to it, write, and say what came out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uare_rt.cli.unified import is_unified, refuse_video, restore_picture
from uare_rt.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uare_rt.cli.console import Meter
    from uare_rt.cli.flow_options import FlowOptions
    from uare_rt.cli.outputs import Job
    from uare_rt.cli.spreading import Spreading
    from uare_rt.session import Session
    from uare_rt.video import VideoOptions, VideoProgress
    from uare_rt.vlm.session import UnifiedSession

__all__ = ["Settings", "preview_job", "restore_job"]


@dataclass(frozen=True)
class Settings:
    """What the caller asked for; the options of `uare-rt restore`."""

    scale: int
    strength: float
    tile: int | None
    overwrite: bool
    video: VideoOptions
    flow: FlowOptions
    resume: bool
    preview: float | None


def preview_job(paths: Sequence[str], out: str, *, overwrite: bool) -> Job:
    """The job of `restore --preview`: one video, one image.

    Raises:
        UsageError: the command line names anything else.
        OutputError: the image exists and `overwrite` is false.
    """
    from uare_rt.cli.inputs import find_sources
    from uare_rt.cli.outputs import Job
    from uare_rt.images import WRITE_FORMATS

    sources = find_sources(paths)
    target = Path(out)
    if len(sources) != 1 or not sources[0].is_video or target.suffix.lower() not in WRITE_FORMATS:
        known = ", ".join(sorted(WRITE_FORMATS))
        raise UsageError(f"--preview takes one video and an image as -o ({known})")
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: exists already; add --overwrite to replace it, or choose another -o")
    return Job(sources[0], target)


def restore_job(
    session: Session | UnifiedSession,
    job: Job,
    settings: Settings,
    meter: Meter,
    spreading: Spreading | None = None,
) -> dict[str, Any]:
    """Restore one image or video and write it; videos with the workers of ``spreading`` where there are some.

    Returns:
        The JSON object documented for `restore --json`.

    Raises:
        InputError: the source cannot be read.
        OutputError: the target cannot be written.
        BackendError: the model failed on it.
    """
    started = time.perf_counter()
    if is_unified(session):
        if settings.preview is not None or job.source.is_video:
            raise refuse_video(session.manifest.name)
        result = _image(session, job, settings, meter)
    elif settings.preview is not None:
        result = _preview(session, job, settings, meter)
    elif job.source.is_video:
        result = _video(session, job, settings, meter, spreading)
    else:
        result = _image(session, job, settings, meter)
    return {
        "path": str(job.source.path),
        "output": str(job.target),
        "kind": "image" if settings.preview is not None else job.source.kind,
        "seconds": time.perf_counter() - started,
        **result,
    }


def _image(session: Session | UnifiedSession, job: Job, settings: Settings, meter: Meter) -> dict[str, Any]:
    from uare_rt.images import WRITE_FORMATS, check_format, read_image, write_image

    if job.target.suffix.lower() not in WRITE_FORMATS:
        known = ", ".join(sorted(WRITE_FORMATS))
        raise OutputError(f"{job.target}: cannot write this kind of image; restore it alone, with an -o of {known}")
    picture = read_image(job.source.path)
    height, width = picture.pixels.shape[:2]
    check_format(
        job.target, width=width * settings.scale, height=height * settings.scale, alpha=picture.alpha is not None
    )
    megapixels = height * width / 1e6
    started = time.perf_counter()

    def show(done: float, total: int) -> None:
        seconds = max(time.perf_counter() - started, 1e-6)
        meter.update(done, total, megapixels * done / total / seconds, "MP")

    if is_unified(session):
        pixels, facts = restore_picture(session, picture, settings, show)
        write_image(job.target, picture.with_pixels(pixels), overwrite=settings.overwrite)
        return facts
    before = session.assess(picture.pixels)
    restored = session.restore(
        picture.pixels,
        context=before.context,
        scale=settings.scale,
        strength=settings.strength,
        tile=settings.tile,
        progress=show,
    )
    write_image(job.target, picture.with_pixels(restored.image), overwrite=settings.overwrite)
    return {
        "score": before.score,
        "score_after": session.assess(restored.image).score,
        "width": restored.image.shape[1],
        "height": restored.image.shape[0],
    }


def _video(session: Session, job: Job, settings: Settings, meter: Meter, spreading: Spreading | None) -> dict[str, Any]:
    from uare_rt.cli.spreading import spreads
    from uare_rt.video import restore_video
    from uare_rt.video.spread import spread_video

    def show(progress: VideoProgress) -> None:
        meter.update(progress.frames, progress.total, progress.fps, "frames", _standing(progress))

    how: dict[str, Any] = {
        "scale": settings.scale,
        "strength": settings.strength,
        "overwrite": settings.overwrite,
        "resume": settings.resume,
        "options": settings.video,
        "progress": show,
    }
    if spreading is not None and spreads(job):
        source = job.source.path.resolve()
        report = spread_video(session, spreading.engine, spreading.model, source, job.target, **how)
    else:
        report = restore_video(session, job.source.path, job.target, **how)
    return {
        "score": report.score_before,
        "score_after": report.score_after,
        "frames": report.frames,
        "fps": report.fps,
        "reused": report.reused,
        "skipped": report.skipped,
        "kept": report.kept,
        "resumed": report.resumed,
        "tiles": report.tiles,
        "tiles_computed": report.tiles_computed,
        "scenes": report.scenes,
        "encoding": report.encoding,
        "backend": report.backend,
        "precision": report.precision,
        "parts": report.parts,
        "lanes": report.lanes,
        "stages": {stage.name: round(stage.busy, 3) for stage in report.stages},
        "originals": [{"seconds": place.seconds, "reason": place.reason} for place in report.originals],
        "notes": list(report.notes),
        "damage": [{"seconds": place.seconds, "reason": place.reason} for place in report.damage],
    }


def _standing(progress: VideoProgress) -> str:
    """Score before and after, and how much is reused, for the bar."""
    if progress.score is None or progress.score_after is None:
        return ""
    return f"score {progress.score:.2f} -> {progress.score_after:.2f}, {progress.reused:.0%} reused"


def _preview(session: Session, job: Job, settings: Settings, meter: Meter) -> dict[str, Any]:
    """One frame, before and after side by side."""
    import numpy as np

    from uare_rt.images import Picture, write_image
    from uare_rt.video.preview import preview_video

    seconds = settings.preview or 0.0
    meter.update(0, 1, 0.0, "frames")
    before, restored = preview_video(
        session,
        job.source.path,
        seconds,
        scale=settings.scale,
        strength=settings.strength,
        options=settings.video,
    )
    base = session.restore(before, scale=settings.scale, strength=0.0).image
    write_image(job.target, Picture(np.concatenate([base, restored.image], axis=1)), overwrite=settings.overwrite)
    assessment = restored.assessment
    return {
        "score": assessment.score if assessment is not None else session.assess(before).score,
        "score_after": session.assess(restored.image).score,
        "width": 2 * restored.image.shape[1],
        "height": restored.image.shape[0],
    }
