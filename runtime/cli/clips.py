"""Clips that are no single file: frames on standard input, numbered images, a directory of images made a video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uare_rt.cli.inputs import Source
from uare_rt.cli.outputs import Job
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["clip_job"]


@dataclass(frozen=True)
class _Clip(Source):
    @property
    def is_video(self) -> bool:
        """Whatever its name: it is handled as one clip."""
        return True


def clip_job(paths: Sequence[str], out: str) -> Job | None:
    """The job of a command line that names a clip which is no single file, or frames as its result; else None.

    Args:
        paths: the inputs.
        out: the output; a pattern, `-` or `gst:` makes frames of a video.

    Raises:
        UsageError: such a clip stands beside other inputs.
    """
    from uare_rt.video import is_video
    from uare_rt.video.copying import CONTAINERS
    from uare_rt.video.opening import is_pipe, is_pipeline
    from uare_rt.video.sequences import is_pattern

    def special(path: str) -> bool:
        return is_pipe(path) or is_pipeline(path) or (is_pattern(path) and not Path(path).exists())

    one = paths[0]
    many = is_pattern(out) and (special(one) or is_video(one) or Path(one).is_dir())
    to_frames = is_pipe(out) or is_pipeline(out) or many
    makes_video = Path(out).suffix.lower() in CONTAINERS and not Path(out).is_dir() and Path(one).is_dir()
    if not (any(map(special, paths)) or to_frames or (makes_video and len(paths) == 1)):
        return None
    if len(paths) > 1:
        raise UsageError(f"{one}: a clip of frames is restored alone, not beside other inputs")
    if special(one) and not to_frames and Path(out).suffix.lower() not in CONTAINERS:
        raise UsageError(f"-o {out}: name a video ({', '.join(CONTAINERS)}), a pattern of images, gst:PIPELINE, or -")
    return Job(_Clip(Path(one), named=True), Path(out))
