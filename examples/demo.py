"""Restores the bundled clip with the shipped model; run by `make demo`, needs the base install only."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import uare_rt
from uare_rt.errors import UareError
from uare_rt.slots import DEGRADATIONS
from uare_rt.video import VideoAssessment, VideoReport, assess_video, restore_video, sample_frames

HERE = Path(__file__).resolve().parent


def restore(session: uare_rt.Session, source: Path, target: Path, console: Console) -> VideoReport:
    columns = (TextColumn("restoring"), BarColumn(), TextColumn("{task.fields[fps]:.1f} fps"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, fps=0.0)
        return restore_video(
            session,
            source,
            target,
            overwrite=True,
            progress=lambda p: bar.update(task, completed=p.frames, total=p.total, fps=p.fps),
        )


def table(before: VideoAssessment, after: VideoAssessment) -> Table:
    rows = Table("", "before", "after", title="Quality (score 1 bad .. 5 excellent, severities 0 none .. 1 severe)")
    rows.add_row(
        "score", f"{before.score:.2f} ({before.level})", f"{after.score:.2f} ({after.level})", end_section=True
    )
    for name in DEGRADATIONS:
        rows.add_row(name.replace("_", " "), f"{before.severities[name]:.2f}", f"{after.severities[name]:.2f}")
    return rows


def still(source: Path, target: Path, picture: Path) -> None:
    """The middle of both clips, side by side."""
    halves = [list(sample_frames(path, 3))[1][1] for path in (source, target)]
    Image.fromarray(np.concatenate(halves, axis=1)).save(picture)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=None, help="another bundle than the shipped one")
    parser.add_argument("--output", type=Path, default=HERE.parent / "build" / "demo")
    arguments = parser.parse_args()
    console = Console()
    source = HERE / "sample.mp4"
    target, picture = arguments.output / "sample-restored.mp4", arguments.output / "before-after.png"
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        with uare_rt.load(arguments.bundle) as session:
            report = restore(session, source, target, console)
            console.print(table(assess_video(session, source, samples=8), assess_video(session, target, samples=8)))
        still(source, target, picture)
    except UareError as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    console.print(f"{report.frames} frames in {report.seconds:.1f} s ({report.fps:.1f} fps)")
    for line in (f"before: {source}", f"after:  {target}", f"still:  {picture}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
