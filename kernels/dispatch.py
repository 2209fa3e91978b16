"""The one place where callers meet the kernels: Triton on a GPU, plain torch elsewhere, chosen and reported.

How it is chosen is in `uare_rt.kernels.choice`; `report` tells which way devices and calls go, with reasons and counts.
Functions named after a part of the model return None where the caller's own torch code is to run.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from uare_rt.errors import UsageError
from uare_rt.kernels.checks import AXIS
from uare_rt.kernels.choice import Choice, choose, decide, odd_type, setting, skipped, taken, using

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = [
    "OPERATORS",
    "Choice",
    "attention",
    "call",
    "choose",
    "guided_step",
    "layer",
    "linear",
    "modulated_conv",
    "report",
    "unfit_head",
    "using",
]

OPERATORS = (
    "attention", "changes", "emit", "flow_step", "gemm", "gemm_w8a8", "ingest", "modulated_conv", "modulation",
    "qk_rope", "routed_norm", "swiglu", "window_attention",
)  # fmt: skip

_ranges: Any = WeakIdKeyDictionary()  # mask -> its version and ranges


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


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
    choice = decide(op, tensors)
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
    if skipped(q):
        return None
    q, k, v = (part if part.stride(-1) == 1 else part.contiguous() for part in (q, k, v))
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
    rope: tuple[Tensor, Tensor] | None,
    past: tuple[Tensor, Tensor] | list[tuple[Tensor, Tensor] | None] | None,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """A whole MoT layer; arguments and result as for `uare_rt.model.mot.MoTLayer.forward`.

    Returns:
        The new stream, keys and values, or None where the caller's own code is to run.

    Raises:
        BackendUnavailableError: ``UARE_KERNELS=triton``, which is not possible here.
    """
    if skipped(x):
        return None
    dim = module.und.q_norm.weight.shape[0]
    if rope is None:
        rope = torch.ones(1, dim, device=x.device), torch.zeros(1, dim, device=x.device)
    problem = None if rope[0].ndim == 2 else "positions that differ between the entries of a batch"
    if isinstance(past, list):
        problem, past = "a context for every entry of a batch", None
    tensors = (x, *module.parameters())
    way = _attention_way("layer", tensors, (x.shape[0], 0, x.shape[1], dim), past, mask, problem)
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
    if skipped(x):
        return None
    own = [x] if bias is None else [x, bias]
    choice = decide("gemm", [*own, weight, scale], odd_type(own))
    if choice.path == "reference":
        return None
    from uare_rt.kernels import gemm

    with _on(x):
        return gemm.run(x, weight, scale, bias, target=choice.target)


def modulated_conv(conv: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor | None:
    """A convolution of uare-nano's codec with its modulation: ``leaky_relu((1 + scale) conv(x) + shift)``.

    A plain 3x3 convolution with channels last in memory is done in the same pass; any other stays torch's own, and its
    output goes through one more pass.

    Args:
        conv: a module that keeps height and width.
        x: its input, [N, C, H, W].
        scale: [N or 1, D, 1, 1] for its D output channels.
        shift: as scale.

    Returns:
        [N, D, H, W], or None where the caller's own code is to run.

    Raises:
        BackendUnavailableError: ``UARE_KERNELS=triton``, which is not possible here.
    """
    if skipped(x):
        return None
    from uare_rt.kernels import modulated_conv as whole
    from uare_rt.kernels import modulation as after

    inside = whole.takes(conv, x)
    tensors = (x, scale, shift, *conv.parameters())
    problem = odd_type(tensors)
    if x.shape[0] > AXIS:
        problem = f"{x.shape[0]} pictures at once; the kernel takes {AXIS}"
    elif not inside and scale.shape[1] > after.MAX_CHANNELS:
        problem = f"{scale.shape[1]} channels; the kernel takes {after.MAX_CHANNELS}"
    choice = decide("modulated_conv" if inside else "modulation", tensors, problem)
    if choice.path == "reference":
        return None
    scale, shift = scale.flatten(1), shift.flatten(1)
    with _on(x):
        if inside:
            return whole.run(x, conv.weight, conv.bias, scale, shift, target=choice.target)
        return after.run(conv(x), scale, shift, target=choice.target)


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
    if skipped(x):
        return None
    from uare_rt.kernels import flow_step

    tensors = [main, text_free, *([] if image_free is None else [image_free])]
    problem = odd_type(tensors)
    if x.dtype != torch.float32:
        problem = f"{x.dtype} latent tokens; the kernel takes float32"
    elif x.shape[1] > flow_step.MAX_WIDTH:
        problem = f"latent tokens of width {x.shape[1]}; the kernel takes {flow_step.MAX_WIDTH}"
    choice = decide("flow_step", (x, *tensors), problem)
    if choice.path == "reference":
        return None
    scales = {"text_scale": guidance.text_scale, "image_scale": guidance.image_scale}
    limits = {"renorm": guidance.renorm, "renorm_min": guidance.renorm_min}
    others = (text_free.contiguous(), None if image_free is None else image_free.contiguous())
    main = main.contiguous()
    with _on(x):
        return flow_step.run(x.contiguous(), main, *others, step=step, **scales, **limits, target=choice.target)


def unfit_head(dim: int) -> str | None:
    """Why attention over heads of a size cannot go through Triton, None if it can."""
    from uare_rt.kernels.attention import HEAD_DIMS

    return None if dim in HEAD_DIMS else f"a head dim of {dim}; the kernel takes multiples of 8 up to {HEAD_DIMS[-1]}"


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
    problem: str | None = None,
) -> _Way:
    """How attention with a prefix and a mask is done; ``shape`` is that of the queries [B, heads, T, d]."""
    from uare_rt.kernels import window_attention as windowed

    batch, _, tokens, dim = shape
    if past is not None and past[0].stride() != past[1].stride():
        past = (past[0].contiguous(), past[1].contiguous())
    problem = problem or odd_type((*tensors, *(past or ()))) or unfit_head(dim)
    ranges, valid = None, None
    if batch > AXIS:
        problem = f"{batch} rows of a batch; the kernels take {AXIS}"
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
    return _Way(decide(op, tensors, problem), past, ranges, valid)


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
        "setting": setting(),
        "triton": triton.__version__ or None,
        "devices": [{"name": name, "path": way.path, "reason": way.reason} for name, way in ways],
        "calls": [
            {"operator": op, "path": path, "reason": reason, "count": count}
            for (op, path, reason), count in sorted(taken.items())
        ],
    }
