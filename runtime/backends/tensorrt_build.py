"""Compiling a graph with TensorRT or TensorRT-RTX.

Both have one API; what differs between them and between versions is asked for by feature. Precision is in the graph,
so every network is strongly typed. TensorRT compiles for the device it runs on; TensorRT-RTX compiles ahead of time
for any compute capabilities and needs no device. A timing cache is TensorRT's alone: TensorRT-RTX would look for a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uare_rt.backends.base import one_line
from uare_rt.errors import BackendError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from uare_rt.manifest import Profile

__all__ = ["BuildOptions", "Built", "build_engine"]

_MIB = 1 << 20


@dataclass(frozen=True)
class BuildOptions:
    """How to compile.

    Attributes:
        profile: shapes of every input with dynamic dimensions; equal shapes make them static.
        targets: names such as `sm86`, for software that compiles ahead of time; else the device at hand is taken.
        workspace_mib: most scratch memory a layer may use, in MiB; None leaves it to the software.
        timing_cache: content of an earlier timing cache, empty to start one, None for none.
    """

    profile: Mapping[str, Profile]
    targets: tuple[str, ...] = ()
    workspace_mib: int | None = None
    timing_cache: bytes | None = None


@dataclass(frozen=True)
class Built:
    """A compiled graph.

    Attributes:
        engine: its serialised form.
        layers: name, kind and output type of every layer of the network, before the compiler fuses them.
        timing_cache: for the next build; None where there is none.
    """

    engine: bytes
    layers: list[dict[str, str]]
    timing_cache: bytes | None


def build_engine(
    trt: Any, model: Path, options: BuildOptions, progress: Callable[[float], bool] = lambda _: True
) -> Built:
    """Compile an ONNX file.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        model: the file; weights beside it are found.
        options: how.
        progress: called with the finished part, 0..1; returning False stops the build.

    Raises:
        BackendError: the graph is refused (the message names node and layer), or the build failed or was stopped.
        UsageError: the software cannot compile for a target.
    """
    log = _log(trt)
    builder = trt.Builder(log)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # later versions know nothing else
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(model)):
        raise BackendError(f"{trt.__name__} {trt.__version__} cannot parse {model.name}: {_parser_error(parser)}")
    config = builder.create_builder_config()
    _set_targets(trt, config, options.targets)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
    if hasattr(config, "profiling_verbosity"):
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _set_shapes(builder, network, config, options.profile, model)
    cache = None
    if options.timing_cache is not None:
        cache = config.create_timing_cache(options.timing_cache)
        config.set_timing_cache(cache, ignore_mismatch=False)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        raise BackendError(
            f"{trt.__name__} {trt.__version__} cannot compile {model.name}: "
            + ("stopped" if monitor.stopped else log.said or "no reason given")
        )
    return Built(bytes(serialised), _layers(network), bytes(cache.serialize()) if cache is not None else None)


def _set_targets(trt: Any, config: Any, targets: tuple[str, ...]) -> None:
    if not targets:
        return
    if not hasattr(config, "num_compute_capabilities"):
        raise UsageError(
            f"{trt.__name__} compiles for the device it runs on, not for {', '.join(targets)}; make a portable bundle "
            "(uare-rt build --backend tensorrt) and finish it on the device"
        )
    known = trt.ComputeCapability.__members__
    absent = [name for name in targets if name.upper() not in known]
    if absent:
        possible = ", ".join(name.lower() for name in known if name.startswith("SM"))
        raise UsageError(
            f"--target {', '.join(absent)}: {trt.__name__} {trt.__version__} compiles for {possible} only"
            "; --backend tensorrt makes a portable bundle for the others"
        )
    config.num_compute_capabilities = len(targets)
    for index, name in enumerate(targets):
        if not config.set_compute_capability(known[name.upper()], index):
            raise BackendError(f"{trt.__name__} {trt.__version__} refuses target {name}")


def _set_shapes(builder: Any, network: Any, config: Any, profile: Mapping[str, Profile], model: Path) -> None:
    shapes = None
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if -1 not in tuple(tensor.shape):
            continue
        if tensor.name not in profile:
            raise BackendError(f"{model.name}: input {tensor.name} is dynamic and has no profile")
        wanted = profile[tensor.name]
        if wanted.min == wanted.max:
            tensor.shape = wanted.opt
            continue
        shapes = builder.create_optimization_profile() if shapes is None else shapes
        shapes.set_shape(tensor.name, wanted.min, wanted.opt, wanted.max)
    if shapes is not None:
        config.add_optimization_profile(shapes)


def _parser_error(parser: Any) -> str:
    """The first error, with the node; nodes are named after the layer of the network that they belong to."""
    if not parser.num_errors:
        return "no reason given"
    error = parser.get_error(0)
    name, operator = _told(error, "node_name"), _told(error, "node_operator")
    layer = name.partition("/")[0] if "/" in name else ""
    where = f"node {name!r} ({operator})" + (f" of layer {layer}" if layer else "") if name else f"node {error.node()}"
    return f"{where}: {' '.join(error.desc().split())[:300]}"


def _told(error: Any, name: str) -> str:
    method = getattr(error, name, None)  # older parsers give a number only
    return str(method()) if method is not None else ""


def _layers(network: Any) -> list[dict[str, str]]:
    found = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        types = [str(tensor.dtype).rpartition(".")[2].lower() for tensor in outputs if tensor is not None]
        found.append({"name": layer.name, "type": str(layer.type).rpartition(".")[2], "output": " ".join(types)})
    return found


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps the first error, which is the cause; later ones follow from it."""

        def __init__(self) -> None:
            super().__init__()
            self.said = ""

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR) and not self.said:
                self.said = one_line(Exception(message))

    return Log()


def _monitor(trt: Any, progress: Callable[[float], bool]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Adds up the phases that have no parent; the compiler calls it from threads of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.stopped = False
            self._phases: dict[str, tuple[int, int]] = {}
            self._finished = 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._phases[phase_name] = (0, max(num_steps, 1))

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._phases:
                self._phases[phase_name] = (step + 1, self._phases[phase_name][1])
                part = sum(done / total for done, total in self._phases.values()) / len(self._phases)
                self.stopped = self.stopped or not progress(min(part, 1.0))
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self._phases:
                self._phases[phase_name] = (1, 1)

    return Monitor()
