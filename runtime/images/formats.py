"""Which files count as images, by suffix."""

from __future__ import annotations

import os
from pathlib import Path

from uare_rt.errors import InputError

__all__ = ["READ_SUFFIXES", "WRITE_FORMATS", "is_image", "list_images"]

# suffix -> format name, as Pillow spells it
WRITE_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
}
READ_SUFFIXES = frozenset({*WRITE_FORMATS, ".gif", ".ppm", ".pgm", ".jp2", ".avif"})


def is_image(path: Path) -> bool:
    """Tell whether a path is named like an image that can be read; the file is not opened."""
    return path.suffix.lower() in READ_SUFFIXES


def list_images(directory: Path, *, recursive: bool = False) -> list[Path]:
    """List the images of a directory by suffix, sorted by path; hidden files and folders are skipped.

    Args:
        directory: where to look.
        recursive: look into its folders as well (links to folders are not followed).

    Returns:
        The paths, each beginning with `directory` as it was given; empty if there are none.

    Raises:
        InputError: `directory` is missing, is not a directory or cannot be read.
    """
    found: list[Path] = []

    def refuse(error: OSError) -> None:
        reason = error.strerror or str(error)
        raise InputError(f"{directory}: cannot list this directory ({reason}); check the path and its permissions")

    for folder, folders, names in os.walk(directory, onerror=refuse):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        paths = (Path(folder, name) for name in names if not name.startswith("."))
        found += [path for path in paths if is_image(path) and path.is_file()]
    return sorted(found)
