"""Which way a call goes: Triton or plain torch, by setting, device and tensors; with a reason, and counted.

`UARE_KERNELS` decides: ``auto`` (the default) takes Triton for CUDA tensors on a GPU that has tiles, ``reference``
never does, ``triton`` fails where the device rules it out (CPU tensors need Triton's interpreter,
``TRITON_INTERPRET=1``). What a kernel cannot do for a tensor goes the torch way under any setting.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch

from uare_rt.errors import BackendUnavailableError, UsageError
from uare_rt.kernels.checks import FLOATS, LARGEST, reach

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

__all__ = ["SETTING", "Choice", "choose", "decide", "odd_type", "of_gpu", "setting", "skipped", "taken", "using"]

SETTING = "UARE_KERNELS"
_WAYS = ("auto", "reference", "triton")
_PRODUCTS = ("attention", "gemm", "layer", "modulated_conv", "swiglu", "window_attention")
_LOG = logging.getLogger(__name__)

_forced: list[str] = []
taken: Counter[tuple[str, str, str]] = Counter()
"""How often an operator went a way for a reason, in this process."""


@dataclass(frozen=True)
class Choice:
    """Which way tensors of one device go.

    Attributes:
        path: ``triton`` or ``reference``.
        reason: why.
        target: whose tiles Triton uses; empty for the reference.
    """

    path: str
    reason: str
    target: str = ""


def setting() -> str:
    """``auto``, ``reference`` or ``triton``.

    Raises:
        UsageError: ``UARE_KERNELS`` has no such value.
    """
    way = _forced[-1] if _forced else os.environ.get(SETTING, "auto")
    if way not in _WAYS:
        raise UsageError(f"{SETTING} is {way!r}, but must be one of {', '.join(_WAYS)}")
    return way


@contextmanager
def using(way: str) -> Iterator[None]:
    """Within the block, decide by ``way`` instead of the environment.

    Raises:
        UsageError: not one of ``auto``, ``reference`` and ``triton``.
    """
    _forced.append(way)
    try:
        setting()
        yield
    finally:
        _forced.pop()


def choose(device: torch.device) -> Choice:
    """Which way tensors on a device go, and why.

    Raises:
        UsageError: ``UARE_KERNELS`` has no such value.
    """
    return _choose(device.type, device.index or 0, setting())


@cache
def _choose(kind: str, index: int, way: str) -> Choice:
    from uare_rt.kernels.jit import interpreted, version

    if way == "reference":
        return Choice("reference", f"{SETTING}=reference")
    if version() is None:
        return Choice("reference", 'Triton is not installed (pip install "uare-rt[kernels]")')
    if interpreted():
        if kind == "cpu" and way == "triton":
            return Choice("triton", "Triton's interpreter, on the CPU", "sm_87")
        return Choice("reference", f"TRITON_INTERPRET=1 is used for CPU tensors with {SETTING}=triton only")
    if kind != "cuda":
        return Choice("reference", f"a {kind} tensor; Triton runs on CUDA devices")
    return of_gpu(*torch.cuda.get_device_capability(index))


def of_gpu(major: int, minor: int) -> Choice:
    """Which way tensors on a GPU of a compute capability go."""
    from uare_rt.kernels.jit import version
    from uare_rt.kernels.tiles import TARGETS

    target = f"sm_{major}{minor}"
    if target not in TARGETS:
        return Choice("reference", f"{target} has no tiles; known: {', '.join(TARGETS)}")
    if (version() or (0, 0)) < (3, 6):
        return Choice("reference", "Triton is older than 3.6")
    return Choice("triton", f"CUDA device of {target}", target)


def skipped(tensor: Tensor) -> bool:
    """Whether the kernels are out of the question: the usual case on a CPU, decided before anything is imported.

    While a graph is recorded they are, whatever the setting: it must hold plain operators.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    return tensor.device.type == "cpu" and setting() != "triton"


def decide(op: str, tensors: Sequence[Tensor], problem: str | None = None) -> Choice:
    """The choice for one call, recorded.

    Args:
        op: the operator's name.
        tensors: everything that it reads; the first decides about the device.
        problem: why this call cannot go through Triton, None if nothing is known against it.

    Raises:
        BackendUnavailableError: ``UARE_KERNELS=triton``, but not on this device.
    """
    choice = choose(tensors[0].device)
    if choice.path == "reference" and setting() == "triton":
        raise BackendUnavailableError(f"{SETTING}=triton, but {op} cannot use Triton: {choice.reason}")
    if choice.path == "triton":
        problem = problem or _unfit(op, tensors)
        if problem:
            choice = Choice("reference", problem)
    key = (op, choice.path, choice.reason)
    if key not in taken:
        _LOG.info("%s goes the %s way: %s", *key)
    taken[key] += 1
    return choice


def _unfit(op: str, tensors: Sequence[Tensor]) -> str | None:
    from uare_rt.kernels.jit import interpreted

    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "gradients are wanted; the kernels have none"
    if torch.is_autocast_enabled(tensors[0].device.type):
        return "autocast chooses the types; the kernels take tensors as they are"
    if interpreted() and any(tensor.dtype == torch.bfloat16 for tensor in tensors):
        return "the interpreter is unreliable with bf16"
    if op in _PRODUCTS and not interpreted() and tensors[0].dtype == torch.float32:
        return "products in float32, which kernels compute without the GPU's matrix units"
    largest = max(reach(tensor) for tensor in tensors)
    if largest > LARGEST:
        return f"a tensor that reaches over {largest} elements; the kernels count up to {LARGEST}"
    return None


def odd_type(tensors: Sequence[Tensor]) -> str | None:
    """Why floating-point tensors of these types cannot go through one kernel, None if they can."""
    types = [tensor.dtype for tensor in tensors]
    odd = next((dtype for dtype in types if dtype not in FLOATS or dtype != types[0]), None)
    return None if odd is None else f"{odd} tensors" + (f" beside {types[0]} ones" if odd != types[0] else "")
