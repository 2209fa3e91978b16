"""Doctor: what this machine can run, found out by running it, with the reason for everything it cannot."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uare_rt import backends
from uare_rt._version import __version__
from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.checkpoints import exported, is_checkpoint
from uare_rt.errors import UareError
from uare_rt.machine import available_cores, available_memory, total_memory
from uare_rt.manifest import Manifest, UnifiedManifest
from uare_rt.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.backends.base import Backend, Capability

__all__ = ["BackendReport", "Report", "diagnose"]

_PACKAGES = (
    *("numpy", "pillow", "av", "msgspec", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt-rtx-cu13", "cuda-bindings", "torch", "triton", "onnx"),
)
_FEATURES = (
    *("sse4_2", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
_OLDEST_TENSORRT = (10, 3)
_NVIDIA = (Path("/dev/nvidiactl"), Path("/dev/nvhost-gpu"), Path("/dev/dxg"))
_SIDE = 128  # px of the frame that proves a backend
_PATIENCE = 120  # s for PyTorch to load and a kernel to be compiled
_TOLERANCE = 0.02  # half precision differs by less; a wrong result by much more


@dataclass(frozen=True)
class BackendReport:
    """What became of one backend.

    Attributes:
        name: of the backend.
        works: it ran a real inference and the result was right.
        reason: what it ran on, or why it does not work.
        version: of its software, empty where absent.
        devices: what it could run on.
        seconds: of one restoration of a small frame, warm; of uare-7b with one evaluation, loading included; None
            where it did not run.
        difference: largest difference from the first backend that worked, samples in [0, 1]; None likewise.
    """

    name: str
    works: bool
    reason: str
    version: str
    devices: tuple[str, ...]
    seconds: float | None = None
    difference: float | None = None


@dataclass(frozen=True)
class Report:
    """The state of this machine and installation.

    Attributes:
        version: of uare-rt.
        python: version of Python.
        system: operating system and machine.
        processor: its name.
        features: its instruction sets that matter here.
        cores: physical cores this process may use.
        memory_total: bytes, or None where unknown.
        memory_available: bytes, or None where unknown.
        packages: versions of the packages that matter, of those installed.
        bundle: the bundle that was run.
        default_backend: what ``auto`` chooses, or None.
        backends: one entry for each backend.
        kernels: which way the kernels of `uare_rt.kernels` go on each device and why, and what they cannot take of the
            bundle's model; empty without PyTorch.
        warnings: what should be put right, one sentence each.
    """

    version: str
    python: str
    system: str
    processor: str
    features: tuple[str, ...]
    cores: int
    memory_total: int | None
    memory_available: int | None
    packages: dict[str, str]
    bundle: str
    default_backend: str | None
    backends: tuple[BackendReport, ...]
    kernels: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        return asdict(self)


def diagnose(bundle: Path | None = None) -> Report:
    """Look at this machine and run every backend that it has.

    Args:
        bundle: what to run, a bundle or a checkpoint directory; None takes the one that comes with the package.

    Raises:
        InputError: the checkpoint cannot be exported.
    """
    path = shipped_bundle() if bundle is None else exported(bundle) if is_checkpoint(bundle) else bundle
    packages = _packages()
    reports, problem = _run_all(path)
    name, features = _processor()
    try:
        default = backends.choose().name
    except UareError:
        default = None
    return Report(
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=name,
        features=features,
        cores=available_cores(),
        memory_total=total_memory(),
        memory_available=available_memory(),
        packages=packages,
        bundle=str(path),
        default_backend=default,
        backends=reports,
        kernels=_kernels(path) if "torch" in packages else (),
        warnings=tuple(([problem] if problem else []) + package_warnings(packages) + _gpu_warnings(reports)),
    )


def package_warnings(packages: dict[str, str]) -> list[str]:
    """What is wrong with a set of installed packages.

    Args:
        packages: version of each installed package, by its name.

    Returns:
        One sentence for each problem, with the way out.
    """
    found = []
    if "onnxruntime" in packages and "onnxruntime-gpu" in packages:
        found.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "pip uninstall onnxruntime onnxruntime-gpu, then install the one you need"
        )
    tensorrt = packages.get("tensorrt")
    if tensorrt and tuple(int(n) for n in re.findall(r"\d+", tensorrt)[:2]) < _OLDEST_TENSORRT:
        found.append(
            f"TensorRT {tensorrt} is too old, {'.'.join(map(str, _OLDEST_TENSORRT))} is the first that works: "
            "upgrade it (on Jetson: JetPack 6.2 or newer)"
        )
    return found


def _run_all(path: Path) -> tuple[tuple[BackendReport, ...], str | None]:
    bundle: Bundle | None = None
    problem = None
    try:
        bundle = Bundle.open(path)
        bundle.verify()
    except UareError as error:
        problem = str(error)
    reports = []
    reference: NDArray[np.float32] | None = None
    for name in backends.names():
        report, result = _run(backends.get(name).probe(), bundle, reference)
        reports.append(report)
        if report.works and reference is None:
            reference = result
    return tuple(reports), problem


def _run(
    capability: Capability, bundle: Bundle | None, reference: NDArray[np.float32] | None
) -> tuple[BackendReport, NDArray[np.float32] | None]:
    def report(works: bool, reason: str, seconds: float | None = None, gap: float | None = None) -> BackendReport:
        return BackendReport(capability.name, works, reason, capability.version, capability.devices, seconds, gap)

    if not capability.available:
        return report(False, capability.reason), None
    if bundle is None:
        return report(False, "not run: there is no usable bundle to run"), None
    frame = np.random.default_rng(0).random((_SIDE, _SIDE, 3), dtype=np.float32)
    try:
        run = _unified if isinstance(bundle.manifest, UnifiedManifest) else _nano
        result, seconds = run(bundle, backends.get(capability.name), frame)
    except UareError as error:
        return report(False, str(error)), None
    if capability.name == "null":
        return report(True, capability.reason, seconds), None
    gap = 0.0 if reference is None else float(np.abs(result - reference).max())
    if gap > _TOLERANCE:
        return report(False, f"it runs but its result is wrong by {gap:.3g}", seconds, gap), None
    return report(True, capability.reason, seconds, gap), result


def _nano(bundle: Bundle, backend: Backend, frame: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    with Session(bundle, backend) as session:
        context = session.assess(frame).context
        session.restore(frame, context=context)
        began = time.perf_counter()
        result = session.restore(frame, context=context).image
        return result, time.perf_counter() - began


def _unified(bundle: Bundle, backend: Backend, frame: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """One evaluation, once: at 7B's size a processor takes minutes for it."""
    from uare_rt.vlm.flow import Flow
    from uare_rt.vlm.session import UnifiedSession

    with UnifiedSession(bundle, backend) as session:
        # Any text will do, and without the tokenizer's library.
        restored = session.restore(frame, flow=Flow(points=2), verdict=False, instruction=[0])
    return restored.image, restored.seconds


