"""The plan's formulas against the specification's tables for the 7B model, and against counted operations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from uare_rt.errors import UsageError
from uare_rt.model.checkpoint import expected_shapes, load_unified
from uare_rt.model.costs import codec_flops, decoder, kv_bytes, parameters, vision
from uare_rt.model.flow import Flow, Guidance
from uare_rt.model.memory import MemoryOptions
from uare_rt.model.plan import Device, devices, plan_assessment, plan_restoration
from uare_rt.model.presets.uare_7b import UARE_7B
from uare_rt.model.unified import EMPTY

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"
EDIT = Flow(50, 3.0, Guidance(4.0, 2.0, "text_channel"))
FORECAST = Flow(50, 3.0, EDIT.guidance, forecast=True)
DEVICES = devices()
ORIN, THOR, RTX = (DEVICES[name] for name in ("orin-agx-64", "thor", "rtx4090"))
BRIEFED = Device(64, 204.8, 85, 137.5, "the specification's first row")


def near(value: float) -> object:
    """The specification's figures have three digits at most."""
    return pytest.approx(value, rel=6e-3, abs=0.006)


@pytest.mark.parametrize(
    ("side", "tokens", "cache", "encode", "decode", "see", "prefill", "linear", "attention"),
    [
        (512, (1024, 1369, 34), 139, 1.12, 2.51, 1.36, 33.9, 40.2, 3.27),
        (1024, (4096, 4900, 34), 518, 4.88, 10.47, 6.93, 142.9, 160.4, 49.9),
    ],
)
def test_the_cost_table_is_met(
    side: int,
    tokens: tuple[int, int, int],
    cache: float,
    encode: float,
    decode: float,
    see: float,
    prefill: float,
    linear: float,
    attention: float,
) -> None:
    plan = plan_restoration(UARE_7B, side, side, EDIT)
    work = {phase.name: phase.work for phase in plan.phases}
    assert (plan.layout.latents, plan.layout.patches, plan.layout.text) == tokens
    assert kv_bytes(UARE_7B, sum(tokens) + 4) / 1e6 == near(cache)
    assert work["encode"].flops / 1e12 == near(encode)
    assert work["decode"].flops / 1e12 == near(decode)
    assert work["vision"].flops / 1e12 == near(see)
    assert work["prefill"].flops / 1e12 == near(prefill)
    step = work["evaluation, branches: 3"]
    assert step.linear / 1e12 == near(linear)
    assert step.other / 1e12 == near(attention)


@pytest.mark.parametrize(
    ("flow", "device", "weights", "arithmetic", "small", "large"),
    [
        (EDIT, BRIEFED, "same", "fp16", 25.5, 123),
        (EDIT, BRIEFED, "int8", "w8a8", 16.5, 87.4),
        (EDIT, ORIN, "same", "fp16", 51.0, 246),
        (EDIT, ORIN, "int8", "w8a8", 27.5, 153),
        (EDIT, THOR, "int4", "fp16", 8.40, 40.6),
        (EDIT, RTX, "int8", "w8a8", 4.04, 27.2),
        (FORECAST, ORIN, "same", "fp16", 20.3, 97.9),
        (FORECAST, THOR, "int8", "w8a8", 1.80, 9.98),
        (Flow(50), THOR, "same", "fp16", 4.86, 14.9),
        (Flow(50), THOR, "int8", "fp16", 2.96, 14.9),
        (Flow(50), RTX, "int8", "w8a8", 1.50, 10.8),
        (Flow(9), ORIN, "same", "fp16", 3.70, 18.0),
        (Flow(5), RTX, "int4", "fp16", 0.60, 2.82),
        (Flow(2), THOR, "same", "fp16", 0.25, 0.93),
    ],
)
def test_the_latency_floors_are_met(
    flow: Flow, device: Device, weights: str, arithmetic: str, small: float, large: float
) -> None:
    for side, seconds in ((512, small), (1024, large)):
        plan = plan_restoration(UARE_7B, side, side, flow, memory=MemoryOptions(weights))
        assert plan.floor(device, arithmetic) == pytest.approx(seconds, rel=6e-3, abs=0.008)


