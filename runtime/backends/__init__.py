"""Inference backends: where graphs run.

A backend is small on purpose (see ``base``): it says whether this machine can run it and why not,
and turns an ONNX file into something that runs on named arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uare_rt.backends.null import NullBackend
from uare_rt.backends.onnxruntime_ import OnnxRuntimeBackend
from uare_rt.backends.openvino_ import OpenVinoBackend
from uare_rt.backends.tensorrt_ import TensorRtBackend
from uare_rt.errors import BackendUnavailableError, UsageError

if TYPE_CHECKING:
    from uare_rt.backends.base import Backend

__all__ = ["choose", "get", "names"]

_CPU, _CUDA, _TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        OnnxRuntimeBackend("onnxruntime", _CPU),
        OnnxRuntimeBackend("onnxruntime-cuda", _CUDA),
        OnnxRuntimeBackend("onnxruntime-tensorrt", _TENSORRT),
        OpenVinoBackend(),
        TensorRtBackend("tensorrt", "tensorrt", 'pip install "uare-rt[tensorrt]", on Jetson it comes with JetPack'),
        TensorRtBackend("tensorrt-rtx", "tensorrt_rtx", 'pip install "uare-rt[rtx]"'),
        NullBackend(),
    )
}
# TensorRT through ONNX Runtime spends minutes on engines at first use, so it is never chosen unasked.
# OpenVINO takes about twice as long to a first assessment (import and compilation), so a command line that is
# started for one photo is better off without it; long jobs can name it.
_AUTO = ("onnxruntime-cuda", "onnxruntime", "openvino")


def names() -> tuple[str, ...]:
    """Names of all backends, whether this machine can run them or not."""
    return tuple(_BACKENDS)


def get(name: str) -> Backend:
    """A backend by name.

    Raises:
        UsageError: there is no such backend.
    """
    if name not in _BACKENDS:
        raise UsageError(f"backend {name!r} does not exist; choose one of: auto, fastest, {', '.join(_BACKENDS)}")
    return _BACKENDS[name]


def choose(name: str = "auto") -> Backend:
    """A backend that this machine can run: the named one, or with ``auto`` the first that can.

    Raises:
        UsageError: there is no such backend.
        BackendUnavailableError: this machine cannot run it; the message says why.
    """
    reasons = []
    for candidate in _AUTO if name == "auto" else (name,):
        backend = get(candidate)
        capability = backend.probe()
        if capability.available:
            return backend
        reasons.append(f"{candidate}: {capability.reason}")
    raise BackendUnavailableError(
        f"no backend can run here ({'; '.join(reasons)}); see: uare-rt doctor"
        if name == "auto"
        else f"backend {'; '.join(reasons)}; see: uare-rt doctor"
    )
