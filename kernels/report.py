"""Which way the kernels go on this machine, as JSON: ``python -m uare_rt.kernels.report [HEAD_DIM...]``.

In a process of its own for `uare-rt doctor`, which has loaded backends that PyTorch does not get along with. On a GPU
it runs one kernel and compares: that something is installed proves nothing.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import torch

from uare_rt.kernels import attention, dispatch

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["full_report", "main"]

_TOLERANCE = 0.01


def full_report(head_dims: Iterable[int] = ()) -> dict[str, Any]:
    """`uare_rt.kernels.dispatch.report` with a trial of every device that takes Triton.

    Args:
        head_dims: sizes of the attention heads of models that are to run here.

    Returns:
        As there; ``works`` is whether the trial's result was right, None where torch does the work. ``unfit`` has the
        reason for every head size that goes the torch way on any device.
    """
    found = dispatch.report()
    found["unfit"] = [reason for reason in map(dispatch.unfit_head, head_dims) if reason]
    for index, device in enumerate(found["devices"]):
        device["works"] = None
        if device["path"] == "triton":
            place = torch.device("cpu") if index == 0 else torch.device("cuda", index - 1)
            device["works"], device["reason"] = _trial(place, device["reason"])
    return found


def _trial(device: torch.device, reason: str) -> tuple[bool, str]:
    q, k = (torch.randn(1, heads, 33, 64, device=device).half() for heads in (4, 2))
    try:
        got = dispatch.call("attention", q, k, k)
        gap = float((got.float() - attention.reference(q.float(), k.float(), k.float())).abs().max())
    except Exception as error:  # compiler, driver and runtime raise what they like
        return False, f"{reason}, but a kernel fails there: {type(error).__name__}: {str(error)[:200]}"
    if not gap < _TOLERANCE:
        return False, f"{reason}, but a kernel's result is wrong by {gap:.3g}"
    return True, reason


def main() -> None:
    """Print the report."""
    sys.stdout.write(json.dumps(full_report(map(int, sys.argv[1:]))) + "\n")


if __name__ == "__main__":
    main()
