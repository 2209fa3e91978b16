"""Memory: what a device has left."""

from __future__ import annotations

import torch

from uare_rt.machine import available_memory

__all__ = ["free_memory"]


def free_memory(device: torch.device | str) -> int | None:
    """Bytes that can still be allocated on a device, or None where the system does not say.

    A GPU that shares the machine's memory (Jetson) has what the machine has: cached files make room when asked.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return available_memory()
    if device.type != "cuda":
        return None
    if torch.cuda.get_device_properties(device).is_integrated:
        return available_memory()
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held
