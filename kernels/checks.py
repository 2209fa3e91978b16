"""Arguments of kernels, checked before any launch: a wrong pointer or stride on a GPU is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from uare_rt.errors import MissingExtraError, UsageError
from uare_rt.kernels.jit import interpreted, version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["AXIS", "FLOATS", "HALVES", "LARGEST", "Arguments", "reach"]

HALVES = (torch.float16, torch.bfloat16)
FLOATS = (*HALVES, torch.float32)
LARGEST = 2**31 - 1  # elements that kernels count in 32 bits
AXIS = 65535  # programs along the second and third axis of a grid


def reach(tensor: Tensor) -> int:
    """Elements from a tensor's first to its last in memory, gaps included."""
    if not tensor.numel():
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))


class Arguments:
    """The checks of one call of one operator.

    Args:
        op: the operator's name, for messages.
        device: where every tensor must be.

    Raises:
        UsageError: kernels do not run there.
        MissingExtraError: Triton is not installed.
    """

    def __init__(self, op: str, device: torch.device) -> None:
        self._op, self._device = op, device
        if version() is None:
            raise MissingExtraError("triton", "kernels")
        wanted = "cpu" if interpreted() else "cuda"
        self.value(
            "the device", device, device.type == wanted, f"{wanted} with TRITON_INTERPRET={int(wanted == 'cpu')}"
        )
        if wanted == "cuda":
            # Triton launches on the current device, wherever the pointers lead.
            current = torch.cuda.current_device()
            self.value("the device", device, device.index == current, f"the current one, cuda:{current}")

    def value(self, name: str, value: object, holds: bool, expected: str) -> None:
        """Refuse a value that does not hold.

        Raises:
            UsageError: naming the argument, what it is and what was expected.
        """
        if not holds:
            raise UsageError(f"{self._op}: {name} is {value}, but must be {expected}")

    def tensor(
        self,
        name: str,
        tensor: Tensor,
        shape: Sequence[int | None],
        dtypes: Sequence[torch.dtype],
        *,
        contiguous: bool = False,
    ) -> None:
        """Refuse a tensor that a kernel would misread.

        Args:
            name: of the argument.
            tensor: its value.
            shape: expected sizes, None where any will do.
            dtypes: accepted types.
            contiguous: all axes in memory order without gaps; else only the last one must be.

        Raises:
            UsageError: naming the argument and what was expected.
        """
        wanted = "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
        fits = len(shape) == tensor.ndim and all(
            want is None or want == got for want, got in zip(shape, tensor.shape, strict=False)
        )
        self.value(f"{name}'s shape", list(tensor.shape), fits, wanted)
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        self.value(f"{name}'s dtype", str(tensor.dtype).removeprefix("torch."), tensor.dtype in dtypes, names)
        self.value(f"{name}'s device", tensor.device, tensor.device == self._device, str(self._device))
        if contiguous:
            self.value(f"{name}'s stride", tensor.stride(), tensor.is_contiguous(), "that of a contiguous tensor")
        elif tensor.ndim and tensor.shape[-1] > 1:
            self.value(f"{name}'s stride", tensor.stride(), tensor.stride(-1) == 1, "1 along the last axis")
        self.count(f"{name}'s reach in memory", reach(tensor))

    def count(self, name: str, elements: int) -> None:
        """Refuse more elements than a kernel counts.

        Raises:
            UsageError: naming them.
        """
        self.value(name, elements, elements <= LARGEST, f"at most {LARGEST} elements")

    def batch(self, name: str, size: int) -> None:
        """Refuse a batch that is longer than an axis of a grid.

        Raises:
            UsageError: naming it.
        """
        self.value(f"{name}'s batch", size, size <= AXIS, f"at most {AXIS}")
