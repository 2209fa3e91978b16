"""The one place where callers meet the kernels: Triton on a GPU, plain torch elsewhere, chosen and reported.

`UARE_KERNELS` decides: ``auto`` (the default) takes Triton for CUDA tensors on a GPU that has tiles, ``reference``
never does, ``triton`` insists and fails where it cannot (on CPU tensors it needs Triton's interpreter,
``TRITON_INTERPRET=1``). Whatever is not taken by Triton goes the torch way with a reason; `report` tells both, with
counts.

Functions named after a part of the model return None where the caller's own torch code is to run.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from uare_rt.errors import BackendUnavailableError, UsageError
from uare_rt.kernels.checks import FLOATS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

__all__ = [
    "OPERATORS",
    "SETTING",
    "Choice",
    "attention",
    "call",
    "choose",
    "guided_step",
    "layer",
    "linear",
    "modulation",
    "report",
    "using",
]

SETTING = "UARE_KERNELS"
_WAYS = ("auto", "reference", "triton")
_LOG = logging.getLogger(__name__)
OPERATORS = (
    "attention", "changes", "emit", "flow_step", "gemm", "gemm_w8a8", "ingest", "modulated_conv", "modulation",
    "qk_rope", "routed_norm", "swiglu", "window_attention",
)  # fmt: skip

_forced: list[str] = []
_taken: Counter[tuple[str, str, str]] = Counter()
_ranges: Any = WeakIdKeyDictionary()  # mask -> its version and ranges


@dataclass(frozen=True)
class Choice:
    """Which way tensors of one device go.

    Attributes:
        path: ``triton`` or ``reference``.
        reason: why.
        target: whose tiles Triton uses; empty for the reference.
    """

    path: str
    reason: str
    target: str = ""


def _setting() -> str:
    way = _forced[-1] if _forced else os.environ.get(SETTING, "auto")
    if way not in _WAYS:
        raise UsageError(f"{SETTING} is {way!r}, but must be one of {', '.join(_WAYS)}")
    return way


@contextmanager
def using(way: str) -> Iterator[None]:
    """Within the block, decide by ``way`` instead of the environment.

    Raises:
        UsageError: not one of ``auto``, ``reference`` and ``triton``.
    """
    _forced.append(way)
    try:
        _setting()
        yield
    finally:
        _forced.pop()


def choose(device: torch.device) -> Choice:
    """Which way tensors on a device go, and why.

    Raises:
        UsageError: ``UARE_KERNELS`` has no such value.
    """
    return _choose(device.type, device.index or 0, _setting())


@cache
def _choose(kind: str, index: int, way: str) -> Choice:
    from uare_rt.kernels.jit import interpreted, version

    if way == "reference":
        return Choice("reference", f"{SETTING}=reference")
    if version() is None:
        return Choice("reference", 'Triton is not installed (pip install "uare-rt[kernels]")')
    if interpreted():
        if kind == "cpu" and way == "triton":
            return Choice("triton", "Triton's interpreter, on the CPU", "sm_87")
        return Choice("reference", f"TRITON_INTERPRET=1 is used for CPU tensors with {SETTING}=triton only")
    if kind != "cuda":
        return Choice("reference", f"a {kind} tensor; Triton runs on CUDA devices")
    return _gpu(*torch.cuda.get_device_capability(index))


def _gpu(major: int, minor: int) -> Choice:
    from uare_rt.kernels.jit import version
    from uare_rt.kernels.tiles import TARGETS

    target = f"sm_{major}{minor}"
    if target not in TARGETS:
        return Choice("reference", f"{target} has no tiles; known: {', '.join(TARGETS)}")
    if (version() or (0, 0)) < (3, 6):
        return Choice("reference", "Triton is older than 3.6")
    return Choice("triton", f"CUDA device of {target}", target)


def _decide(op: str, tensors: Sequence[Tensor], problem: str | None) -> Choice:
    """The choice for one call, recorded."""
    choice = choose(tensors[0].device)
    if choice.path == "triton":
        problem = problem or _unfit(tensors)
        if problem:
            choice = Choice("reference", problem)
    if choice.path == "reference" and _setting() == "triton" and problem is None:
        raise BackendUnavailableError(f"{SETTING}=triton, but {op} cannot use Triton: {choice.reason}")
    key = (op, choice.path, choice.reason)
    if key not in _taken:
        _LOG.info("%s goes the %s way: %s", *key)
    _taken[key] += 1
    return choice


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


def _skipped(tensor: Tensor) -> bool:
    """Whether the kernels are out of the question: the usual case on a CPU, decided before anything is imported.

    While a graph is recorded they are, whatever the setting: it must hold plain operators.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    return tensor.device.type == "cpu" and _setting() != "triton"


