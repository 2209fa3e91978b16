"""Poisoned memory and fair comparisons for kernel tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

ON_GPU = os.environ.get("UARE_KERNEL_TESTS") == "gpu"
DEVICE = torch.device("cuda", 0) if ON_GPU else torch.device("cpu")
TARGET = "sm_{}{}".format(*torch.cuda.get_device_capability()) if ON_GPU else "sm_87"
# The interpreter multiplies no bf16 matrices; what casts to fp32 on reading works there. Compiled, products of large
# tiles in fp32 take minutes to compile, and no dispatch takes them.
READ = (torch.float16, torch.bfloat16, torch.float32)
DTYPES = (torch.float16, torch.bfloat16) if ON_GPU else (torch.float16, torch.float32)
_GUARD = 4096  # elements before and after that nobody may read into a result or write to


class Memory:
    """Makes tensors that lie between poisoned memory, and tells whether that was written to."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._guards: list[tuple[Tensor, Tensor]] = []

    def put(self, values: Tensor) -> Tensor:
        """A copy of ``values`` on the device of the tests, with poison before and after it."""
        poison = float("nan") if values.is_floating_point() else torch.iinfo(values.dtype).max
        count = values.numel()
        memory = torch.full((count + 2 * _GUARD,), poison, dtype=values.dtype, device=DEVICE)
        inner = memory[_GUARD : _GUARD + count]
        inner.copy_(values.flatten())
        self._guards.append((memory, memory.clone()))
        return inner.view(values.shape)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
        return self.put(torch.randn(shape, generator=self._generator, device="cpu").to(dtype))

    def intact(self) -> bool:
        """Whether all poison is still what it was."""
        return all(
            torch.equal(now[part].view(torch.uint8), before[part].view(torch.uint8))
            for now, before in self._guards
            for part in (slice(0, _GUARD), slice(now.numel() - _GUARD, None))
        )


def relative_error(got: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference over that of the exact result."""
    return float((got.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def as_good_as(got: Tensor, own: Tensor, exact: Tensor) -> bool:
    """Whether ``got`` is finite and at most twice as far from the exact result as torch's own of the same type.

    In fp32, where the order of a sum decides, a few units in the last place are allowed.
    """
    unit = float(torch.finfo(got.dtype).eps)
    least = 2 * unit if got.dtype == torch.float32 else unit / 4
    limit = 2 * max(relative_error(own, exact), least)
    return bool(got.isfinite().all()) and relative_error(got, exact) <= limit


def doubles(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensor.double() for tensor in tensors)
