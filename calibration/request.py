"""What a person asks `uare-rt build` for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from uare_rt.calibration.observers import Observer

__all__ = ["BuildRequest"]

_DEFAULT_BUDGET = {"fp32": 0.0, "int8": 0.1}
_OTHER_BUDGET = 0.02


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        backend: `tensorrt`, `tensorrt-rtx`, `onnxruntime` or `openvino`.
        precision: one of `uare_rt.targets.PRECISIONS`.
        targets: names of targets; empty for backends that run anywhere.
        profile: heights and widths of frames: smallest, usual, largest; all equal for static engines.
        data: pictures to calibrate with; empty takes synthetic ones.
        validation: pictures for the proof; empty holds back some of `data`.
        observer: of activations.
        max_drop_db: the budget; None takes 0.02 for 16 bits and 0.1 for int8.
        gate: fail where the budget is missed.
        workspace_mib: see `uare_rt.backends.tensorrt_build.BuildOptions`.
        seed: of samples.
    """

    backend: str
    precision: str
    targets: tuple[str, ...]
    profile: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    data: tuple[Path, ...] = ()
    validation: tuple[Path, ...] = ()
    observer: Observer = "mse"
    max_drop_db: float | None = None
    gate: bool = False
    workspace_mib: int | None = None
    seed: int = 0

    @property
    def budget(self) -> float:
        """Largest mean loss of PSNR against float32, in dB."""
        return _DEFAULT_BUDGET.get(self.precision, _OTHER_BUDGET) if self.max_drop_db is None else self.max_drop_db
