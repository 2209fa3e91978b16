"""The devices that engines are built for, and what each can compute in.

A target is named after its compute capability: ``sm87`` is 8.7.
"""

from __future__ import annotations

from dataclasses import dataclass

from uare_rt.errors import UsageError

__all__ = ["DEFAULT_TARGETS", "PRECISIONS", "Target", "check_precision", "parse_targets"]

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
"""What a build can produce; `int4` are weights alone, of the large model."""

DEFAULT_TARGETS = ("sm86", "sm89", "sm120")


@dataclass(frozen=True)
class Target:
    """One compute capability.

    Attributes:
        name: for example `sm87`.
        devices: what has it, for people.
        precisions: what its tensor cores compute in, and fp32.
    """

    name: str
    devices: str
    precisions: tuple[str, ...]


_TURING = ("fp32", "fp16", "int8")
_AMPERE = ("fp32", "fp16", "bf16", "int8", "int4")
_ADA = (*_AMPERE, "fp8")
_BLACKWELL = (*_ADA, "fp4")
_TARGETS = {
    target.name: target
    for target in (
        Target("sm75", "GeForce RTX 20, T4", _TURING),
        Target("sm80", "A100", _AMPERE),
        Target("sm86", "GeForce RTX 30, A10", _AMPERE),
        Target("sm87", "Jetson Orin", _AMPERE),
        Target("sm89", "GeForce RTX 40, L4", _ADA),
        Target("sm90", "H100", _ADA),
        Target("sm100", "B200", _BLACKWELL),
        Target("sm110", "Jetson Thor", _BLACKWELL),
        Target("sm120", "GeForce RTX 50", _BLACKWELL),
        Target("sm121", "DGX Spark", _BLACKWELL),
    )
}
_KNOWN_PRECISIONS = frozenset(precision for target in _TARGETS.values() for precision in target.precisions)


def parse_targets(text: str) -> tuple[Target, ...]:
    """Read a list such as ``sm86,sm89``; each is kept once.

    Raises:
        UsageError: a name is no target, or there is none.
    """
    names = list(dict.fromkeys(name.strip().lower().replace("sm_", "sm") for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError(f"--target {text!r}: name at least one of {', '.join(_TARGETS)}")
    for name in names:
        if name not in _TARGETS:
            known = ", ".join(f"{target.name} ({target.devices})" for target in _TARGETS.values())
            raise UsageError(f"--target {name}: no such target; choose among {known}")
    return tuple(_TARGETS[name] for name in names)


def check_precision(precision: str, targets: tuple[Target, ...]) -> None:
    """Refuse a precision that a target cannot compute in or that is not built here.

    Raises:
        UsageError: naming what is possible.
    """
    for target in targets:
        if precision not in target.precisions:
            possible = ", ".join(name for name in target.precisions if name in PRECISIONS)
            what = "has no" if precision in _KNOWN_PRECISIONS else "knows no"
            raise UsageError(f"--precision {precision}: {target.name} ({target.devices}) {what} {precision}; "
                             f"possible there: {possible}")  # fmt: skip
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: the devices have it, but it is not built; choose one of: "
                         f"{', '.join(PRECISIONS)}")  # fmt: skip
