"""Every variant that is compiled ahead of time, by operator."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uare_rt.kernels.variants import Variant

__all__ = ["OPERATORS", "all_variants"]

OPERATORS = (
    "attention", "attention_int8", "changes", "emit", "flow_step", "gemm", "gemm_w8a8", "ingest", "modulated_conv",
    "modulation", "plugins", "qk_rope", "routed_norm", "swiglu", "window_attention",
)  # fmt: skip


def all_variants() -> dict[str, list[Variant]]:
    """The variants of every operator, in the order of `OPERATORS`."""
    return {op: import_module(f"uare_rt.kernels.{op}").variants() for op in OPERATORS}
