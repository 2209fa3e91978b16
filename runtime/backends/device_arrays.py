"""Arrays on a CUDA device, to and from other libraries without a copy through the host.

Two protocols are spoken: ``__cuda_array_interface__`` version 3 (Numba's) and DLPack 0.8, whose capsules hold the
struct `DLManagedTensor` of dlpack.h. Both are read; `DeviceArray` gives both.
"""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CPU", "CUDA", "DeviceArray", "DeviceMemory", "device_memory"]

CPU, CUDA = 1, 2
"""Device types of DLPack."""

_ON_DEVICE = (CUDA, 13)  # the latter is memory that CUDA moves by itself
_FRESH, _USED = b"dltensor", b"used_dltensor"  # names of a capsule before and after somebody took its tensor
_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}  # DLDataTypeCode to NumPy's kinds
_CODES = {kind: code for code, kind in _KINDS.items()}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _ManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


# Capsules as addresses: a destructor must not count references of an object that is on its way out.
_api = ctypes.pythonapi
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", _api)
)

_lent: dict[int, tuple[_ManagedTensor, Any, object]] = {}
"""Tensors that others hold, by address: the struct, its shape, and the array that keeps the memory alive."""


def _given_back(address: int) -> None:
    _lent.pop(address, None)


def _dies(capsule: int) -> None:
    if _is_valid(capsule, _FRESH):  # nobody took it
        _given_back(_pointer_of(capsule, _FRESH))


_give_back = _Deleter(_given_back)
_capsule_dies = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_dies)


class DeviceArray:
    """A result on the device, C-contiguous, owned by whoever holds it.

    What it holds is complete: no stream has to be waited for. `torch.from_dlpack`, `cupy.asarray` and others take it
    without a copy and keep the memory alive; it is freed with the last of them.

    Attributes:
        shape: sides.
        dtype: of the elements.
        pointer: address on the device.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], pointer: int, free: Callable[[int], None], device: int = 0
    ) -> None:
        self.shape, self.dtype, self.pointer = shape, dtype, pointer
        self._device = device
        self._finalizer = weakref.finalize(self, free, pointer)
        self._finalizer.atexit = False  # CUDA is gone by then, and the memory with it

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """See Numba's description of version 3."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self._device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule for another library; ``stream`` needs no waiting, ``max_version`` allows the oldest form.

        Raises:
            BufferError: another device or a copy is asked for.
        """
        if dl_device not in (None, self.__dlpack_device__()) or copy:
            raise BufferError("a DeviceArray is given where it lies, without a copy")
        return _capsule(self.pointer, self.shape, self.dtype, self.__dlpack_device__(), self)


def _capsule(pointer: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: tuple[int, int], owner: object) -> Any:
    sides = (ctypes.c_int64 * len(shape))(*shape)
    tensor = _Tensor(
        pointer, *device, len(shape), _CODES[dtype.kind], 8 * dtype.itemsize, 1,
        ctypes.cast(sides, ctypes.POINTER(ctypes.c_int64)), None, 0,
    )  # fmt: skip
    managed = _ManagedTensor(tensor, None, ctypes.cast(_give_back, ctypes.c_void_p))
    address = ctypes.addressof(managed)
    _lent[address] = managed, sides, owner
    return _new_capsule(address, _FRESH, ctypes.cast(_capsule_dies, ctypes.c_void_p))


@dataclass(frozen=True)
class DeviceMemory:
    """Somebody's array on the device.

    Attributes:
        shape: sides.
        dtype: of the elements.
        pointer: address of the first element.
        stream: stream whose work fills it, 0 is the default one; None if there is nothing to wait for.
        owner: keeps it alive.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pointer: int
    stream: int | None
    owner: object


def device_memory(value: Any, stream: int) -> DeviceMemory | None:
    """Where an array lies on the device; None if it lies on the host.

    Args:
        value: an array of any library.
        stream: the stream that is going to read it; a producer that speaks DLPack makes it wait.

    Raises:
        BackendError: it is not C-contiguous, or of a type that NumPy lacks.
    """
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is not None:
        shape, dtype = tuple(int(side) for side in interface["shape"]), np.dtype(interface["typestr"])
        _check_strides(shape, interface.get("strides"), dtype.itemsize)
        # Before version 3 the protocol had no stream: PyTorch, which fills arrays on the default one, still speaks it.
        return DeviceMemory(shape, dtype, int(interface["data"][0]), interface.get("stream", 0), value)
    if getattr(value, "__dlpack_device__", lambda: (CPU, 0))()[0] not in _ON_DEVICE:
        return None
    return _taken(value.__dlpack__(stream=stream))


def _taken(capsule: Any) -> DeviceMemory:
    address = _pointer_of(id(capsule), _FRESH)
    managed = _ManagedTensor.from_address(address)
    tensor = managed.tensor
    if tensor.lanes != 1 or tensor.code not in _KINDS:
        raise BackendError(f"is of DLPack type {tensor.code} with {tensor.lanes} lanes, which NumPy lacks")
    dtype = np.dtype(f"{_KINDS[tensor.code]}{tensor.bits // 8}")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(dtype.itemsize * step for step in tensor.strides[: tensor.ndim]) if tensor.strides else None
    _check_strides(shape, strides, dtype.itemsize)
    _rename(id(capsule), _USED)
    owner = _Owner()
    if managed.deleter:
        weakref.finalize(owner, _Deleter(managed.deleter), address)
    return DeviceMemory(shape, dtype, tensor.data + tensor.byte_offset, None, owner)


class _Owner:
    """Gives a taken tensor back when it dies."""


def _check_strides(shape: tuple[int, ...], strides: tuple[int, ...] | None, itemsize: int) -> None:
    step = itemsize
    for side, stride in zip(reversed(shape), reversed(strides or ()), strict=False):
        if side != 1 and stride != step:
            raise BackendError("is not contiguous on the device; make a contiguous copy")
        step *= side
