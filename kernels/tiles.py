"""Tile sizes: read from `tuning/sm_XX.yaml`, one file per GPU.

A file names the one it starts from (``base``) and, per kernel and variant, the ``chosen`` tile and the ``space`` of
values that `benchmarks/kernels.py --tune` tries. Nothing here was measured on a GPU unless the file says so.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uare_rt.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TARGETS", "Tile", "space", "tile"]

TARGETS = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_110", "sm_120")
_FOLDER = Path(__file__).parent / "tuning"


@dataclass(frozen=True)
class Tile:
    """How one kernel is cut up.

    Attributes:
        blocks: its block sizes, by the names of the kernel's constants.
        warps: warps per program.
        stages: depth of the load pipeline.
    """

    blocks: Mapping[str, int]
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, int]:
        """As Triton names them at a launch; products and sums are fused, which later versions of it must be told."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


def _parsed(values: Mapping[str, int]) -> Tile:
    blocks = {name: value for name, value in values.items() if name.isupper()}
    return Tile(blocks, values["warps"], values["stages"])


@cache
def _table(target: str) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("pyyaml", "kernels") from error
    if target not in TARGETS:
        raise UsageError(f"target {target!r} has no tiles; known targets: {', '.join(TARGETS)}")
    entries = yaml.safe_load((_FOLDER / f"{target}.yaml").read_text())
    base = entries.pop("base", None)
    return entries if base is None else {**_table(base), **entries}


def tile(target: str, key: str) -> Tile:
    """The chosen tile of a kernel on a GPU.

    Args:
        target: one of `TARGETS`.
        key: kernel and variant, such as ``attention.prefill``.

    Raises:
        UsageError: no such target.
        MissingExtraError: PyYAML is not installed.
    """
    return _parsed(_table(target)[key]["chosen"])


def space(target: str, key: str) -> list[Tile]:
    """Every tile that tuning tries for a kernel on a GPU; arguments and errors as for `tile`."""
    axes = _table(target)[key]["space"]
    return [_parsed(dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]
