"""What this machine gives to this process: processor cores and memory, limits of containers included."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "available_cores",
    "available_memory",
    "cpu_identity",
    "cpu_model",
    "total_memory",
    "trim_memory",
]

_CGROUP = Path("/sys/fs/cgroup")
_CPU = Path("/sys/devices/system/cpu")
_PROC = Path("/proc")


def available_cores() -> int:
    """Physical cores this process may use: affinity, hyper-threads and the container's quota considered."""
    if hasattr(os, "sched_getaffinity"):
        logical = os.sched_getaffinity(0)
        siblings = {_read(_CPU / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu) for cpu in logical}
        cores = len(siblings)
    else:
        cores = os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def cpu_model() -> str:
    """The processor's name, or its architecture where the system does not say."""
    return _cpu_fact("model name") or platform.processor() or platform.machine()


def cpu_identity() -> str:
    """The processor's name and what it can do: virtual machines of one name differ in their instructions."""
    return f"{cpu_model()}: {_cpu_fact('flags') or _cpu_fact('Features') or platform.machine()}"


def _cpu_fact(wanted: str) -> str | None:
    for line in (_read(_PROC / "cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            return value.strip()
    return None


def total_memory() -> int | None:
    """Physical memory in bytes, or None where the system does not say."""
    return _pages("SC_PHYS_PAGES")


def available_memory() -> int | None:
    """Bytes this process can still allocate without swapping, or None where the system does not say."""
    candidates = [_meminfo_available() or _pages("SC_AVPHYS_PAGES"), *_cgroup_headroom()]
    known = [value for value in candidates if value is not None]
    return max(0, min(known)) if known else None


def trim_memory() -> None:
    """Give free memory back to the system, where the allocator is glibc's: threads that pass frames on hoard it."""
    if _trim is not None:
        _trim(0)


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, Windows
        return None
    function.argtypes, function.restype = (ctypes.c_size_t,), ctypes.c_int
    return cast("Callable[[int], int]", function)


_trim = _malloc_trim()


def _meminfo_available() -> int | None:
    for line in (_read(_PROC / "meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _pages(name: str) -> int | None:
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _cgroup_folders(controller: str) -> list[Path]:
    folders = []
    for line in (_read(_PROC / "self" / "cgroup") or "").splitlines():
        _, names, path = line.split(":", 2)
        if not names or controller in names.split(","):
            root = _CGROUP / names if names else _CGROUP
            # Inside a container the path may be that of the host, and the limit sits at the root.
            folders += [root / path.lstrip("/"), root]
    return folders


def _cgroup_headroom() -> list[int]:
    found = []
    for folder in _cgroup_folders("memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None:
                # Cached files count as used, but make room when asked.
                found.append(limit - used + _statistic(folder / "memory.stat", cache_name))
    return found


def _statistic(path: Path, name: str) -> int:
    for line in (_read(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _cpu_quota() -> float | None:
    for folder in _cgroup_folders("cpu"):
        fields = (_read(folder / "cpu.max") or "").split()
        if len(fields) == 2 and fields[0].isdigit():
            return int(fields[0]) / int(fields[1])
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota and period:
            return quota / period
    return None


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text is not None and text.isdigit() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
