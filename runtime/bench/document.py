"""One run of `uare-rt bench`: what was asked for, what was measured, where, and how it reads."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uare_rt._version import __version__
from uare_rt.bench.limits import COPY_BYTES, GEMM_FLOP, Probe, accelerator_limits
from uare_rt.bench.memory import peak_memory
from uare_rt.bench.pairs import interleaved, ratio
from uare_rt.bench.subjects import Rig, Subject
from uare_rt.compiled import compiled_variant
from uare_rt.machine import available_cores, cpu_model, total_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from uare_rt.bench.pairs import Samples
    from uare_rt.bundle import Bundle

__all__ = ["Request", "installed_versions", "machine_facts", "measure"]

_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13")
_GHZ = 1e6  # the system tells kHz


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        bundles: opened, by name.
        subjects: what to time; ratios are to the first.
        rounds: that count.
        memory: measure each subject's peak memory too, in processes of their own.
        command: as it was typed.
        progress: called after each round with the number done and the total.
    """

    bundles: Mapping[str, Bundle]
    subjects: Sequence[Subject]
    rounds: int
    memory: bool
    command: str
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)


def measure(request: Request) -> dict[str, Any]:
    """Measure, everything in turn: subjects, and the machine's limits between them.

    Returns:
        Ready for JSON; see ``uare-rt bench --help``.

    Raises:
        BackendError: a subject cannot be loaded or run.
    """
    rig = Rig(dict(request.bundles))
    counts = sorted({subject.threads for subject in request.subjects})
    with contextlib.ExitStack() as stack:
        stack.callback(rig.close)
        probes = {count: stack.enter_context(Probe(count)) for count in counts}
        calls: dict[str, Callable[[], float | None]] = {s.name: rig.call(s) for s in request.subjects}
        for count, probe in probes.items():
            calls[f"gemm {count}"], calls[f"copy {count}"] = probe.gemm, probe.copy
        samples = interleaved(calls, rounds=request.rounds, progress=request.progress)
    gemm = {count: samples[f"gemm {count}"] for count in counts}
    reference = samples[request.subjects[0].name]
    rows = [_row(subject, samples[subject.name], reference, gemm[subject.threads]) for subject in request.subjects]
    if request.memory:
        for subject, row in zip(request.subjects, rows, strict=True):
            row["peak_mb"] = peak_memory(subject, request.bundles[subject.bundle].path) / 1e6
    return {
        "benchmark": "bench",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "command": request.command,
        "machine": machine_facts(),
        "versions": installed_versions(_PACKAGES),
        "bundles": {
            name: {"preset": b.manifest.preset, "weights_sha256": b.manifest.source.weights_sha256}
            for name, b in request.bundles.items()
        },
        "rounds": request.rounds,
        "limits": {
            "threads": [
                {
                    "threads": count,
                    "gemm_gflops": GEMM_FLOP / gemm[count].median / 1e9,
                    "copy_gb_s": COPY_BYTES / samples[f"copy {count}"].median / 1e9,
                }
                for count in counts
            ],
            "accelerator": accelerator_limits(),
        },
        "subjects": rows,
    }


def machine_facts() -> dict[str, Any]:
    """The processor, its clock at this moment where the system tells it, memory, and how busy it is."""
    memory = total_memory()
    return {
        "cpu": cpu_model(),
        "cores": available_cores(),
        "clock_ghz": _clock(),
        "memory_gib": None if memory is None else round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _row(subject: Subject, samples: Samples, reference: Samples, gemm: Samples) -> dict[str, Any]:
    seconds = samples.median
    rate = None if subject.flops is None else subject.flops / seconds / 1e9
    # Of the same rounds, as every ratio.
    share = None if subject.flops is None else subject.flops / GEMM_FLOP / ratio(samples.wall, gemm.wall)
    return {
        **asdict(subject),
        "name": subject.name,
        "median_ms": seconds * 1e3,
        "least_ms": min(samples.wall) * 1e3,
        "cpu_ms": sorted(samples.cpu)[len(samples.cpu) // 2] * 1e3,
        "ratio": ratio(samples.wall, reference.wall),
        "megapixels_per_s": None if subject.kind == "assess" else subject.pixels / seconds / 1e6,
        "gflops": rate,
        "share_of_gemm": share,
        "times_ms": [round(wall * 1e3, 3) for wall in samples.wall],
    }


def _clock() -> float | None:
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").read_text()) / _GHZ
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        return round(float(next(line for line in lines if line.startswith("cpu MHz")).partition(":")[2]) / 1e3, 3)
    return None


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python, this package and others, those that are missing left out, and what was compiled with it."""
    found = {"python": platform.python_version(), "uare-rt": __version__}
    compiled = compiled_variant()
    if compiled is not None:
        found["compiled layers"] = compiled
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
