"""How fast graphs of two precisions run on this machine's processor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from uare_rt.bundle import GraphFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from uare_rt.manifest import GraphSpec

__all__ = ["speed_ratio"]

_PAIRS = 5


def speed_ratio(
    backend: str, specs: tuple[GraphSpec, GraphSpec], paths: tuple[Path, Path], feeds: Mapping[str, NDArray[np.float32]]
) -> float:
    """Time of the second graph over that of the first: the median of pairs that ran one after the other.

    Args:
        backend: that both are to run on, available here.
        specs: of both; how a backend computes depends on the precision.
        paths: their ONNX files, with their weights beside them.
        feeds: inputs of one run.

    Raises:
        BackendError: a graph cannot be loaded or run.
    """
    from uare_rt import backends

    files = [GraphFile(spec.file, path, spec) for spec, path in zip(specs, paths, strict=True)]
    runs = [backends.get(backend).load(file, threads=None) for file in files]
    try:
        ratios = []
        for _ in range(_PAIRS + 1):  # the first pair warms up
            times = []
            for executable in runs:
                began = time.perf_counter()
                executable.run(feeds)
                times.append(time.perf_counter() - began)
            ratios.append(times[1] / times[0])
        return float(np.median(ratios[1:]))
    finally:
        for executable in runs:
            executable.close()