def _packages() -> dict[str, str]:
    installed = {
        re.sub(r"[-_.]+", "-", distribution.name).lower(): distribution.version
        for distribution in metadata.distributions()
        if distribution.name
    }
    return {name: installed[name] for name in _PACKAGES if name in installed}


def _kernels(bundle: Path) -> tuple[str, ...]:
    """Asked in a process of its own: PyTorch after the backends in one process crashed."""
    command = [sys.executable, "-m", "uare_rt.kernels.report", *_head_dims(bundle)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
        found = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return (f"not known: {error}",)
    if found is None:
        return (f"not known: {(done.stderr.strip().splitlines() or ['no message'])[-1]}",)
    ways = {None: "torch", True: "Triton, tried", False: "Triton, broken"}
    devices = (f"{device['name']}: {ways[device['works']]} ({device['reason']})" for device in found["devices"])
    return (*devices, *(f"attention of the bundle's model: torch ({reason})" for reason in found["unfit"]))


def _head_dims(path: Path) -> list[str]:
    """Sizes of the attention heads of a bundle's model."""
    try:
        manifest = Bundle.open(path).manifest
    except UareError:
        return []
    return [str(manifest.context.head_dim if isinstance(manifest, Manifest) else manifest.unified.head_dim)]


def _gpu_warnings(reports: tuple[BackendReport, ...]) -> list[str]:
    if not any(path.exists() for path in _NVIDIA) or any(r.works and "GPU" in r.devices for r in reports):
        return []
    return ["an NVIDIA GPU seems to be here, but no backend runs on it; see the reasons above"]


def _processor() -> tuple[str, tuple[str, ...]]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), ()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    name = facts.get("model name") or facts.get("Model") or platform.machine()
    return name, tuple(feature for feature in _FEATURES if feature in flags)
