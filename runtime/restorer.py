"""Restore graphs on samples as they come: the tone curve from a table, the rest from the graph behind it.

The tone curve of a context gives each channel's value for each value, and 8 bits have 256 of them: looking them up
while samples become floating point takes the place of a dozen passes over the frame inside the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt import compiled
from uare_rt.bundle import Part
from uare_rt.frames import to_unit
from uare_rt.manifest import BASE_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from uare_rt.executables import Executables

    Context = Mapping[str, NDArray[np.float32]]

__all__ = ["Restorer"]

_TONE, _BEHIND = Part(BASE_NAME, behind=False), Part(BASE_NAME, behind=True)
_TONE_GRAPH = "restore_x1"  # all have the same curve
_TONE_INPUT = "ctx_vec"


class Restorer:
    """The restore graphs of a bundle; may be used from several threads at once.

    Args:
        graphs: of the bundle.

    Attributes:
        graphs: the same; whoever made them closes them.
    """

    def __init__(self, graphs: Executables) -> None:
        self.graphs = graphs
        self._in_parts: bool | None = None
        self._last: tuple[tuple[bytes, np.dtype[Any]], NDArray[np.float32]] | None = None

    def run(self, samples: NDArray[Any], scale: int, context: Context, *, sized: bool = False) -> NDArray[np.float32]:
        """Restore a frame.

        Args:
            samples: uint8, uint16 or float32 in [0, 1], [H, W, 3], RGB, sides multiples of 16.
            scale: of the output.
            context: inputs of the graph besides the frame.
            sized: run a graph that is loaded for this size alone, see ``Backend.worth_sizing``.

        Returns:
            float32 [1, 3, scale * H, scale * W], not clipped.

        Raises:
            BackendError: it failed, or gave NaN or infinity.
            BundleError: the bundle has no graph for the scale.
            UsageError: it was closed.
        """
        if self._in_parts is None:
            self._in_parts = self.graphs.runs_parts and self.graphs.has_value(_TONE_GRAPH, BASE_NAME)
        if self._in_parts:
            given, part = {BASE_NAME: self._toned(samples, context)}, _BEHIND
        else:
            given, part = {"frame": _planes(samples)}, None
        return self.graphs.run(f"restore_x{scale}", {**given, **context}, part, sized=sized)["restored"]

    def _toned(self, samples: NDArray[Any], context: Context) -> NDArray[np.float32]:
        """Samples behind the tone curve, float32 [1, 3, H, W]."""
        vector = context[_TONE_INPUT]
        if samples.dtype == np.float32:
            return self._curve(_planes(samples), vector)
        key = vector.tobytes(), samples.dtype
        last = self._last
        if last is None or last[0] != key:
            levels = np.arange(np.iinfo(samples.dtype).max + 1, dtype=samples.dtype)
            side = round(len(levels) ** 0.5)
            values = np.broadcast_to(to_unit(levels).reshape(side, side), (1, 3, side, side))
            last = self._last = key, self._curve(np.ascontiguousarray(values), vector).reshape(3, -1)
        toned = np.empty((1, 3, *samples.shape[:2]), np.float32)
        if not compiled.look_up(samples, last[1], toned):
            for channel, table in enumerate(last[1]):
                np.take(table, samples[..., channel], out=toned[0, channel], mode="clip")
        return toned

    def _curve(self, values: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.graphs.run(_TONE_GRAPH, {"frame": values, _TONE_INPUT: vector}, part=_TONE)[BASE_NAME]


def _planes(samples: NDArray[Any]) -> NDArray[np.float32]:
    """[H, W, 3] as float32 [1, 3, H, W] in [0, 1], turned while the samples are small."""
    return to_unit(np.ascontiguousarray(samples.transpose(2, 0, 1)))[None]
