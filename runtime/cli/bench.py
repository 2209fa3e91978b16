"""`uare-rt bench`: how fast this machine restores, next to what it can do at most."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uare_rt.cli.console import Meter, emit, emit_json, emit_table
from uare_rt.cli.extras import needs_extra
from uare_rt.cli.options import JsonOption
from uare_rt.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from uare_rt.bench.subjects import Kind
    from uare_rt.bundle import Bundle

__all__ = ["bench"]


def bench(
    bundles: Annotated[
        list[Path] | None,
        typer.Option("--bundle", metavar="NAME.uare", help="Bundle to measure, several for several precisions."),
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAMES", help="Backends with commas between; all that run here.")
    ] = "all",
    kind: Annotated[
        str, typer.Option("--kind", metavar="KINDS", help="Of assess, restore, sized, whole.")
    ] = "assess,restore,sized,whole",
    size: Annotated[str, typer.Option("--size", metavar="PX|WxH,...", help="Sizes of the frame.")] = "512",
    batch: Annotated[str, typer.Option("--batch", metavar="N,...", help="Frames in one run.")] = "1",
    threads: Annotated[
        str | None, typer.Option("--threads", metavar="N,...", help="CPU threads; all cores if not given.")
    ] = None,
    scale: Annotated[int, typer.Option("--scale", metavar="N", help="Of the output: 1, 2 or 4.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1, metavar="N", help="Runs of each that count.")] = 9,
    memory: Annotated[bool, typer.Option("--memory", help="Measure peak memory too, in fresh processes.")] = False,
    photo: Annotated[
        Path | None, typer.Option("--photo", metavar="IMAGE", help="Tell the PSNR of this photo, restored from noise.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw time against resolution (.svg, .png, .pdf).")
    ] = None,
    pareto: Annotated[
        Path | None, typer.Option("--pareto", metavar="FILE", help="Draw PSNR against time; needs --photo.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.json", help="Keep the result.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the speed of graphs and whole calls on this machine.

    Everything runs in turn, A B C A B C, and is told as medians and as ratios to the first, which hold on a busy
    machine where times do not. In the same turn run the machine's limits: a product of large matrices and a copy of
    memory, with as many threads. `restore` is the graph, `sized` the graph loaded for frames of one size as in a
    video, `whole` a call of Session.restore with samples of 8 bits.

    With --json, one object: date, command, machine, versions, bundles, rounds, limits (threads: gemm_gflops,
    copy_gb_s; accelerator) and subjects (bundle, precision, kind, backend, threads, scale, width, height, batch,
    flops, name, median_ms, least_ms, cpu_ms, ratio, megapixels_per_s, gflops, share_of_gemm, times_ms; peak_mb with
    --memory, psnr with --photo).
    """
    from uare_rt.bench.subjects import KINDS, subjects

    kinds: list[Kind] = [known for known in KINDS if known in _texts("--kind", kind, KINDS)]
    counts = _numbers("--threads", threads) if threads is not None else None
    sizes, batches = _sizes(size), _numbers("--batch", batch)
    _check_pictures(plot, pareto, photo)
    opened = _opened(bundles or [])
    found = subjects(
        opened,
        kinds=kinds,
        names=_backends(backend, opened),
        threads=counts or [_cores()],
        sizes=sizes,
        batches=batches,
        scale=scale,
    )
    if not found:
        raise UsageError(f"--kind {kind}: nothing of this can be measured on {backend}")
    with Meter(1) as meter:
        meter.start("rounds")
        measured = _measured(found, opened, rounds, memory, meter)
    if photo is not None:
        _add_quality(measured, opened, photo)
    if out is not None:
        _keep(measured, out)
    _draw(measured, plot, pareto)
    if as_json:
        emit_json(measured)
    else:
        _show(measured)


def _measured(
    found: Sequence[Any], opened: Mapping[str, Bundle], rounds: int, memory: bool, meter: Meter
) -> dict[str, Any]:
    from uare_rt.bench.document import Request, measure

    began = time.perf_counter()

    def told(done: int, total: int) -> None:
        meter.update(done, total, done / (time.perf_counter() - began), "rounds")

    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return measure(Request(opened, found, rounds, memory, shlex.join(["uare-rt", *words]), told))


def _cores() -> int:
    from uare_rt.machine import available_cores

    return available_cores()


def _opened(paths: Sequence[Path]) -> dict[str, Bundle]:
    from uare_rt.bundle import Bundle, shipped_bundle

    opened: dict[str, Bundle] = {}
    for path in paths or [shipped_bundle()]:
        bundle = Bundle.open(path)
        name = bundle.nano.name if not paths else path.resolve().stem
        if name in opened:
            raise UsageError(f"--bundle {path}: another one is named {name} too; rename a directory")
        opened[name] = bundle
    return opened


