"""What a GPU generation allows a kernel, from the table of compute capabilities in the CUDA C++ programming guide."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LIMITS", "Limits", "occupancy"]

_WARP = 32
_REGISTER_UNIT = 256  # registers are given out to warps in units of so many
_RESERVED = 1024  # bytes of shared memory that the system takes per block


@dataclass(frozen=True)
class Limits:
    """Of one multiprocessor.

    Attributes:
        registers: 32-bit registers.
        shared: bytes of shared memory for all blocks.
        block_shared: bytes that one block may have.
        warps: resident at most.
        blocks: resident at most.
    """

    registers: int
    shared: int
    block_shared: int
    warps: int
    blocks: int


LIMITS = {
    "sm_80": Limits(65536, 164 * 1024, 163 * 1024, 64, 32),
    "sm_86": Limits(65536, 100 * 1024, 99 * 1024, 48, 16),
    "sm_87": Limits(65536, 164 * 1024, 163 * 1024, 48, 16),
    "sm_89": Limits(65536, 100 * 1024, 99 * 1024, 48, 24),
    "sm_90": Limits(65536, 228 * 1024, 227 * 1024, 64, 32),
    "sm_110": Limits(65536, 228 * 1024, 227 * 1024, 48, 24),
    "sm_120": Limits(65536, 100 * 1024, 99 * 1024, 48, 24),
}


def occupancy(target: str, registers: int, shared: int, warps: int) -> tuple[float, str]:
    """Share of the warps that a multiprocessor can hold of one kernel, and what limits it.

    Args:
        target: such as ``sm_87``.
        registers: per thread.
        shared: bytes per block.
        warps: per block.

    Returns:
        0 to 1, and ``registers``, ``shared``, ``blocks`` or ``warps``; 0 where one block does not fit.
    """
    limits = LIMITS[target]
    if shared > limits.block_shared:
        return 0.0, "shared"
    per_warp = -(-registers * _WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    fits = {
        "warps": limits.warps // warps,
        "blocks": limits.blocks,
        "registers": limits.registers // per_warp // warps,
        "shared": limits.shared // (shared + _RESERVED),
    }
    limit = min(fits, key=lambda name: fits[name])
    return fits[limit] * warps / limits.warps, limit
