"""`uare-rt assess --timeline`: the quality of videos over time, as files and as a table of scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from uare_rt.cli.console import emit, emit_table
from uare_rt.cli.unified import is_unified, refuse_video
from uare_rt.cli.video_options import parse_seconds
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from uare_rt.cli.console import Meter
    from uare_rt.cli.inputs import Source
    from uare_rt.session import Session
    from uare_rt.video import VideoProgress
    from uare_rt.video.timeline_files import TimelineFolder
    from uare_rt.vlm.session import UnifiedSession

__all__ = ["named_severities", "plan_timelines", "show_scenes", "survey"]

_WORTH_NAMING = 1 / 8  # severities below round to the level "none"


class Plan(NamedTuple):
    """Where the timeline of a video goes, and how closely it is looked at."""

    folder: TimelineFolder
    every: float


def plan_timelines(sources: Sequence[Source], root: Path | None, every: str, *, overwrite: bool) -> dict[Path, Plan]:
    """Name and check the directory of every video.

    Returns:
        By the path of the video; nothing where no timeline is wanted.

    Raises:
        UsageError: a source is no video, two would have one directory, or the time makes no sense.
        OutputError: a directory cannot be written, or holds a timeline already.
        MissingExtraError: matplotlib is not installed.
    """
    if root is None:
        return {}
    from uare_rt.video.timeline_files import TimelineFolder

    seconds = parse_seconds(every, "--every")
    if not seconds:
        raise UsageError(f"--every {every}: give a time above 0")
    images = [source.path for source in sources if not source.is_video]
    if images:
        raise UsageError(f"--timeline: {images[0]} is no video; assess images apart")
    if len(sources) == 1:
        return {sources[0].path: Plan(TimelineFolder(root, overwrite=overwrite), seconds)}
    names = [source.path.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--timeline: two videos are called {twice}; assess them apart")
    root.mkdir(exist_ok=True)
    return {
        source.path: Plan(TimelineFolder(root / source.path.name, overwrite=overwrite), seconds) for source in sources
    }


def survey(session: Session | UnifiedSession, path: Path, plan: Plan, meter: Meter) -> dict[str, Any]:
    """Make the timeline of a video and write it.

    Returns:
        The JSON object documented for `assess --timeline --json`.

    Raises:
        InputError: the video cannot be read.
        OutputError: a file cannot be written.
    """
    from uare_rt.video.timeline import video_timeline

    if is_unified(session):
        raise refuse_video(session.manifest.name)

    def show(progress: VideoProgress) -> None:
        meter.update(progress.frames, progress.total, progress.fps, "frames", f"score {progress.score:.2f}")

    timeline = video_timeline(session, path, every=plan.every, progress=show)
    files = plan.folder.write(timeline, path.name)
    return {"path": str(path), "kind": "video", **timeline.to_dict(), "files": [str(file) for file in files]}


def show_scenes(record: Mapping[str, Any]) -> None:
    """Print the scenes of a video and its worst moments."""
    where = record["files"][0].rpartition("/")[0]
    emit(f"{record['path']}: score {record['score']:.2f}, {record['seconds']:.1f} s, {record['frames']} frames")
    rows = [
        (
            str(number),
            f"{scene['start']:.2f}",
            f"{scene['end']:.2f}",
            f"{scene['score']:.2f}",
            f"{scene['lowest']:.2f}",
            named_severities(scene["severities"]),
        )
        for number, scene in enumerate(record["scenes"], start=1)
    ]
    emit_table((">scene", ">from", ">to", ">score", ">lowest", "severities"), rows)
    worst = ", ".join(f"{moment['score']:.2f} at {moment['seconds']:.2f} s" for moment in record["worst"][:3])
    emit(f"worst: {worst}; files in {where}")


def named_severities(values: Mapping[str, float]) -> str:
    """Degradations worth naming, the strongest first, as in `noise 0.41, blur 0.20`; a dash for none."""
    named = sorted(values.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {value:.2f}" for name, value in named if value >= _WORTH_NAMING) or "-"