def _backends(text: str, opened: Mapping[str, Bundle]) -> list[str]:
    from uare_rt import backends

    if text != "all":
        return [backends.choose(name).name for name in _texts("--backend", text, backends.names())]
    # TensorRT compiles for minutes, and a null backend has no speed.
    fitting = ["onnxruntime", "openvino", "onnxruntime-cuda"]
    compiled = {bundle.manifest.backend.name for bundle in opened.values()}
    fitting += [name for name in backends.names() if name in compiled and name not in fitting]
    return [name for name in fitting if backends.get(name).probe().available]


def _texts(option: str, text: str, known: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise UsageError(f"{option} {text}: name some of {', '.join(known)}, with commas between")
    return names


def _numbers(option: str, text: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d{0,4}(,[1-9]\d{0,4})*", text):
        raise UsageError(f"{option} {text}: write whole numbers from 1 with commas between, for example 1,2,4")
    return list(dict.fromkeys(map(int, text.split(","))))


def _sizes(text: str) -> list[tuple[int, int]]:
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", part.strip())
        if not match:
            raise UsageError(f"--size {text}: write sizes with commas between, for example 512,1280x720")
        found.append((int(match[1]), int(match[2] or match[1])))
    return found


def _check_pictures(plot: Path | None, pareto: Path | None, photo: Path | None) -> None:
    from uare_rt.bench.plots import check_target

    for target in (plot, pareto):
        if target is not None:
            check_target(target)
            with needs_extra("bench"):
                import matplotlib  # noqa: F401
    if pareto is not None and photo is None:
        raise UsageError("--pareto needs --photo IMAGE, whose PSNR it draws")
    if photo is not None and not photo.is_file():
        raise InputError(f"{photo}: no such photo; check the path")


def _add_quality(measured: Mapping[str, Any], opened: Mapping[str, Bundle], photo: Path) -> None:
    from uare_rt.bench.quality import restored_psnr
    from uare_rt.frames import to_uint8
    from uare_rt.images import read_image

    pixels = to_uint8(read_image(photo).pixels)
    known: dict[tuple[str, str], float] = {}
    for row in measured["subjects"]:
        if row["kind"] == "whole" and row["scale"] == 1:
            place = row["bundle"], row["backend"]
            if place not in known:
                known[place] = restored_psnr(opened[row["bundle"]], row["backend"], pixels)
            row["psnr"] = known[place]


def _keep(measured: Mapping[str, Any], out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(measured, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}") from error


def _draw(measured: Mapping[str, Any], plot: Path | None, pareto: Path | None) -> None:
    from uare_rt.bench.plots import plot_latency, plot_quality

    if plot is not None:
        plot_latency(measured["subjects"], plot)
    if pareto is not None:
        marks = [(row["name"], row["median_ms"], row["psnr"]) for row in measured["subjects"] if "psnr" in row]
        plot_quality(marks, pareto)


def _show(measured: Mapping[str, Any]) -> None:
    machine, limits = measured["machine"], measured["limits"]
    clock = "" if machine["clock_ghz"] is None else f" at {machine['clock_ghz']:.2f} GHz"
    emit(f"{machine['cpu']}{clock}, {machine['cores']} cores, load average {machine['load_average']}")
    for row in limits["threads"]:
        emit(
            f"limits with {row['threads']} threads: {row['gemm_gflops']:.1f} GFLOP/s in matrix products, "
            f"{row['copy_gb_s']:.1f} GB/s copying"
        )
    if limits["accelerator"] is not None:
        emit(", ".join(f"{name} {value:.1f}" for name, value in limits["accelerator"].items()))
    emit("")
    optional: list[tuple[str, str, Callable[[Any], str]]] = [
        ("megapixels_per_s", ">MP/s", lambda value: f"{value:.2f}"),
        ("gflops", ">GFLOP/s", lambda value: f"{value:.1f}"),
        ("share_of_gemm", ">of GEMM", lambda value: f"{value:.0%}"),
        ("peak_mb", ">peak MB", lambda value: f"{value:.0f}"),
        ("psnr", ">PSNR dB", lambda value: f"{value:.2f}"),
    ]
    shown = [column for column in optional if any(row.get(column[0]) is not None for row in measured["subjects"])]
    emit_table(
        ("what", ">ms", ">least", ">CPU ms", ">ratio", *(title for _, title, _ in shown)),
        [
            (
                row["name"],
                f"{row['median_ms']:.1f}",
                f"{row['least_ms']:.1f}",
                f"{row['cpu_ms']:.1f}",
                f"{row['ratio']:.3f}",
                *("-" if row.get(key) is None else text(row[key]) for key, _, text in shown),
            )
            for row in measured["subjects"]
        ],
    )
