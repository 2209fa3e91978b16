"""Both models, whole, through the kernels in the interpreter: the same pictures as the torch way gives."""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from bagel_layout import bagel_layout
from harness import DEVICE, ON_GPU, as_good_as
from safetensors.torch import load_file
from torch import Tensor

from uare_rt.kernels import dispatch
from uare_rt.model.checkpoint import load_unified
from uare_rt.model.flow import Guidance
from uare_rt.model.nano import UareNano
from uare_rt.model.presets.nano import UARE_NANO
from uare_rt.model.restoration import restore
from uare_rt.model.sampling import Flow
from uare_rt.views import VIEW_COUNT, VIEW_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

DTYPE = torch.float16 if ON_GPU else torch.float32  # compiled kernels leave float32 products to torch
TINY = Path(__file__).parents[1] / "data" / "mot-tiny"


def taken() -> Counter[str]:
    """Calls that went through Triton so far, by operator."""
    calls = dispatch.report()["calls"]
    counts: Counter[str] = Counter()
    for call in calls:  # one entry for each operator, path and reason
        counts[call["operator"]] += call["count"] if call["path"] == "triton" else 0
    return counts


@pytest.fixture(autouse=True)
def _made_on_the_cpu() -> Iterator[None]:
    """Weights, noise and pictures are, as in use, wherever the model is."""
    with torch.device("cpu") if ON_GPU else nullcontext():
        yield


def whole(model: UareNano, views: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, keys of the quality context, and the picture at twice the size."""
    logits, context = model.assess(views)
    return logits, context.k, model.restore(frame, context, 2)


@torch.no_grad()
@pytest.mark.parametrize(
    ("layout", "convolution"), [(torch.contiguous_format, "modulation"), (torch.channels_last, "modulated_conv")]
)
def test_uare_nano_assesses_and_restores(layout: torch.memory_format, convolution: str) -> None:
    torch.manual_seed(5)
    model = UareNano(UARE_NANO).eval()
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.05)
    views, frame = torch.rand(1, VIEW_COUNT, 3, VIEW_SIZE, VIEW_SIZE), torch.rand(1, 3, 80, 112)
    exact = whole(copy.deepcopy(model).double(), views.double(), frame.double())
    model, views, frame = (part.to(DEVICE, DTYPE) for part in (model, views, frame))
    own = whole(model, views, frame)
    model.to(memory_format=layout)
    before = taken()
    with dispatch.using("triton"):
        got = whole(model, views, frame.to(memory_format=layout))
    calls = taken() - before
    assert calls["layer"] == 2 * UARE_NANO.mot.layers
    assert calls[convolution] == sum((*UARE_NANO.encoder_convs, *UARE_NANO.decoder_convs))
    assert not torch.equal(got[2], own[2])  # another order of sums: the kernels really ran
    for mine, torchs, true in zip(got, own, exact, strict=True):
        assert as_good_as(mine.cpu(), torchs.cpu(), true)


@torch.no_grad()
@pytest.mark.parametrize(("renorm", "batched"), [("text_channel", False), ("global", True)])
def test_the_tiny_unified_model_restores_a_picture(tmp_path: Path, renorm: str, batched: bool) -> None:
    model, _ = load_unified(bagel_layout(TINY, tmp_path / "bagel"), device=str(DEVICE), dtype=DTYPE)
    picture = load_file(TINY / "inputs.safetensors")["raw_image"].numpy()
    flow, instruction = Flow(points=3, guidance=Guidance(4.0, 2.0, renorm), batched=batched), [61, 3, 150]
    steps: dict[str, list[torch.Tensor]] = {"reference": [], "triton": []}
    before = taken()
    for way, kept in steps.items():
        with dispatch.using(way):
            restore(model, picture, instruction, flow, seed=3, watch=lambda step, kept=kept: kept.append(step.velocity))
    calls = taken() - before
    assert calls["flow_step"] == len(steps["reference"]) == 2
    # Two contexts are read; of two evaluations, three branches one by one go through fused layers, in one batch none.
    assert calls["layer"] == (2 if batched else 2 + 2 * 3) * model.config.mot.layers
    told = {call["reason"] for call in dispatch.report()["calls"] if call["operator"] == "layer"}
    assert not batched or "a context for every entry of a batch" in told
    for got, expected in zip(steps["triton"], steps["reference"], strict=True):
        assert not torch.equal(got, expected)
        assert float((got - expected).norm() / expected.norm()) < (0.02 if ON_GPU else 1e-4)
