"""Rooms that need an optional dependency: asked for by a command, named when missing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from uare_rt.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["needs_extra"]


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a missing package inside the block into an error that names the extra.

    Args:
        extra: the extra of uare-rt that installs what the block imports.

    Raises:
        MissingExtraError: a package outside uare-rt could not be imported.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package in {"", "uare_rt"}:
            raise  # a broken installation, not a missing extra
        raise MissingExtraError(package, extra) from exc
