"""The layers of `uare-nano` in compiled code (`uare_rt.compiled`), where there is any.

Maps of features are float32 [channels / 16, height, width, 16]: the sixteen channels of a place lie together.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import TYPE_CHECKING

import numpy as np

from uare_rt.compiled import LIBRARY, library
from uare_rt.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["BLOCK", "Convolutions", "aligned", "blocked_weights", "room"]

BLOCK = 16
"""Channels that lie together."""
_ALIGNMENT = 64  # bytes
_FLOATS, _COUNT = ctypes.c_void_p, ctypes.c_int32


class _Layer(ctypes.Structure):
    """``uare_convolution`` of ``uare_cpu.h``."""

    _fields_ = (
        *((name, _FLOATS) for name in ("source", "weights", "scale", "shift", "target")),
        *((name, _COUNT) for name in ("inputs", "outputs", "height", "width")),
        ("slope", ctypes.c_float),
    )


class _TokenLayer(ctypes.Structure):
    """``uare_token_layer``."""

    _fields_ = tuple(
        (name, _FLOATS)
        for name in (
            "input_norm", "qkv", "qkv_bias", "q_norm", "k_norm", "o", "mlp_norm", "gate_up", "down", "context_keys",
            "context_values",
        )
    )  # fmt: skip


class _Tokens(ctypes.Structure):
    """``uare_tokens``."""

    _fields_ = (
        *((name, _FLOATS) for name in ("layers", "embedding", "final_norm", "context_mask")),
        *((name, _COUNT) for name in ("count", "shifted", "hidden", "heads", "head_dim", "mlp", "side", "context")),
        ("epsilon", ctypes.c_float),
    )


def room(count: int) -> NDArray[np.float32]:
    """Memory for that many floats, not written to yet, where vectors like it."""
    spare = _ALIGNMENT // 4
    memory = np.empty(count + spare, np.float32)
    start = -memory.ctypes.data % _ALIGNMENT // 4
    return memory[start : start + count]


def aligned(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy where vectors like it, float32 [size]."""
    found = room(values.size)
    found[:] = values.ravel()
    return found


def blocked_weights(kind: str, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights in the order that a layer reads them.

    Args:
        kind: of the layer, see `Convolutions.convolve`.
        weights: float32 [outputs, inputs, rows, columns], outputs a multiple of 16, inputs too but for a ``stem``.

    Raises:
        BackendError: there are no compiled convolutions.
    """
    outputs, inputs, rows, columns = weights.shape
    if kind == "3x3":
        compiled = library()
        if compiled is None:
            raise BackendError(f"there are no compiled convolutions at {LIBRARY}: install uare-rt with a C++ compiler")
        given, filtered = np.ascontiguousarray(weights), np.empty(36 * inputs * outputs, np.float32)
        compiled.uare_filter(given.ctypes.data, inputs, outputs, filtered.ctypes.data)
        return filtered
    in_blocks = weights.reshape(
        outputs // BLOCK, BLOCK, *((1, inputs) if kind == "stem" else (-1, BLOCK)), rows, columns
    )
    order = (0, 2, 3, 4, 5, 1) if kind == "stem" else (0, 2, 4, 5, 3, 1)
    return np.ascontiguousarray(in_blocks.transpose(order)).reshape(-1)


def _close(compiled: ctypes.CDLL, pool: int, process: int) -> None:
    if os.getpid() == process:  # a forked child has no threads to wait for
        compiled.uare_pool_close(pool)


class Convolutions:
    """Layers run by a number of threads; may be used from several at once, where the later ones compute alone.

    Args:
        threads: at least 1; the caller's is one of them.

    Raises:
        BackendError: there are no compiled convolutions, or no threads.
    """

    def __init__(self, threads: int) -> None:
        compiled = library()
        pool = None if compiled is None else compiled.uare_pool_open(threads)
        if compiled is None or pool is None:
            raise BackendError(f"{LIBRARY} cannot be used with {threads} threads; check that it is there, and memory")
        self._library, self._pool = compiled, pool
        # At exit the system ends the threads.
        weakref.finalize(self, _close, compiled, pool, os.getpid()).atexit = False

    def convolve(
        self,
        kind: str,
        source: NDArray[np.float32],
        target: NDArray[np.float32],
        channels: tuple[int, int],
        size: tuple[int, int],
        weights: NDArray[np.float32],
        factors: tuple[NDArray[np.float32], NDArray[np.float32]],
        slope: float,
    ) -> None:
        """``target = max(y, slope * y)`` with ``y = scale * convolution(source) + shift``.

        Args:
            kind: ``3x3`` with zeros around; ``stem``: 6x6 in steps of two, two zeros around, on planes; ``down``: 2x2
                in steps of two; ``up``: 1x1, each result added to the four places of twice the size, without scale and
                slope.
            source: as many floats as that takes, contiguous.
            target: the same; another memory.
            channels: in and out, multiples of 16 but for a stem's 3.
            size: height and width of the source; even for ``stem`` and ``down``.
            weights: of `blocked_weights`.
            factors: scale and shift, float32 [channels out].
            slope: between 0 and 1; 1 for none.

        Raises:
            BackendError: there is no memory.
        """
        layer = _Layer(
            source.ctypes.data, weights.ctypes.data, factors[0].ctypes.data, factors[1].ctypes.data, target.ctypes.data,
            *channels, *size, slope,
        )  # fmt: skip
        self._check(getattr(self._library, f"uare_convolve_{kind}")(self._pool, ctypes.byref(layer)))

    def run_tokens(
        self, layers: Sequence[Mapping[str, NDArray[np.float32]]], whole: Mapping[str, NDArray[np.float32]],
        sizes: Mapping[str, int], epsilon: float, size: tuple[int, int], target: NDArray[np.float32],
    ) -> None:  # fmt: skip
        """Add what a transformer on windows makes of a map to it.

        Args:
            layers: arrays of each by their names in ``uare_token_layer``.
            whole: the arrays of ``uare_tokens`` by their names.
            sizes: its whole numbers.
            epsilon: of its norms.
            size: height and width of the map.
            target: the map.

        Raises:
            BackendError: there is no memory.
        """
        entries = (_TokenLayer * len(layers))(
            *(_TokenLayer(**{name: value.ctypes.data for name, value in layer.items()}) for layer in layers)
        )
        tokens = _Tokens(
            layers=ctypes.addressof(entries), count=len(layers), epsilon=epsilon,
            **{name: value.ctypes.data for name, value in whole.items()}, **sizes,
        )  # fmt: skip
        stream = room(size[0] * size[1] * sizes["hidden"])
        self._check(
            self._library.uare_run_tokens(
                self._pool, ctypes.byref(tokens), *size, target.ctypes.data, stream.ctypes.data
            )
        )

    def shuffle(
        self, source: NDArray[np.float32], times: int, size: Sequence[int], base: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """ONNX's DepthToSpace (CRD) of three planes, plus others.

        Args:
            source: a map of at least 3 * times^2 channels.
            times: how much larger the planes are.
            size: height and width of the map.
            base: float32 [3, times * height, times * width], contiguous.

        Returns:
            The sum, as large as the base.
        """
        total = np.empty_like(base)
        self._check(
            self._library.uare_shuffle(
                self._pool, source.ctypes.data, times, *size, base.ctypes.data, total.ctypes.data
            )
        )
        return total

    def _check(self, status: int) -> None:
        if status:
            raise BackendError("the compiled convolutions found no memory for their scratch; close other programs")
