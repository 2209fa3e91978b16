"""Cores and memory are read with the limits of containers, from files as Linux writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from uare_rt import machine

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GiB free and no limits."""
    for name in ("_CGROUP", "_CPU", "_PROC"):
        monkeypatch.setattr(machine, name, tmp_path / name)
    write(tmp_path / "_PROC" / "meminfo", f"MemTotal: 1 kB\nMemAvailable:  {8 * GIB // 1024} kB\n")
    write(tmp_path / "_PROC" / "self" / "cgroup", "0::/box\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_this_machine_is_plausible() -> None:
    assert 1 <= machine.available_cores() <= 4096
    available, total = machine.available_memory(), machine.total_memory()
    assert available is None or available > 0
    assert available is None or total is None or available <= total


def test_memory_without_limits(fake: Path) -> None:
    assert machine.available_memory() == 8 * GIB


def test_memory_limit_of_a_container(fake: Path) -> None:
    write(fake / "_CGROUP" / "box" / "memory.max", str(2 * GIB))
    write(fake / "_CGROUP" / "box" / "memory.current", str(GIB))
    assert machine.available_memory() == GIB
    write(fake / "_CGROUP" / "box" / "memory.stat", f"anon 5\ninactive_file {GIB // 2}\n")
    assert machine.available_memory() == GIB + GIB // 2


def test_memory_limit_of_an_old_container(fake: Path) -> None:
    write(fake / "_PROC" / "self" / "cgroup", "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n")
    write(fake / "_CGROUP" / "memory" / "memory.limit_in_bytes", str(3 * GIB))
    write(fake / "_CGROUP" / "memory" / "memory.usage_in_bytes", str(GIB))
    assert machine.available_memory() == 2 * GIB


def test_unlimited_is_no_limit(fake: Path) -> None:
    write(fake / "_CGROUP" / "box" / "memory.max", "max")
    write(fake / "_CGROUP" / "box" / "memory.current", str(GIB))
    write(fake / "_CGROUP" / "box" / "cpu.max", "max 100000")
    assert machine.available_memory() == 8 * GIB
    assert machine.available_cores() >= 1


def test_hyper_threads_share_a_core(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3, 6}, raising=False)
    for cpu, siblings in {0: "0,4", 1: "1,5", 2: "2-3", 3: "2-3", 6: "6"}.items():
        write(fake / "_CPU" / f"cpu{cpu}" / "topology" / "thread_siblings_list", siblings)
    assert machine.available_cores() == 4


def test_quota_of_a_container(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    write(fake / "_CGROUP" / "box" / "cpu.max", "250000 100000")
    assert machine.available_cores() == 3


def test_free_memory_is_given_back_or_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine.trim_memory()
    monkeypatch.setattr(machine, "_trim", None)  # another C library
    machine.trim_memory()
