"""What is compiled ahead of time of a kernel: types, constants, grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Variant"]


@dataclass(frozen=True)
class Variant:
    """One kernel with its types and constants fixed.

    Attributes:
        name: of the variant, and of its files.
        kernel: the Triton function.
        types: Triton's type of every argument, in order; pointers are aligned to 16 bytes, and the last axis of a
            tensor is contiguous.
        constants: the kernel's constants other than block sizes.
        key: which tile, see `uare_rt.kernels.tiles`.
        grid: three expressions of the grid's sizes over arguments, constants and the caller's dimensions.
        whole: integer arguments that must be multiples of 16 (leading dimensions, inner sizes).
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, int | bool | float | str]
    key: str
    grid: tuple[str, str, str]
    whole: tuple[str, ...] = ()