@pytest.mark.parametrize(
    ("device", "prefill", "words"),
    [(ORIN, 0.49, (69.4, 34.9, 18.2)), (THOR, 0.08, (52.1, 26.2, 13.7)), (RTX, 0.13, (14.1, 7.1, 3.7))],
)
def test_the_assessment_floors_are_met(device: Device, prefill: float, words: tuple[float, float, float]) -> None:
    assert plan_assessment(UARE_7B, 512, 512).floor(device) == near(prefill)
    for weights, milliseconds in zip(("same", "int8", "int4"), words, strict=True):
        plan = plan_assessment(UARE_7B, 512, 512, words=1, memory=MemoryOptions(weights))
        assert device.floor(plan.phases[-1].work) * 1e3 == pytest.approx(milliseconds, rel=6e-3)


def test_memory_by_component_adds_up_to_the_files() -> None:
    memory = plan_restoration(UARE_7B, 512, 512, EDIT).memory
    weights, codec = expected_shapes(UARE_7B)
    tables = {"latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed"}
    stored = sum(2 * torch.Size(shape).numel() for name, shape in weights.items() if name not in tables)
    planned = sum(
        memory[part] for part in ("gen_expert", "und_attention", "und_mlp", "vocabulary", "vision", "latents")
    )
    # The decoder's norms and biases are what the plan leaves out.
    assert planned == pytest.approx(stored, rel=1e-4)
    assert memory["encoder"] + memory["decoder"] == sum(4 * torch.Size(shape).numel() for shape in codec.values())
    int4 = plan_restoration(UARE_7B, 512, 512, EDIT, memory=MemoryOptions("int4")).memory
    assert (int4["gen_expert"] + int4["und_attention"] + int4["und_mlp"]) / 1e9 == near(6.73)


def test_the_guidance_interval_decides_how_many_branches_run() -> None:
    flow = Flow(50, 3.0, Guidance(4.0, 1.0, interval=(0.4, 1.0)))
    times = {p.name: p.times for p in plan_restoration(UARE_7B, 512, 512, flow).phases}
    assert times["evaluation, branches: 2"] == 41
    assert times["evaluation, branches: 1"] == 8


def test_formulas_count_what_the_model_does() -> None:
    """On a model of other dimensions, by counting the operations that PyTorch runs."""
    model, _ = load_unified(TINY)
    config = model.config

    def counted(call: object) -> int:
        # The counter does not see into a fused attention kernel.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops()

    image = torch.zeros(3, 80, 96)
    encode, decode = codec_flops(config.codec, 96, 80)
    latent = model.codec.encode(image)
    assert counted(lambda: model.codec.encode(image)) == encode
    assert counted(lambda: model.codec.decode(latent)) == decode
    assert counted(lambda: model.vision(torch.zeros(3, 84, 98))) == vision(config, 42).flops
    text = model.text_block([1, 2, 3])
    context, _ = model.extend(EMPTY, [text])
    block = model.target_block(torch.zeros(30, config.latent_width), 0.5, (5, 6))
    work = decoder(config, [(32, 32 + 5)], "same")
    assert counted(lambda: model.target_stream(context, block)) == work.flops
    held = sum(p.numel() for p in model.vision.parameters())
    assert parameters(config)["vision"] == held
    assert parameters(config)["latents"] == sum(p.numel() for p in model.latents.parameters())


def test_every_device_says_where_its_figures_come_from() -> None:
    assert {"orin-agx-64", "orin-nx-16", "thor", "rtx4090"} <= DEVICES.keys()
    for device in DEVICES.values():
        assert len(device.source) > 20
        assert min(device.memory, device.bandwidth, device.fp16) > 0
        assert device.eight_bit >= device.fp16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan_restoration(UARE_7B, 0, 512, EDIT), "0x512 pixels"),
        (lambda: plan_restoration(UARE_7B, 512, 512, Flow(1)), "1 time points make no evaluation"),
        (lambda: plan_restoration(UARE_7B, 512, 512, EDIT).floor(THOR, "fp4"), "arithmetic is 'fp4'"),
    ],
)
def test_plans_that_cannot_be_are_refused(call: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
