"""Restoring one file: read, restore, keep what belongs to it, write, and say what came out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uare_rt.errors import OutputError

if TYPE_CHECKING:
    from uare_rt.cli.console import Meter
    from uare_rt.cli.outputs import Job
    from uare_rt.session import Session
    from uare_rt.video import VideoProgress

__all__ = ["Settings", "restore_job"]


@dataclass(frozen=True)
class Settings:
    """What the caller asked for; the options of `uare-rt restore`."""

    scale: int
    strength: float
    tile: int | None
    overwrite: bool


def restore_job(session: Session, job: Job, settings: Settings, meter: Meter) -> dict[str, Any]:
    """Restore one image or video and write it.

    Returns:
        The JSON object documented for `restore --json`.

    Raises:
        InputError: the source cannot be read.
        OutputError: the target cannot be written.
        BackendError: the model failed on it.
    """
    started = time.perf_counter()
    result = (_video if job.source.is_video else _image)(session, job, settings, meter)
    return {
        "path": str(job.source.path),
        "output": str(job.target),
        "kind": job.source.kind,
        "seconds": time.perf_counter() - started,
        **result,
    }


def _image(session: Session, job: Job, settings: Settings, meter: Meter) -> dict[str, Any]:
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

    def show(done: int, total: int) -> None:
        seconds = max(time.perf_counter() - started, 1e-6)
        meter.update(done, total, megapixels * done / total / seconds, "MP")

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


def _video(session: Session, job: Job, settings: Settings, meter: Meter) -> dict[str, Any]:
    from uare_rt.video import restore_video

    def show(progress: VideoProgress) -> None:
        meter.update(progress.frames, progress.total, progress.fps, "frames")

    report = restore_video(
        session,
        job.source.path,
        job.target,
        scale=settings.scale,
        strength=settings.strength,
        overwrite=settings.overwrite,
        progress=show,
    )
    return {
        "score": report.score_before,
        "score_after": report.score_after,
        "frames": report.frames,
        "notes": list(report.notes),
        "damage": [{"seconds": place.seconds, "reason": place.reason} for place in report.damage],
    }