def _unfit(tensors: Sequence[Tensor]) -> str | None:
    from uare_rt.kernels.jit import interpreted

    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "gradients are wanted; the kernels have none"
    if interpreted() and any(tensor.dtype == torch.bfloat16 for tensor in tensors):
        return "the interpreter is unreliable with bf16"
    return None


def call(op: str, *arguments: Any, **options: Any) -> Any:
    """Run an operator by its name, through Triton or its reference.

    Args:
        op: one of `OPERATORS`.
        arguments: of the operator's ``run``, at least one tensor first.
        options: further ones, without ``target``.

    Raises:
        UsageError: no such operator, or an argument that it cannot take.
        BackendUnavailableError: ``UARE_KERNELS=triton``, which is not possible here.
    """
    if op not in OPERATORS:
        raise UsageError(f"{op!r} is no operator; known: {', '.join(OPERATORS)}")
    module = import_module(f"uare_rt.kernels.{op}")
    tensors = [value for value in (*arguments, *options.values()) if isinstance(value, torch.Tensor)]
    choice = _decide(op, tensors, None)
    if choice.path == "triton":
        with _on(tensors[0]):
            return module.run(*arguments, **options, target=choice.target)
    return module.reference(*arguments, **options)


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, past: tuple[Tensor, Tensor] | None, mask: Tensor | None
) -> Tensor | None:
    """The attention of the MoT layer; arguments as for `uare_rt.model.mot.attend`.

    Returns:
        [B, heads, T, d], or None where the caller's own code is to run.

    Raises:
        BackendUnavailableError: ``UARE_KERNELS=triton``, which is not possible here.
    """
    if _skipped(q):
        return None
    way = _attention_way("attention", (q, k, v), q.shape, past, mask)
    if way.choice.path == "reference":
        return None
    from uare_rt.kernels import attention as own
    from uare_rt.kernels import window_attention as windowed

    target = way.choice.target
    with _on(q):
        if way.valid is not None and way.past is not None:
            return windowed.run(q, k, v, way.past, way.valid, target=target)
        return own.run(q, k, v, past=way.past, ranges=way.ranges, target=target)


