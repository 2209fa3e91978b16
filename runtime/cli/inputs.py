"""Which files a command line names: files, directories and globs become one list of images and videos."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uare_rt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Source", "find_sources"]


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        path: as the caller wrote it, or found under it.
        named: the caller named this very file; otherwise a directory or a glob brought it in.
    """

    path: Path
    named: bool

    @property
    def is_video(self) -> bool:
        """Whether it is handled as a video. A file of an unknown kind counts as an image, whose reader tells."""
        from uare_rt.video import is_video

        return is_video(self.path)

    @property
    def kind(self) -> str:
        """`video` or `image`."""
        return "video" if self.is_video else "image"


def find_sources(arguments: Sequence[str]) -> list[Source]:
    """Expand the arguments of a command.

    A directory gives its images and videos, sorted by name, without hidden files and subdirectories.
    A glob in quotes is expanded here (`**` goes into subdirectories); an existing path wins over the glob
    it could be read as. ``@LIST`` stands for the paths and globs in a text file, one a line. A file found twice is kept
    once.

    Args:
        arguments: paths and globs, at least one.

    Returns:
        The files in the order of the arguments.

    Raises:
        InputError: a path is missing, a directory or list holds nothing to work on, or a glob matches nothing.
    """
    sources: dict[Path, Source] = {}
    for argument in arguments:
        for source in _expand(argument):
            sources.setdefault(source.path, source)
    return list(sources.values())


def _expand(argument: str) -> list[Source]:
    path = Path(argument)
    try:
        if path.is_dir():
            return _in_directory(path)
        if path.exists():
            return [Source(path, named=True)]
    except OSError as exc:  # a name too long, a directory that may not be read
        raise InputError(f"{argument}: {exc.strerror}; check the path") from exc
    if argument.startswith("@"):
        return _listed(Path(argument[1:]))
    if glob.has_magic(argument):
        matches = sorted(Path(match) for match in glob.glob(argument, recursive=True))
        found = [Source(match, named=False) for match in matches if _is_media(match)]
        if not found:
            raise InputError(f"{argument}: no image or video matches this pattern; check its directory and suffix")
        return found
    raise InputError(f"{argument}: no such file or directory; check the path")


def _listed(path: Path) -> list[Source]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "it is no text"
        raise InputError(f"{path}: the list cannot be read ({reason}); name a text file with paths in lines") from exc
    names = [line.strip() for line in lines if line.strip()]
    if any(name.startswith("@") and not Path(name).exists() for name in names):
        raise InputError(f"{path}: a list cannot name another list; write the paths themselves")
    found = [source for name in names for source in _expand(name)]
    if not found:
        raise InputError(f"{path}: the list is empty; write a path on each line")
    return [Source(source.path, named=False) for source in found]


def _in_directory(directory: Path) -> list[Source]:
    found = sorted(path for path in directory.iterdir() if _is_media(path) and not path.name.startswith("."))
    if not found:
        raise InputError(f"{directory}: no images or videos in this directory; name another, or the files themselves")
    return [Source(path, named=False) for path in found]


def _is_media(path: Path) -> bool:
    from uare_rt.images import is_image
    from uare_rt.video import is_video

    return (is_image(path) or is_video(path)) and path.is_file()
