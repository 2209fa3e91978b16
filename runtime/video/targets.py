"""What a result may be written to, checked before any work is done."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from uare_rt.errors import OutputError, UsageError
from uare_rt.video.copying import CONTAINERS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_target", "partial_name"]


def check_target(source: Path | None, target: Path, *, overwrite: bool) -> None:
    """Refuse a target that cannot or must not be written.

    Args:
        source: the input file, None where it is no single file.
        target: the file to make.
        overwrite: whether an existing one may be replaced.

    Raises:
        UsageError: the target is the source, or its suffix names no container.
        OutputError: the target exists, or its directory is missing or not writable.
    """
    if target.suffix.lower() not in CONTAINERS:
        raise UsageError(
            f"{target}: cannot write a video of type {target.suffix or '(no suffix)'!r}; "
            f"choose one of {', '.join(CONTAINERS)}"
        )
    if source is not None and (
        target.resolve() == source.resolve() or (target.exists() and source.exists() and target.samefile(source))
    ):
        raise UsageError(f"{target} is the input itself; choose another name for the result")
    if not target.parent.is_dir():
        raise OutputError(f"{target.parent} does not exist or is no directory; create it first")
    if target.is_dir():
        raise OutputError(f"{target} is a directory; give a file name")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; pass overwrite (--overwrite) to replace it")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"{target.parent} is not writable; check its permissions, or write elsewhere")


def partial_name(target: Path) -> Path:
    """A hidden name beside a target for what is not complete yet."""
    return target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.part{target.suffix}")
