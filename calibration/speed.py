"""How fast graphs of two precisions run on this machine's processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uare_rt.bench.pairs import interleaved, ratio
from uare_rt.bundle import GraphFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from uare_rt.backends.base import Executable
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

    def call(executable: Executable) -> Callable[[], None]:
        def run() -> None:
            executable.run(feeds)

        return run

    try:
        samples = interleaved({str(index): call(run) for index, run in enumerate(runs)}, rounds=_PAIRS)
        return ratio(samples["1"].wall, samples["0"].wall)
    finally:
        for executable in runs:
            executable.close()
