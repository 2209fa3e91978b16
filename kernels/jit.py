"""Triton where it is installed.

Where it is not, the decorator leaves kernels as plain functions, so that the references beside them can still be
imported; `uare_rt.kernels.dispatch` then never launches one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cdiv", "interpreted", "power_of_two", "tl", "triton", "version"]

triton: Any
tl: Any
try:
    import triton
    import triton.language as tl
except ImportError:

    class _Absent:
        __version__ = ""

        @staticmethod
        def jit(kernel: Callable[..., None]) -> Callable[..., None]:
            return kernel

    triton, tl = _Absent, None


def version() -> tuple[int, int] | None:
    """Triton's major and minor version, None where it is not installed."""
    if not triton.__version__:
        return None
    major, minor = triton.__version__.split(".")[:2]
    return int(major), int(minor)


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU; decided when they are first imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def cdiv(value: int, by: int) -> int:
    """``value / by`` rounded up."""
    return -(-value // by)


def power_of_two(value: int, least: int = 16) -> int:
    """The smallest power of two that is at least ``value`` and ``least``; blocks have such sizes."""
    return max(least, 1 << (value - 1).bit_length())
