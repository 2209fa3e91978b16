"""`uare-rt plan --preset uare-nano`: floor and forecast of restoring a frame on a device, or a check on this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uare_rt.cli.console import emit, emit_json, emit_table
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from uare_rt.model.nano_costs import Layer
    from uare_rt.model.nano_plan import Rates

__all__ = ["HERE", "plan_nano"]

HERE = "this"
"""The name that stands for this machine's processor, with its limits measured."""
_ROUNDS = 7


def plan_nano(device: str, size: tuple[int, int], *, as_json: bool) -> None:
    """Show what restoring a frame costs, layer by layer.

    Args:
        device: a name of the device table, or `HERE`.
        size: width and height of the frame, px.
        as_json: one object instead of tables.

    Raises:
        UsageError: there is no such device.
    """
    from uare_rt.model.nano_costs import restore_layers
    from uare_rt.model.presets.nano import UARE_NANO

    layers = restore_layers(UARE_NANO, *size)
    planned = _measured(layers, size) if device == HERE else _forecast(layers, device)
    planned = {"preset": "uare-nano", "size": list(size), **planned}
    if as_json:
        emit_json(planned)
    else:
        _show(planned)


def _forecast(layers: Sequence[Layer], name: str) -> dict[str, Any]:
    from uare_rt.model.nano_plan import EFFICIENCY, LAUNCH_SECONDS, Rates, expected, floor
    from uare_rt.model.plan import devices

    known = devices()
    if name not in known:
        raise UsageError(f"--device {name}: not in the table; one of {', '.join(known)}, or {HERE}")
    device = known[name]
    peak, bandwidth = device.fp16 * 1e12, device.bandwidth * 1e9
    rates = {
        "fp16": Rates(peak, peak, bandwidth, 2, 2),
        "int8": Rates(peak, device.eight_bit * 1e12, bandwidth, 2, 1),
    }
    return {
        "device": {"name": name, "source": device.source, **_peaks(rates["fp16"], rates["int8"].eight_bit)},
        "layers": _rows(layers, rates),
        "floor_seconds": {label: floor(layers, rate) for label, rate in rates.items()},
        "expected_seconds": {label: expected(layers, rate) for label, rate in rates.items()},
        "assumed": {"efficiency": EFFICIENCY, "launch_seconds": LAUNCH_SECONDS},
    }


def _measured(layers: Sequence[Layer], size: tuple[int, int]) -> dict[str, Any]:
    """The same floor from measured peaks, and how far what is real is from it."""
    from uare_rt import backends
    from uare_rt.bench.document import Request, measure
    from uare_rt.bench.subjects import frames_kind, subjects
    from uare_rt.bundle import Bundle, shipped_bundle
    from uare_rt.machine import available_cores, cpu_model
    from uare_rt.model.nano_plan import EFFICIENCY, Rates, floor

    bundle = {"uare-nano": Bundle.open(shipped_bundle())}
    names = [name for name in ("onnxruntime", "openvino") if backends.get(name).probe().available]
    cores = available_cores()
    found = [
        subject
        for name in names
        for subject in subjects(
            bundle, kinds=[frames_kind(name)], names=[name], threads=[cores], sizes=[size], batches=[1], scale=1
        )
    ]
    document = measure(Request(bundle, found, _ROUNDS, memory=False, command="uare-rt plan"))
    (limits,) = document["limits"]["threads"]
    peak, bandwidth = limits["gemm_gflops"] * 1e9, limits["copy_gb_s"] * 1e9
    rates = {"fp32": Rates(peak, peak, bandwidth, 4, 4)}
    least = floor(layers, rates["fp32"])
    times = {row["backend"]: row["median_ms"] / 1e3 for row in document["subjects"]}
    return {
        "device": {"name": cpu_model(), "source": "measured in this run", **_peaks(rates["fp32"], peak)},
        "layers": _rows(layers, rates),
        "floor_seconds": {"fp32": least},
        "measured_seconds": times,
        "measured_efficiency": {name: least / seconds for name, seconds in times.items()},
        "assumed": {"efficiency": EFFICIENCY},
    }


def _peaks(rates: Rates, eight_bit: float) -> dict[str, float]:
    return {
        "tflops": rates.flops / 1e12,
        "eight_bit_tops": eight_bit / 1e12,
        "bandwidth_gb_s": rates.bandwidth / 1e9,
    }


def _rows(layers: Sequence[Layer], rates: Mapping[str, Rates]) -> list[dict[str, Any]]:
    return [
        {
            "name": layer.name,
            "part": layer.part,
            "flops": layer.flops,
            "launches": layer.launches,
            "bytes": {label: rate.bytes(layer) for label, rate in rates.items()},
            "seconds": {label: rate.seconds(layer) for label, rate in rates.items()},
            "bound": {label: rate.bound(layer) for label, rate in rates.items()},
        }
        for layer in layers
    ]


def _show(planned: Mapping[str, Any]) -> None:
    device, (width, height) = planned["device"], planned["size"]
    facts = [
        ("preset", f"uare-nano, restore x1 of {width}x{height} px"),
        ("device", f"{device['name']}: {device['bandwidth_gb_s']:.4g} GB/s, {device['tflops']:.4g} TFLOPS"),
        ("source", device["source"]),
    ]
    emit_table(("", ""), facts)
    emit("")
    labels = list(planned["floor_seconds"])
    rows = [
        (
            row["name"],
            f"{row['flops'] / 1e9:.3f}",
            str(row["launches"]),
            *(f"{row['bytes'][label] / 1e6:.2f}" for label in labels),
            *(f"{row['seconds'][label] * 1e6:.3g}" for label in labels),
            row["bound"][labels[0]],
        )
        for row in planned["layers"]
    ]
    headers = (*(f">MB {label}" for label in labels), *(f">us {label}" for label in labels))
    emit_table(("layer", ">GFLOP", ">kernels", *headers, "bound by"), rows)
    emit("")
    if "measured_seconds" in planned:
        least = planned["floor_seconds"]["fp32"]
        emit(f"floor from the limits measured in this run: {least * 1e3:.1f} ms")
        for name, seconds in planned["measured_seconds"].items():
            share = planned["measured_efficiency"][name]
            emit(f"{name} took {seconds * 1e3:.1f} ms: an efficiency of {share:.2f}; forecasts assume "
                 f"{planned['assumed']['efficiency']}")  # fmt: skip
        return
    assumed = planned["assumed"]
    for label in labels:
        least, wanted = planned["floor_seconds"][label], planned["expected_seconds"][label]
        emit(f"{label}: {least * 1e3:.3g} ms at the least, {wanted * 1e3:.3g} ms ({1 / wanted:.0f} frames/s) expected")
    emit(
        f"expected assumes {assumed['efficiency']:.0%} of the floor's speed and {assumed['launch_seconds'] * 1e6:g} us "
        "a kernel; nothing was measured on such a device"
    )
