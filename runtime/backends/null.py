"""The null backend: no computation. It stands in for a model in tests of code around a session."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.backends.base import Capability
from uare_rt.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from uare_rt.bundle import GraphFile

__all__ = ["NullBackend"]


class NullBackend:
    """Restores a frame to itself (pixels repeated for scales above 1); assesses everything as undecided."""

    name = "null"
    worth_sizing = None
    runs_parts = False
    precisions = ()

    def probe(self) -> Capability:
        """Always available."""
        return Capability("null", True, "does nothing, anywhere", "", ("none",))

    def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> _Identity | _Constant:
        """Stand in for a graph; see ``Backend.load``."""
        match = re.fullmatch(r"restore_x(\d+)", graph.name)
        if match:
            return _Identity(int(match[1]))
        if graph.name == "assess":
            return _Constant(graph)
        raise BackendError(f"null backend has nothing to stand in for graph {graph.name!r}")


class _Identity:
    def __init__(self, scale: int) -> None:
        self._scale = scale

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        frame = inputs["frame"]
        return {"restored": frame.repeat(self._scale, axis=2).repeat(self._scale, axis=3)}

    def close(self) -> None:
        pass


class _Constant:
    def __init__(self, graph: GraphFile) -> None:
        self._shapes = {
            output.name: tuple(side if isinstance(side, int) else 1 for side in output.shape)
            for output in graph.spec.outputs
        }

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()}

    def close(self) -> None:
        pass
