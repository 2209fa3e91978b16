"""The kernels as TensorRT plugins, through the ahead-of-time path of its Python decorators.

Needs TensorRT 10.9 or newer when the engine is built, and nothing of Python when it runs: the engine holds the PTX.
Build with ``NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS`` from a graph that
`uare_rt.kernels.graph_pass.for_tensorrt` made. JetPack 6.2 (TensorRT 10.3) and TensorRT-RTX take the plain graph.
Written from TensorRT's documentation, not run here: no machine that tests this project has TensorRT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uare_rt.errors import BackendUnavailableError, UsageError
from uare_rt.kernels.ahead import build
from uare_rt.kernels.graph_pass import DOMAIN
from uare_rt.kernels.plugins import modulation_variant, window_variant
from uare_rt.kernels.tiles import TARGETS

if TYPE_CHECKING:
    from uare_rt.kernels.ahead import Compiled
    from uare_rt.kernels.variants import Variant

__all__ = ["LEAST_TENSORRT", "register"]

LEAST_TENSORRT = (10, 9)
_WARP = 32


def register(target: str) -> None:
    """Make the plugins known to TensorRT in this process; once per process.

    Args:
        target: the GPU that the engine is for, one of `uare_rt.kernels.tiles.TARGETS`.

    Raises:
        BackendUnavailableError: TensorRT is missing or older than 10.9.
        UsageError: no such target.
    """
    if target not in TARGETS:
        raise UsageError(f"target {target!r} is not one of {', '.join(TARGETS)}")
    try:
        import tensorrt
        import tensorrt.plugin as trtp
    except ImportError as error:
        reason = "TensorRT's Python bindings, 10.9 or newer, are not installed"
        raise BackendUnavailableError(f"{reason}; build the plain graph instead") from error
    found = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if found < LEAST_TENSORRT:
        raise BackendUnavailableError(
            f"TensorRT is {tensorrt.__version__}, but plugins compiled ahead of time need 10.9; "
            "build the plain graph instead"
        )
    _modulation(trtp, target)
    _window_attention(trtp, target)


def _typed(function: Any, trtp: Any, tensors: tuple[str, ...], result: Any) -> Any:
    """TensorRT reads a plugin's inputs from annotations, which must be types, not the strings of this module."""
    function.__annotations__ = {**dict.fromkeys(tensors, trtp.TensorDesc), "return": result}
    return function


def _launch(trtp: Any, made: Compiled, grid: tuple[Any, Any, Any], count: Any) -> tuple[str, str, Any, Any]:
    """What TensorRT wants to know of a compiled kernel with one extra integer."""
    launch = trtp.KernelLaunchParams()
    launch.grid_x, launch.grid_y, launch.grid_z = grid
    launch.block_x = made.warps * _WARP
    launch.shared_mem = made.shared
    extra = trtp.SymIntExprs(1)
    extra[0] = trtp.SymInt32(count)
    return made.symbol, made.ptx, launch, extra


def _build(variant: Variant, target: str) -> Compiled:
    made = build(variant, target)
    if made.spills:
        raise UsageError(f"{variant.name} spills {made.spills} registers on {target}; its tile needs tuning")
    return made


def _modulation(trtp: Any, target: str) -> None:
    name, tensors = f"{DOMAIN}::Modulation", ("x", "scale", "shift")

    def describe(x: Any, scale: Any, shift: Any) -> Any:
        return x.like()

    def formats(x: Any, scale: Any, shift: Any, outputs: Any) -> Any:
        return [trtp.AutoTuneCombination("FP16, FP16, FP16, FP16", "LINEAR")]

    def compiled(x: Any, scale: Any, shift: Any, outputs: Any, tactic: int) -> Any:
        made = _build(modulation_variant(x.shape[1]), target)
        pixels = x.shape_expr[2] * x.shape_expr[3]
        return _launch(trtp, made, (trtp.cdiv(pixels, made.tile.blocks["PIXELS"]), x.shape_expr[0], 1), pixels)

    trtp.register(name)(_typed(describe, trtp, tensors, trtp.TensorDesc))
    trtp.autotune(name)(_bare(formats))
    trtp.aot_impl(name)(_bare(compiled))


def _window_attention(trtp: Any, target: str) -> None:
    name, tensors = f"{DOMAIN}::WindowAttention", ("q", "k", "v", "context_k", "context_v", "mask")

    def describe(q: Any, k: Any, v: Any, context_k: Any, context_v: Any, mask: Any) -> Any:
        return q.like()

    def formats(q: Any, k: Any, v: Any, context_k: Any, context_v: Any, mask: Any, outputs: Any) -> Any:
        return [trtp.AutoTuneCombination("FP16, FP16, FP16, FP16, FP16, BOOL, FP16", "LINEAR")]

    def compiled(
        q: Any, k: Any, v: Any, context_k: Any, context_v: Any, mask: Any, outputs: Any, tactic: int
    ) -> Any:  # fmt: skip
        variant = window_variant(q.shape[1], k.shape[1], q.shape[2], q.shape[3], context_k.shape[2])
        made, windows = _build(variant, target), q.shape_expr[0]
        return _launch(trtp, made, (trtp.cdiv(windows, made.tile.blocks["WINDOWS"]), k.shape[1], 1), windows)

    trtp.register(name)(_typed(describe, trtp, tensors, trtp.TensorDesc))
    trtp.autotune(name)(_bare(formats))
    trtp.aot_impl(name)(_bare(compiled))


def _bare(function: Any) -> Any:
    """Annotations are optional here; what is there is checked, and strings would not pass."""
    function.__annotations__ = {}
    return function