def layer(
    module: Any,
    x: Tensor,
    segments: Sequence[Any],
    rope: tuple[Tensor, Tensor],
    past: tuple[Tensor, Tensor] | None,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """A whole MoT layer; arguments and result as for `uare_rt.model.mot.MoTLayer.forward`.

    Returns:
        The new stream, keys and values, or None where the caller's own code is to run.

    Raises:
        BackendUnavailableError: ``UARE_KERNELS=triton``, which is not possible here.
    """
    if _skipped(x):
        return None
    dim = module.und.q_norm.weight.shape[0]
    way = _attention_way("layer", (x, *module.parameters()), (x.shape[0], 0, x.shape[1], dim), past, mask)
    if way.choice.path == "reference":
        return None
    from uare_rt.kernels import layer as fused
    from uare_rt.kernels.routing import runs_of

    runs = runs_of([(segment.expert, segment.length) for segment in segments])
    target = way.choice.target
    with _on(x):
        return fused.forward(module, x, runs, rope, way.past, ranges=way.ranges, valid=way.valid, target=target)


def linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor | None:
    """A quantised linear layer; arguments as for `uare_rt.kernels.gemm.run`.

    Returns:
        [..., N], or None where the caller's own code is to run.

    Raises:
        BackendUnavailableError: ``UARE_KERNELS=triton``, which is not possible here.
    """
    if _skipped(x):
        return None
    problem = None if x.dtype in FLOATS else f"{x.dtype} tensors"
    choice = _decide("gemm", [x, weight, scale, *([] if bias is None else [bias])], problem)
    if choice.path == "reference":
        return None
    from uare_rt.kernels import gemm

    with _on(x):
        return gemm.run(x, weight, scale, bias, target=choice.target)


def modulation(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor | None:
    """What follows a convolution of uare-nano's codec: ``leaky_relu((1 + scale) x + shift)``.

    Args:
        x: output of the convolution, [N, C, H, W], dense with channels first or last.
        scale: [N or 1, C].
        shift: as scale.

    Returns:
        As x, or None where the caller's own code is to run.

    Raises:
        BackendUnavailableError: ``UARE_KERNELS=triton``, which is not possible here.
    """
    if _skipped(x):
        return None
    problem = None if x.dtype in FLOATS else f"{x.dtype} tensors"
    choice = _decide("modulation", (x, scale, shift), problem)
    if choice.path == "reference":
        return None
    from uare_rt.kernels import modulation as fused

    with _on(x):
        return fused.run(x, scale, shift, target=choice.target)


def guided_step(
    x: Tensor, main: Tensor, text_free: Tensor, image_free: Tensor | None, guidance: Any, step: float
) -> tuple[Tensor, Tensor] | None:
    """Guidance and one Euler step of the flow.

    Args:
        x: latent tokens, float32 [M, C].
        main: velocities as for `uare_rt.model.flow.guide`, as the next two.
        text_free: see main.
        image_free: see main.
        guidance: a `uare_rt.model.flow.Guidance`.
        step: the time that passes.

    Returns:
        The moved tokens and the guided velocity, or None where the caller's own code is to run.

    Raises:
        BackendUnavailableError: ``UARE_KERNELS=triton``, which is not possible here.
    """
    if _skipped(x):
        return None
    choice = _decide("flow_step", (x, main), None)
    if choice.path == "reference":
        return None
    from uare_rt.kernels import flow_step

    scales = {"text_scale": guidance.text_scale, "image_scale": guidance.image_scale}
    limits = {"renorm": guidance.renorm, "renorm_min": guidance.renorm_min}
    others = (text_free.contiguous(), None if image_free is None else image_free.contiguous())
    main = main.contiguous()
    with _on(x):
        return flow_step.run(x.contiguous(), main, *others, step=step, **scales, **limits, target=choice.target)


@dataclass(frozen=True)
class _Way:
    choice: Choice
    past: tuple[Tensor, Tensor] | None = None
    ranges: Tensor | None = None
    valid: Tensor | None = None


def _attention_way(
    op: str,
    tensors: Sequence[Tensor],
    shape: Sequence[int],
    past: tuple[Tensor, Tensor] | None,
    mask: Tensor | None,
) -> _Way:
    """How attention with a prefix and a mask is done; ``shape`` is that of the queries [B, heads, T, d]."""
    from uare_rt.kernels import attention as own
    from uare_rt.kernels import window_attention as windowed

    batch, _, tokens, dim = shape
    if past is not None and past[0].stride() != past[1].stride():
        past = (past[0].contiguous(), past[1].contiguous())
    problem, ranges, valid = None, None, None
    if tensors[0].dtype not in FLOATS:
        problem = f"{tensors[0].dtype} tensors"
    elif dim not in own.HEAD_DIMS:
        problem = f"a head dim of {dim}; the kernel takes multiples of 8 up to 128"
    elif mask is not None and mask.shape == (batch, 1, 1, 1, tokens):
        valid = mask[:, 0, 0, 0].contiguous()
        if past is None or past[0].shape[2] > windowed.MAX_CONTEXT:
            problem = f"windows without a context of at most {windowed.MAX_CONTEXT} keys"
        elif tokens & (tokens - 1) or tokens > windowed.MAX_TOKENS:
            problem = f"windows of {tokens} tokens; the kernel takes powers of two up to {windowed.MAX_TOKENS}"
    elif mask is not None:
        ranges = _ranges_of(mask)
        if ranges is None:
            problem = "a mask that is not two ranges of keys per query"
    return _Way(_decide(op, tensors, problem), past, ranges, valid)


def _ranges_of(mask: Tensor) -> Tensor | None:
    """The ranges of a mask [T, T]; every layer of a pass comes with the same mask."""
    from uare_rt.kernels.attention import visible_ranges

    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        return None
    if mask.is_inference():
        return visible_ranges(mask)
    kept = _ranges.get(mask)
    if kept is None or kept[0] != mask._version:
        kept = _ranges[mask] = (mask._version, visible_ranges(mask))
    return kept[1]


def report() -> dict[str, Any]:
    """Which way the devices here go, and which way calls of this process went.

    Returns:
        ``setting``; ``triton``: its version or None; ``devices``: name, path and reason of each; ``calls``: operator,
        path, reason and count of each kind of call so far.
    """
    from uare_rt.kernels.jit import triton

    gpus = [(torch.cuda.get_device_name(i), torch.device("cuda", i)) for i in range(torch.cuda.device_count())]
    devices = [("cpu", torch.device("cpu")), *gpus]
    ways = [(name, choose(device)) for name, device in devices]
    return {
        "setting": _setting(),
        "triton": triton.__version__ or None,
        "devices": [{"name": name, "path": way.path, "reason": way.reason} for name, way in ways],
        "calls": [
            {"operator": op, "path": path, "reason": reason, "count": count}
            for (op, path, reason), count in sorted(_taken.items())
        ],
    }
