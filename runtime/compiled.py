"""What was compiled for processors when the package was installed, from ``runtime/native/cpu``.

Where no compiler was at hand there is nothing, and NumPy and ONNX Runtime do the same, only slower.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uare_rt.errors import BackendError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

__all__ = [
    "LIBRARY",
    "add_changes",
    "advance_drift",
    "blend",
    "compiled_variant",
    "greatest",
    "library",
    "library_digest",
    "library_problem",
    "look_up",
    "place",
    "use_variant",
]

LIBRARY = Path(__file__).parent / f"libuare_cpu.{'dylib' if sys.platform == 'darwin' else 'so'}"
"""Where `setup.py` puts it."""

_VERSION = 1
_log = logging.getLogger(__name__)
_BITS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}
_POINTER, _INT, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
_SIGNATURES = {
    "cpu_version": (_INT, ()),
    "cpu_variant": (ctypes.c_char_p, ()),
    "cpu_use": (_INT, (ctypes.c_char_p,)),
    "pool_open": (_POINTER, (_INT,)),
    "pool_close": (None, (_POINTER,)),
    "filter": (None, (_POINTER, _INT, _INT, _POINTER)),
    **{f"convolve_{kind}": (_INT, (_POINTER, _POINTER)) for kind in ("3x3", "stem", "down", "up")},
    "run_tokens": (_INT, (_POINTER, _POINTER, _INT, _INT, _POINTER, _POINTER)),
    "shuffle": (_INT, (_POINTER, _POINTER, _INT, _INT, _INT, _POINTER, _POINTER)),
    "blend_part": (_INT, (_POINTER, _POINTER)),
    "drift": (None, (_INT, _POINTER, _POINTER, _LONG, _FLOAT, _POINTER)),
    "greatest": (_FLOAT, (_POINTER, _LONG)),
    "add": (None, (_INT, _POINTER, _POINTER, _LONG, _FLOAT, _POINTER)),
    "tone": (None, (_INT, _POINTER, _LONG, _INT, _INT, _POINTER, _POINTER)),
    "place": (None, (_INT, _POINTER, _LONG, _LONG, _INT, _INT, _POINTER, _LONG)),
}


def library() -> ctypes.CDLL | None:
    """The library, its functions declared; None where `library_problem` says why not."""
    return _loaded()[0]


def library_problem() -> str | None:
    """Why nothing compiled is used; None where it is."""
    return _loaded()[1]


@functools.cache
def library_digest() -> str | None:
    """SHA-256 of the library; None without one."""
    return None if library() is None else hashlib.sha256(LIBRARY.read_bytes()).hexdigest()


@functools.cache
def _loaded() -> tuple[ctypes.CDLL | None, str | None]:
    if not LIBRARY.exists():
        return None, "nothing compiled, because there was no C++ compiler when the package was installed"
    try:
        found = ctypes.CDLL(str(LIBRARY))
        if found.uare_cpu_version() != _VERSION:
            return None, f"{LIBRARY} is of another version; install the package again"
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(found, f"uare_{name}")
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        _log.warning("%s cannot be used, so restoration is slower: %s", LIBRARY, error)
        return None, f"{LIBRARY} cannot be used ({error}); install the package again"
    return found, None


def compiled_variant() -> str | None:
    """The instructions that are used here: ``avx512``, ``avx2`` or ``portable``; None where nothing was compiled."""
    found = library()
    return None if found is None else str(found.uare_cpu_variant(), "ascii")


def use_variant(variant: str) -> None:
    """Use other instructions, to compare; not while something runs.

    Raises:
        BackendError: this processor, or this installation, does not have them.
    """
    found = library()
    if found is None or found.uare_cpu_use(variant.encode()):
        raise BackendError(f"nothing was compiled here for {variant!r}")


class _Blend(ctypes.Structure):
    """``uare_blend`` of ``uare_cpu.h``."""

    _fields_ = (
        *((name, _POINTER) for name in ("given", "made", "shown", "there", "out", "drift", "weights", "still")),
        *((f"{name}_line", _LONG) for name in ("given", "made", "shown", "there", "out", "drift")),
        *((name, _INT) for name in ("height", "width", "times", "bits")),
    )


def blend(
    frames: dict[str, NDArray[Any]], drift: NDArray[np.float32] | None, still: NDArray[np.bool_],
    weights: NDArray[np.float32],
) -> tuple[float, float] | None:  # fmt: skip
    """`uare_rt.video.blending.blend` for arrays of one sample type; None where nothing was compiled for them.

    Args:
        frames: its arrays of samples, by name.
        drift: the same as there.
        still: the same.
        weights: the same.
    """
    found, kinds = library(), {array.dtype for array in frames.values()}
    if found is None or len(kinds) != 1 or not kinds <= _BITS.keys() or not all(map(_in_lines, frames.values())):
        return None
    height, width = weights.shape
    still, weights = np.ascontiguousarray(still), np.ascontiguousarray(weights)
    lines = frames if drift is None else {**frames, "drift": drift}
    part = _Blend(
        **{name: array.ctypes.data for name, array in lines.items()},
        **{f"{name}_line": _line(array) for name, array in lines.items()},
        weights=weights.ctypes.data, still=still.ctypes.data, height=height, width=width,
        times=frames["made"].shape[0] // height, bits=_BITS[kinds.pop()],
    )  # fmt: skip
    sums = (ctypes.c_double * 2)()
    return None if found.uare_blend_part(ctypes.byref(part), sums) else (sums[0], sums[1])


def advance_drift(frame: NDArray[Any], reference: NDArray[Any], steady: float, drift: NDArray[np.float32]) -> bool:
    """`uare_rt.video.blending.advance_drift`; False where nothing was compiled for these arrays."""
    found, bits = library(), _BITS.get(frame.dtype)
    if found is None or bits is None or not all(map(_in_one_piece, (frame, reference, drift))):
        return False
    found.uare_drift(bits, frame.ctypes.data, reference.ctypes.data, frame.size, steady, drift.ctypes.data)
    return True


def greatest(values: NDArray[np.float32]) -> float | None:
    """The greatest size of any value; None where nothing was compiled for it."""
    found = library()
    if found is None or not _in_one_piece(values):
        return None
    return float(found.uare_greatest(values.ctypes.data, values.size))


def add_changes(base: NDArray[Any], changes: NDArray[np.float32], response: float, out: NDArray[Any]) -> bool:
    """`uare_rt.video.blending.add_changes`; False where nothing was compiled for these arrays."""
    found, bits = library(), _BITS.get(base.dtype)
    if found is None or bits is None or not all(map(_in_one_piece, (base, changes, out))):
        return False
    found.uare_add(bits, base.ctypes.data, changes.ctypes.data, base.size, response, out.ctypes.data)
    return True


def look_up(samples: NDArray[Any], table: NDArray[np.float32], planes: NDArray[np.float32]) -> bool:
    """Samples [H, W, 3] as planes [3, H, W] by a table [3, levels]; False where nothing was compiled for them."""
    found, bits = library(), _BITS.get(samples.dtype)
    if found is None or bits is None or not _in_lines(samples) or not table.flags.c_contiguous:
        return False
    height, width = samples.shape[:2]
    found.uare_tone(
        bits, samples.ctypes.data, _line(samples), height, width, table.ctypes.data, planes.ctypes.data
    )  # fmt: skip
    return True


def place(values: NDArray[np.float32], out: NDArray[Any]) -> bool:
    """`uare_rt.frames.place`; False where nothing was compiled for these arrays."""
    found, bits = library(), _BITS.get(out.dtype)
    row, column, plane = (stride // 4 for stride in values.strides)
    if found is None or bits is None or column != 1 or not _in_lines(out):
        return False
    height, width = values.shape[:2]
    found.uare_place(bits, values.ctypes.data, plane, row, height, width, out.ctypes.data, _line(out))
    return True


def _in_lines(frame: NDArray[Any]) -> bool:
    """Whether the samples of each line lie together."""
    return frame.flags.aligned and frame.strides[1:] == (3 * frame.itemsize, frame.itemsize)


def _in_one_piece(array: NDArray[Any]) -> bool:
    return array.flags.c_contiguous and array.flags.aligned


def _line(frame: NDArray[Any]) -> int:
    return frame.strides[0] // frame.itemsize
