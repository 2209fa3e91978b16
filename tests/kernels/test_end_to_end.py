"""Both models, whole, through the kernels in the interpreter: the same pictures as the torch way gives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from bagel_layout import bagel_layout
from harness import DEVICE
from safetensors.torch import load_file

from uare_rt.kernels import dispatch
from uare_rt.model.checkpoint import load_unified
from uare_rt.model.flow import Guidance
from uare_rt.model.nano import UareNano
from uare_rt.model.presets.nano import UARE_NANO
from uare_rt.model.restoration import restore
from uare_rt.model.sampling import Flow
from uare_rt.views import VIEW_COUNT, VIEW_SIZE

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"


def taken() -> Counter[str]:
    """Calls that went through Triton so far, by operator."""
    calls = dispatch.report()["calls"]
    return Counter({call["operator"]: call["count"] for call in calls if call["path"] == "triton"})


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
    logits, context = model.assess(views)
    expected = model.restore(frame, context, 2)
    model.to(memory_format=layout)
    before = taken()
    with dispatch.using("triton"):
        got_logits, got_context = model.assess(views)
        got = model.restore(frame.to(memory_format=layout), got_context, 2)
    calls = taken() - before
    assert calls["layer"] == 2 * UARE_NANO.mot.layers
    assert calls[convolution] == sum((*UARE_NANO.encoder_convs, *UARE_NANO.decoder_convs))
    assert torch.allclose(got_logits, logits, atol=1e-4)
    assert torch.allclose(got_context.k, context.k, atol=1e-4)
    assert not torch.equal(got, expected)  # another order of sums: the kernels really ran
    assert float((got - expected).abs().max()) < 2e-4


@torch.no_grad()
@pytest.mark.parametrize("renorm", ["text_channel", "global"])
def test_the_tiny_unified_model_restores_a_picture(tmp_path: Path, renorm: str) -> None:
    model, _ = load_unified(bagel_layout(TINY, tmp_path / "bagel"), device=str(DEVICE))
    picture = load_file(TINY / "inputs.safetensors")["raw_image"].numpy()
    flow, instruction = Flow(points=3, guidance=Guidance(4.0, 2.0, renorm)), [61, 3, 150]
    steps: dict[str, list[torch.Tensor]] = {"reference": [], "triton": []}
    before = taken()
    for way, kept in steps.items():
        with dispatch.using(way):
            restore(model, picture, instruction, flow, seed=3, watch=lambda step, kept=kept: kept.append(step.velocity))
    calls = taken() - before
    assert calls["flow_step"] == len(steps["reference"]) == 2
    assert calls["layer"] >= 2 * model.config.mot.layers
    for got, expected in zip(steps["triton"], steps["reference"], strict=True):
        assert not torch.equal(got, expected)
        assert float((got - expected).norm() / expected.norm()) < 1e-4
