"""`uare-rt plan`: what a run costs on a device, computed before anything is downloaded or bought."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uare_rt.cli.console import emit, emit_json, emit_table
from uare_rt.cli.options import JsonOption
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["plan"]

_PRESETS = ("uare-7b", "uare-nano")
_LABELS = {"same": "bf16", "int8": "int8", "int4": "int4"}
_GB = 1e9


def plan(
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Device of the table, for example orin-agx-64 or rtx4090; with uare-nano also `this`, measured.",
        ),
    ],
    preset: Annotated[str, typer.Option("--preset", metavar="NAME", help="Model to plan for.")] = "uare-7b",
    size: Annotated[
        str, typer.Option("--size", metavar="PX|WxH", help="Side of a square picture, or its width and height.")
    ] = "1024",
    steps: Annotated[int, typer.Option("--steps", metavar="N", help="Evaluations of the flow.")] = 49,
    cfg: Annotated[
        str, typer.Option("--cfg", metavar="TEXT[,IMAGE]", help="Guidance scales by text and by image; 1 is none.")
    ] = "4,2",
    cfg_interval: Annotated[
        str, typer.Option("--cfg-interval", metavar="LOW,HIGH", help="Times between which guidance is on.")
    ] = "0,1",
    forecast: Annotated[bool, typer.Option("--forecast", help="Extrapolate two of three evaluations.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what restoring a picture costs at the least: memory, operations, bytes, seconds.

    A floor computed from peak rates, not a measurement: no implementation is faster. For uare-nano the operations,
    bytes and kernels of every layer, with a forecast whose assumptions are told; `--device this` holds the same
    method against this machine. Steps and guidance are those of uare-7b.

    With --json, one object: preset, device, size, worked_size, tokens, evaluations, memory (by weight type, each with
    parts, peak, smallest and fits; bytes), phases (name, times, flops, bytes by weight type, seconds) and floor
    (seconds by weight type; restore, restore_w8a8 and assess). For uare-nano: preset, size, device, layers (name,
    part, flops, launches, and by precision bytes, seconds, bound), floor_seconds, expected_seconds, assumed; or with
    `this` measured_seconds and measured_efficiency by backend.
    """
    if preset not in _PRESETS:
        raise UsageError(f"--preset {preset}: can only plan for {', '.join(_PRESETS)}")
    if preset == "uare-nano":
        from uare_rt.cli.nano_plan import plan_nano

        plan_nano(device, _sides(size), as_json=as_json)
        return
    planned = _planned(preset, device, _sides(size), _flow(steps, cfg, cfg_interval, forecast))
    if as_json:
        emit_json(planned)
    else:
        _show(planned)


def _sides(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text)
    if not match or not all(int(side) for side in match.groups(default="1")):
        raise UsageError(f"--size {text}: not a size; write for example 1024 or 1280x720")
    return int(match[1]), int(match[2] or match[1])


def _numbers(option: str, text: str, example: str, counts: tuple[int, ...]) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise UsageError(f"{option} {text}: not understood; write for example {example}")
    return numbers


def _flow(steps: int, cfg: str, interval: str, forecast: bool) -> Any:
    """The flow of these options; settings that do nothing are told."""
    import logging
    import warnings

    from uare_rt.model.flow import Flow, Guidance, GuidanceWarning

    if steps < 1:
        raise UsageError(f"--steps {steps}: no evaluation; ask for at least 1")
    text_scale, *image_scale = _numbers("--cfg", cfg, "4,2", (1, 2))
    low, high = _numbers("--cfg-interval", interval, "0.4,1", (2,))
    guidance = Guidance(text_scale, image_scale[0] if image_scale else 1.0, "text_channel", interval=(low, high))
    flow = Flow(steps + 1, guidance=guidance, forecast=forecast)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GuidanceWarning)
        flow.warn()
    for warning in caught:
        logging.getLogger("uare_rt").warning("%s", warning.message)
    return flow


