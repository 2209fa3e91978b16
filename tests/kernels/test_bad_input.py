"""Every tensor of every operator: of a wrong device, type, rank, size or stride it is refused before a launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from harness import ON_GPU, TARGET, Memory
from torch import Tensor

from uare_rt.errors import UsageError
from uare_rt.kernels import (
    attention,
    attention_int8,
    changes,
    emit,
    flow_step,
    gemm,
    gemm_w8a8,
    ingest,
    modulated_conv,
    modulation,
    qk_rope,
    routed_norm,
    swiglu,
    window_attention,
)
from uare_rt.kernels.catalogue import OPERATORS
from uare_rt.kernels.routing import Run

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = Memory()
N = MEMORY.normal
RUNS = (Run(0, 3), Run(1, 2))
OPTIONS: dict[str, Any] = {"target": TARGET}


def levels(*shape: int, dtype: torch.dtype = torch.int8) -> Tensor:
    return torch.ones(shape, dtype=dtype)


def last(*shape: int) -> Tensor:
    return N(*shape).to(memory_format=torch.channels_last)


HEADS = {"q": N(1, 4, 5, 16), "k": N(1, 2, 5, 16), "v": N(1, 2, 5, 16)}
RANGES = torch.tensor([[5, 5, 5]] * 5, dtype=torch.int32)
VECTORS = {"scale": N(1, 8), "shift": N(1, 8), "bias": N(8)}
FLOW = {name: N(5, 16, dtype=torch.float32) for name in ("x", "main", "text_free", "image_free")}

# Operator -> its tensors by name, and the call.
CALLS: dict[str, tuple[dict[str, Tensor], Callable[[dict[str, Tensor]], object]]] = {
    "attention": (
        HEADS | {"past_k": N(1, 2, 7, 16), "past_v": N(1, 2, 7, 16), "ranges": RANGES},
        lambda t: attention.run(
            t["q"], t["k"], t["v"], past=(t["past_k"], t["past_v"]), ranges=t["ranges"], **OPTIONS
        ),
    ),
    "attention_int8": (
        HEADS | {"ranges": RANGES},
        lambda t: attention_int8.run(t["q"], t["k"], t["v"], ranges=t["ranges"], **OPTIONS),
    ),
    "changes": (
        {
            "before": levels(9, 9, 3, dtype=torch.uint8), "after": levels(9, 9, 3, dtype=torch.uint8),
            "tiles": torch.tensor([[0, 9, 0, 9]] * 2, dtype=torch.int32),
        },
        lambda t: changes.run(t["before"], t["after"], t["tiles"], 5, **OPTIONS),
    ),
    "emit": (
        {
            "values": N(3, 8, 8), "out": levels(8, 8, 3, dtype=torch.uint8),
            "original": levels(8, 8, 3, dtype=torch.uint8),
        },
        lambda t: emit.run(t["values"], t["out"], emit.Place(0, 0, 8, 8), original=t["original"], **OPTIONS),
    ),
    "flow_step": (FLOW, lambda t: flow_step.run(*t.values(), step=0.1, text_scale=2.0, **OPTIONS)),
    "gemm": (
        {"x": N(2, 32), "weight": levels(8, 32), "scale": N(8, 1, dtype=torch.float32), "bias": N(8)},
        lambda t: gemm.run(*t.values(), **OPTIONS),
    ),
    "gemm_w8a8": (
        {"x": N(2, 32), "weight": levels(8, 32), "scale": N(8, dtype=torch.float32), "bias": N(8)},
        lambda t: gemm_w8a8.run(*t.values(), **OPTIONS),
    ),
    "ingest": ({"frame": levels(5, 6, 3, dtype=torch.uint8)}, lambda t: ingest.run(t["frame"], **OPTIONS)),
    "modulated_conv": (
        {"x": last(1, 8, 4, 5), "weight": last(8, 8, 3, 3), "residual": last(1, 8, 4, 5), **VECTORS},
        lambda t: modulated_conv.run(
            t["x"], t["weight"], t["bias"], t["scale"], t["shift"], residual=t["residual"], **OPTIONS
        ),
    ),
    "modulation": (
        {"x": N(1, 8, 4, 5), "residual": N(1, 8, 4, 5), **VECTORS},
        lambda t: modulation.run(
            t["x"], t["scale"], t["shift"], bias=t["bias"], residual=t["residual"], **OPTIONS
        ),
    ),
    "qk_rope": (
        {
            "q": N(1, 5, 4, 16), "k": N(1, 5, 2, 16), "v": N(1, 5, 2, 16), "q_und": N(16), "q_gen": N(16),
            "k_und": N(16), "k_gen": N(16), "cosines": N(5, 16, dtype=torch.float32),
            "sines": N(5, 16, dtype=torch.float32), "k_cache": N(1, 2, 9, 16), "v_cache": N(1, 2, 9, 16),
        },
        lambda t: qk_rope.run(
            t["q"], t["k"], t["v"], qk_rope.Norms((t["q_und"], t["q_gen"]), (t["k_und"], t["k_gen"]), 1e-6),
            (t["cosines"], t["sines"]), RUNS, qk_rope.Cache(t["k_cache"], t["v_cache"], 2), **OPTIONS,
        ),
    ),
    "routed_norm": (
        {"x": N(1, 5, 16), "und": N(16), "gen": N(16)},
        lambda t: routed_norm.run(t["x"], (t["und"], t["gen"]), RUNS, 1e-6, **OPTIONS),
    ),
    "swiglu": (
        {"x": N(1, 5, 16), **{name: N(8, 16) for name in ("und_gate", "gen_gate", "und_up", "gen_up")}},
        lambda t: swiglu.run(t["x"], (t["und_gate"], t["gen_gate"]), (t["und_up"], t["gen_up"]), RUNS, **OPTIONS),
    ),
    "window_attention": (
        {
            "q": N(4, 2, 4, 16), "k": N(4, 1, 4, 16), "v": N(4, 1, 4, 16), "context_k": N(1, 1, 5, 16),
            "context_v": N(1, 1, 5, 16), "valid": torch.ones(4, 4, dtype=torch.bool),
        },
        lambda t: window_attention.run(
            t["q"], t["k"], t["v"], (t["context_k"], t["context_v"]), t["valid"], **OPTIONS
        ),
    ),
}  # fmt: skip

SPOILT: dict[str, Callable[[Tensor], Tensor]] = {
    "device": lambda t: t.to("meta"),
    "dtype": lambda t: t.to(torch.complex64),
    "rank": lambda t: t[None],
    "size": lambda t: t[..., :-1].contiguous(),
    "stride": lambda t: torch.stack((t, t), dim=-1)[..., 0],
}
# Leading axes of activations are free, and scales of one column may have more of them.
ALLOWED = {("gemm", "x", "rank"), ("gemm_w8a8", "x", "rank"), ("gemm_w8a8", "scale", "rank")}


@pytest.fixture
def no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a kernel was launched")

    if ON_GPU:
        monkeypatch.setattr("triton.runtime.jit.JITFunction.run", refuse)
    else:
        monkeypatch.setattr("triton.runtime.interpreter.GridExecutor.__call__", refuse)


@pytest.mark.parametrize("operator", CALLS)
@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.usefixtures("no_launch")
def test_a_tensor_that_does_not_fit_is_refused_by_name_before_a_launch(operator: str, what: str) -> None:
    tensors, call = CALLS[operator]
    for name, tensor in tensors.items():
        if (operator, name, what) not in ALLOWED:
            with pytest.raises(UsageError, match=rf"^{operator.replace('_', ' ')}: .+ is .+, but must be "):
                call(tensors | {name: SPOILT[what](tensor)})


@pytest.mark.parametrize("operator", CALLS)
def test_as_they_are_they_are_taken(operator: str) -> None:
    tensors, call = CALLS[operator]
    call(tensors)


@pytest.mark.usefixtures("no_launch")
def test_that_a_launch_would_have_been_seen() -> None:
    tensors, call = CALLS["routed_norm"]
    with pytest.raises(AssertionError, match="a kernel was launched"):
        call(tensors)


def test_no_operator_is_forgotten() -> None:
    assert set(CALLS) == set(OPERATORS) - {"plugins"}
