"""Pillow, made to take large pictures and to keep its warnings to itself."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LOGGER", "relaxed_pillow"]

LOGGER = logging.getLogger("uare_rt.images")
_LOCK = threading.RLock()  # both settings below belong to the whole process


@contextlib.contextmanager
def relaxed_pillow() -> Iterator[None]:
    """Lift Pillow's limit of pixels (ours is checked instead) and log its warnings. One thread at a time."""
    with _LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    for warning in caught:
        LOGGER.debug("%s", warning.message)