def _planned(preset: str, name: str, sides: tuple[int, int], flow: Any) -> dict[str, Any]:
    """The JSON object documented above."""
    from uare_rt.model.memory import MemoryOptions
    from uare_rt.model.plan import devices, plan_assessment, plan_restoration
    from uare_rt.model.presets.uare_7b import UARE_7B

    known = devices()
    if name not in known:
        raise UsageError(f"--device {name}: not in the table; one of {', '.join(known)}")
    device = known[name]
    plans, memory, floor = {}, {}, {}
    for weights, label in _LABELS.items():
        made = plan_restoration(UARE_7B, *sides, flow, memory=MemoryOptions(weights))
        least = MemoryOptions(weights, "int8", 512, "one", stream_und_mlp=True)
        smallest = plan_restoration(UARE_7B, *sides, _one_by_one(flow), memory=least).peak
        plans[label] = made
        memory[label] = {
            "parts": made.memory,
            "peak": made.peak,
            "smallest": smallest,
            "fits": made.peak <= device.memory * _GB,
            "smallest_fits": smallest <= device.memory * _GB,
        }
        floor[label] = {
            "restore": made.floor(device),
            "restore_w8a8": made.floor(device, "w8a8") if weights == "int8" else None,
            "assess": plan_assessment(UARE_7B, *sides, memory=MemoryOptions(weights)).floor(device),
        }
    first = plans["bf16"]
    phases = [
        {
            "name": phase.name,
            "times": phase.times,
            "flops": phase.work.flops,
            "bytes": {label: made.phases[index].work.bytes for label, made in plans.items()},
            "seconds": {label: device.floor(made.phases[index].work) for label, made in plans.items()},
            "bound": device.bound(phase.work),
        }
        for index, phase in enumerate(first.phases)
    ]
    layout = first.layout
    return {
        "preset": preset,
        "device": {
            "name": name,
            "memory_gb": device.memory,
            "bandwidth_gb_s": device.bandwidth,
            "fp16_tflops": device.fp16,
            "eight_bit_tops": device.eight_bit,
            "source": device.source,
        },
        "size": list(sides),
        "worked_size": list(layout.size),
        "tokens": {"latent": layout.latents, "image": layout.patches, "text": layout.text},
        "evaluations": flow.points - 1,
        "memory": memory,
        "phases": phases,
        "floor": floor,
    }


def _one_by_one(flow: Any) -> Any:
    import dataclasses

    return dataclasses.replace(flow, batched=False)


def _show(planned: Mapping[str, Any]) -> None:
    device, tokens, memory = planned["device"], planned["tokens"], planned["memory"]
    width, height = planned["worked_size"]
    facts = [
        ("preset", planned["preset"]),
        ("device", f"{device['name']}: {device['memory_gb']:g} GB, {device['bandwidth_gb_s']:g} GB/s"),
        ("peak", f"{device['fp16_tflops']:g} TFLOPS at 16 bit, {device['eight_bit_tops']:g} TOPS at 8 bit, dense"),
        ("source", device["source"]),
        ("picture", f"{planned['size'][0]}x{planned['size'][1]} px, worked on at {width}x{height}"),
        ("tokens", f"{tokens['latent']} latent, {tokens['image']} image, {tokens['text']} text"),
        ("evaluations", str(planned["evaluations"])),
    ]
    emit_table(("", ""), facts)
    emit("")
    labels = list(memory)
    rows = [
        (part.replace("_", " "), *(f"{memory[label]['parts'][part] / _GB:.2f}" for label in labels))
        for part in memory["bf16"]["parts"]
    ]
    for title, key in (("at most, all options off", "peak"), ("at most, all options on", "smallest")):
        rows.append((title, *(f"{memory[label][key] / _GB:.2f}" for label in labels)))
    fits = {True: "yes", False: "no"}
    rows.append((f"fits {device['memory_gb']:g} GB: off", *(fits[memory[label]["fits"]] for label in labels)))
    rows.append((f"fits {device['memory_gb']:g} GB: on", *(fits[memory[label]["smallest_fits"]] for label in labels)))
    emit_table(("memory, GB; weights as", *(f">{label}" for label in labels)), rows)
    emit("")
    emit_table(
        ("phase", ">times", ">TFLOP", *(f">GB {label}" for label in labels), ">s", "bound by"),
        [
            (
                phase["name"],
                str(phase["times"]),
                f"{phase['flops'] / 1e12:.2f}",
                *(f"{phase['bytes'][label] / _GB:.2f}" for label in labels),
                f"{phase['seconds']['bf16']:.3g}",
                phase["bound"],
            )
            for phase in planned["phases"]
        ],
    )
    emit("")
    floor = planned["floor"]
    emit_table(
        ("seconds at the least; weights as", *(f">{label}" for label in labels)),
        [
            (title, *("-" if floor[label][key] is None else f"{floor[label][key]:.3g}" for label in labels))
            for title, key in (
                ("restore, 16-bit arithmetic", "restore"),
                ("restore, 8-bit linear layers", "restore_w8a8"),
                ("assess, one pass", "assess"),
            )
        ],
    )
    emit("")
    emit("options: int8 cache, tiles of 512 px, components one at a time, streamed MLP, branches one by one")
    emit("computed from peak rates, not measured: nothing can be faster, and what is real is slower")
