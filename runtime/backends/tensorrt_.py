"""TensorRT and TensorRT-RTX: engines of a bundle, or compiled at the first load and kept.

Not yet run on a GPU: the logic is tested against a driver that enforces CUDA's rules, engines were built only.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from uare_rt.backends.base import Capability, one_line
from uare_rt.backends.cuda_driver import CudaDriver
from uare_rt.backends.engine_cache import EngineCache, cache_directory, engine_key, rebuilds_refused
from uare_rt.backends.tensorrt_build import BuildOptions, build_engine
from uare_rt.backends.tensorrt_run import EngineRunner
from uare_rt.errors import BackendError, BackendUnavailableError
from uare_rt.manifest import PENDING, EngineSpec

if TYPE_CHECKING:
    from pathlib import Path

    from uare_rt.backends.cuda_driver import Driver
    from uare_rt.bundle import GraphFile

__all__ = ["TensorRtBackend"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TensorRtBackend:
    """One of the two, parameterised by its module.

    Attributes:
        name: of the backend.
        module: that is imported.
        package: that a person installs.
        rebuild: compile where an engine is missing or does not fit; otherwise that is an error.
        driver: CUDA; None opens device 0 at the first load.
    """

    name: str
    module: str
    package: str
    rebuild: bool = True
    driver: Driver | None = None

    # Compiling an engine takes minutes.
    worth_sizing = None
    runs_parts = False
    precisions = ()

    def probe(self) -> Capability:
        """Whether the module and a CUDA device are here."""
        try:
            trt = self._import()
        except BackendUnavailableError as error:
            return Capability(self.name, False, str(error))
        try:
            device = self._open().capability()
        except BackendError as error:
            return Capability(self.name, False, str(error), trt.__version__)
        return Capability(self.name, True, f"{self.module} on {device}", trt.__version__, ("GPU",))

    def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> EngineRunner:
        """Load a graph's engine, compiling it first where needed; see ``Backend.load``."""
        trt, driver = self._import(), self._open()
        device = driver.capability()
        unfit = self._unfit(trt, graph, device)
        if unfit is None:
            assert graph.engine is not None
            content = graph.engine.read_bytes()
        else:
            if not self.rebuild or rebuilds_refused():
                raise BackendError(
                    f"graph {graph.name!r}: {unfit}, and rebuilding was refused; {_way_out(graph, device)}"
                )
            _log.warning("graph %s: %s; compiling it for %s, which takes a while once", graph.name, unfit, device)
            content = self._compile(trt, graph, device)
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        runtime.error_recorder = _recorder(trt)
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise BackendError(
                f"{self.name} {trt.__version__} cannot load the engine of graph {graph.name!r} on {device}; "
                f"{_way_out(graph, device)}"
            )
        return EngineRunner(trt, engine, driver, graph.name)

    def _unfit(self, trt: Any, graph: GraphFile, device: str) -> str | None:
        """Why the bundle's engine cannot be used here; None where it can."""
        spec = graph.spec.engine
        if not isinstance(spec, EngineSpec):
            return "its engine is pending" if spec == PENDING else "the bundle has no engine for it"
        here = f"this device is {device} with {self.name} {trt.__version__}"
        if spec.version != trt.__version__:
            return f"its engine was built with version {spec.version}, {here}"
        if device not in spec.targets:
            return f"its engine was built for {', '.join(spec.targets)}, {here}"
        if spec.onnx_sha256 != _sha256(graph.path):
            return "its engine was built from another graph"
        return None

    def _compile(self, trt: Any, graph: GraphFile, device: str) -> bytes:
        profile = graph.spec.profile or {}
        facts = {
            "onnx": _sha256(graph.path),
            "weights": sorted(_sha256(path) for path in graph.path.parent.glob("*.bin")),
            "device": device,
            "backend": self.name,
            "version": trt.__version__,
            "precision": graph.spec.precision,
            "profile": msgspec.to_builtins(profile),
        }
        ahead = hasattr(trt, "ComputeCapability")
        timing = None if ahead else cache_directory().parent / f"timing-{device}-{trt.__version__}.cache"

        def build() -> bytes:
            options = BuildOptions(
                profile,
                targets=(device,) if ahead and device.upper() in trt.ComputeCapability.__members__ else (),
                timing_cache=None if timing is None else _content(timing),
            )
            built = build_engine(trt, graph.path, options)
            if timing is not None and built.timing_cache is not None:
                _keep(timing, built.timing_cache)
            return built.engine

        return EngineCache().get(engine_key(facts), build)

    def _import(self) -> Any:
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            raise BackendUnavailableError(
                f"{self.module} cannot be imported ({one_line(error)}): {self.package}"
            ) from error
        except Exception as error:  # a broken installation fails in many ways, all of them a reason
            raise BackendUnavailableError(f"{self.module} does not start ({one_line(error)}); reinstall it") from error

    def _open(self) -> Driver:
        return self.driver or CudaDriver()


def _recorder(trt: Any) -> Any:
    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]
        """Keeps what went wrong until the runner asks for it."""

        def __init__(self) -> None:
            super().__init__()
            self._errors: list[tuple[Any, str]] = []

        def num_errors(self) -> int:
            return len(self._errors)

        def get_error_code(self, index: int) -> Any:
            return self._errors[index][0]

        def get_error_desc(self, index: int) -> str:
            return self._errors[index][1]

        def has_overflowed(self) -> bool:
            return False

        def clear(self) -> None:
            self._errors.clear()

        def report_error(self, code: Any, desc: str) -> bool:
            self._errors.append((code, desc))
            return False

    return Recorder()


def _way_out(graph: GraphFile, device: str) -> str:
    return f"run: uare-rt build --model FLOAT32.uare --target {device} -o {graph.path.parent.name}"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _keep(path: Path, content: bytes) -> None:
    """Write a timing cache, whole or not at all; it only saves time, so that failing to is no error."""
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        _log.warning("%s cannot be written (%s)", path, error.strerror)
