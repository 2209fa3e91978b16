"""A timeline as files: JSON and CSV for machines, a plot and thumbnails for people."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import uuid
from typing import TYPE_CHECKING, Any

from uare_rt.errors import MissingExtraError, OutputError
from uare_rt.slots import DEGRADATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from uare_rt.video.timeline import Timeline

__all__ = ["TimelineFolder"]

_PLOTS = ("timeline.svg", "timeline.png")
_TABLES = ("timeline.json", "timeline.csv", "scenes.csv")


class TimelineFolder:
    """The directory that a timeline is written to, checked before any work is done.

    Args:
        folder: made if it is missing; its parent must exist.
        overwrite: whether a timeline there may be replaced.

    Raises:
        OutputError: it cannot be written, or holds a timeline already.
        MissingExtraError: matplotlib, which draws the plot, is not installed.
    """

    def __init__(self, folder: Path, *, overwrite: bool) -> None:
        self._folder = folder
        try:
            import matplotlib as _  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("matplotlib", "plot") from None
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: is a file; give a directory for the timeline")
        there = [name for name in (*_TABLES, *_PLOTS) if (folder / name).exists()]
        if there and not overwrite:
            raise OutputError(f"{folder / there[0]}: exists already; add --overwrite, or choose another directory")
        if not folder.parent.is_dir():
            raise OutputError(f"{folder.parent} does not exist or is no directory; create it first")
        if not os.access(folder if folder.is_dir() else folder.parent, os.W_OK):
            raise OutputError(f"{folder}: cannot be written (permission denied)")

    def write(self, timeline: Timeline, title: str) -> list[Path]:
        """Write every file; they appear when all are complete.

        Args:
            timeline: what to write.
            title: of the plot.

        Returns:
            The files, pictures of the worst moments last.

        Raises:
            OutputError: writing failed; nothing is left behind.
        """
        folder = self._folder
        work = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.part"
        try:
            work.mkdir()
            names = _write_all(work, timeline, title)
            folder.mkdir(exist_ok=True)
            for old in folder.glob("worst-*.jpg"):
                old.unlink()
            for name in names:
                os.replace(work / name, folder / name)
        except OSError as error:
            raise OutputError(f"{folder}: writing failed ({error.strerror})") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return [folder / name for name in names]


def _write_all(work: Path, timeline: Timeline, title: str) -> list[str]:
    from PIL import Image

    pictures = []
    for place, moment in enumerate(timeline.worst, start=1):
        pictures.append(f"worst-{place}-{moment.sample.seconds:.2f}s.jpg")
        Image.fromarray(moment.thumbnail).save(work / pictures[-1], quality=90)
    content = timeline.to_dict()
    for worst, name in zip(content["worst"], pictures, strict=True):
        worst["thumbnail"] = name
    (work / "timeline.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    rows: list[list[Any]] = [
        [s.seconds, s.assessment.score, s.assessment.level, *(s.assessment.severities[d] for d in DEGRADATIONS)]
        for s in timeline.samples
    ]
    _write_csv(work / "timeline.csv", ["seconds", "score", "level", *DEGRADATIONS], rows)
    rows = [
        [s.start, s.end, s.frames, s.score, s.lowest, *(s.severities[d] for d in DEGRADATIONS), s.description]
        for s in timeline.scenes
    ]
    _write_csv(work / "scenes.csv", ["start", "end", "frames", "score", "lowest", *DEGRADATIONS, "description"], rows)
    _plot(work, timeline, title)
    return [*_TABLES, *_PLOTS, *pictures]


def _write_csv(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{x:.6g}" if isinstance(x, float) else x for x in row] for row in rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def _plot(work: Path, timeline: Timeline, title: str) -> None:
    # The figure itself and no pyplot: nothing global, no window, any thread.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    times = [sample.seconds for sample in timeline.samples]
    end = timeline.scenes[-1].end
    scores = [sample.assessment.score for sample in timeline.samples]
    # A verdict stands until the next one.
    top.step([*times, end], [*scores, scores[-1]], where="post", color="black", linewidth=1.2)
    for place, moment in enumerate(timeline.worst, start=1):
        at = (moment.sample.seconds, moment.sample.assessment.score)
        top.plot(*at, "o", color="tab:red", markersize=4)
        top.annotate(str(place), at, textcoords="offset points", xytext=(4, -10), color="tab:red", fontsize=8)
    for name in DEGRADATIONS:
        values = [sample.assessment.severities[name] for sample in timeline.samples]
        bottom.step([*times, end], [*values, values[-1]], where="post", label=name.replace("_", " "), linewidth=1)
    for axis in (top, bottom):
        for scene in timeline.scenes[1:]:
            axis.axvline(scene.start, color="0.8", linewidth=0.8, zorder=0)
    top.set(ylim=(0.9, 5.1), ylabel="score", title=f"{title}: {timeline.score:.2f}, scenes: {len(timeline.scenes)}")
    bottom.set(ylim=(-0.02, 1.02), ylabel="severity", xlabel="seconds")
    bottom.legend(ncols=len(DEGRADATIONS), fontsize=8, loc="upper right")
    for name in _PLOTS:
        figure.savefig(work / name, dpi=100)
