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


# The specification's tables of seconds: flow, pixels, storage of weights and arithmetic, on Orin as briefed, Orin, Thor
# and RTX 4090.
FLOORS: list[tuple[str, int, str, tuple[float, float, float, float]]] = [
    ("edit", 512, "same", (25.5, 51.0, 8.40, 13.1)),
    ("edit", 512, "int8", (25.5, 51.0, 8.40, 13.1)),
    ("edit", 512, "int4", (25.5, 51.0, 8.40, 13.1)),
    ("edit", 512, "w8a8", (16.5, 27.5, 4.51, 4.04)),
    ("forecast", 512, "same", (10.2, 20.3, 3.35, 5.24)),
    ("forecast", 512, "int8", (10.2, 20.3, 3.35, 5.24)),
    ("forecast", 512, "int4", (10.2, 20.3, 3.35, 5.24)),
    ("forecast", 512, "w8a8", (6.59, 11.0, 1.80, 1.62)),
    ("49", 512, "same", (9.00, 18.0, 4.86, 4.64)),
    ("49", 512, "int8", (9.00, 18.0, 2.96, 4.64)),
    ("49", 512, "int4", (9.00, 18.0, 2.96, 4.64)),
    ("49", 512, "w8a8", (5.90, 9.88, 2.45, 1.50)),
    ("8", 512, "same", (1.85, 3.70, 0.92, 0.95)),
    ("8", 512, "int8", (1.85, 3.70, 0.61, 0.95)),
    ("8", 512, "int4", (1.85, 3.70, 0.61, 0.95)),
    ("8", 512, "w8a8", (1.22, 2.05, 0.47, 0.32)),
    ("4", 512, "same", (1.16, 2.31, 0.54, 0.60)),
    ("4", 512, "int8", (1.16, 2.31, 0.38, 0.60)),
    ("4", 512, "int4", (1.16, 2.31, 0.38, 0.60)),
    ("4", 512, "w8a8", (0.76, 1.29, 0.28, 0.20)),
    ("1", 512, "same", (0.63, 1.26, 0.25, 0.33)),
    ("1", 512, "int8", (0.63, 1.26, 0.21, 0.33)),
    ("1", 512, "int4", (0.63, 1.26, 0.21, 0.33)),
    ("1", 512, "w8a8", (0.42, 0.72, 0.13, 0.11)),
    *(("edit", 1024, weights, (123, 246, 40.6, 63.5)) for weights in ("same", "int8", "int4")),
    ("edit", 1024, "w8a8", (87.4, 153, 25.1, 27.2)),
    *(("forecast", 1024, weights, (49.0, 97.9, 16.1, 25.2)) for weights in ("same", "int8", "int4")),
    ("forecast", 1024, "w8a8", (34.7, 60.6, 9.98, 10.8)),
    *(("49", 1024, weights, (45.2, 90.5, 14.9, 23.3)) for weights in ("same", "int8", "int4")),
    ("49", 1024, "w8a8", (32.9, 58.2, 9.57, 10.8)),
    *(("8", 1024, weights, (9.01, 18.0, 2.97, 4.64)) for weights in ("same", "int8", "int4")),
    ("8", 1024, "w8a8", (6.54, 11.6, 1.90, 2.14)),
    *(("4", 1024, weights, (5.48, 11.0, 1.80, 2.82)) for weights in ("same", "int8", "int4")),
    ("4", 1024, "w8a8", (3.97, 7.00, 1.15, 1.29)),
    *(("1", 1024, weights, (2.83, 5.65, 0.93, 1.46)) for weights in ("same", "int8", "int4")),
    ("1", 1024, "w8a8", (2.04, 3.58, 0.59, 0.66)),
]


@pytest.mark.parametrize(("name", "side", "column", "seconds"), FLOORS)
def test_the_latency_floors_are_met(
    name: str, side: int, column: str, seconds: tuple[float, float, float, float]
) -> None:
    flow = {"edit": EDIT, "forecast": FORECAST}.get(name) or Flow(int(name) + 1)
    weights, arithmetic = ("int8", "w8a8") if column == "w8a8" else (column, "fp16")
    plan = plan_restoration(UARE_7B, side, side, flow, memory=MemoryOptions(weights))
    # The tables count reading the text once more without the images, which only guidance by image needs.
    more = 0.0 if flow.guidance.by_image else decoder(UARE_7B, [(34, 34)], weights).linear / 1e12
    for device, expected in zip((BRIEFED, ORIN, THOR, RTX), seconds, strict=True):
        rate = device.fp16 if arithmetic == "fp16" else device.eight_bit
        assert plan.floor(device, arithmetic) + more / rate == pytest.approx(expected, rel=5e-3, abs=0.006)


@pytest.mark.parametrize(
    ("device", "prefill", "large", "words"),
    [
        (BRIEFED, 0.24, 0.96, (69.4, 34.9, 18.2)),
        (ORIN, 0.49, 1.92, (69.4, 34.9, 18.2)),
        (THOR, 0.08, 0.32, (52.1, 26.2, 13.7)),
        (RTX, 0.13, 0.49, (14.1, 7.1, 3.7)),
    ],
)
def test_the_assessment_floors_are_met(
    device: Device, prefill: float, large: float, words: tuple[float, float, float]
) -> None:
    assert plan_assessment(UARE_7B, 512, 512).floor(device) == near(prefill)
    assert plan_assessment(UARE_7B, 1024, 1024).floor(device) == near(large)
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
