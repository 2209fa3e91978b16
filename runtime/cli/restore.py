"""`uare-rt restore`: better images and videos."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uare_rt.cli.clips import clip_job
from uare_rt.cli.console import Meter, emit_json
from uare_rt.cli.failures import Failures
from uare_rt.cli.flow_options import (
    FlowOptions,
    ForecastOption,
    ImageScaleOption,
    RenormOption,
    SeedOption,
    StepsOption,
    TextScaleOption,
    VerdictOption,
)
from uare_rt.cli.inputs import find_sources
from uare_rt.cli.options import BackendOption, BundleOption, JsonOption, OverwriteOption, ThreadsOption
from uare_rt.cli.outputs import plan_outputs, prepared_directories
from uare_rt.cli.spreading import workers_for
from uare_rt.cli.unified import is_unified
from uare_rt.cli.video_options import (
    BitRateOption,
    CodecOption,
    CompareOption,
    CrfOption,
    DeinterlaceOption,
    EndOption,
    FpsOption,
    PixFmtOption,
    PresetOption,
    PreviewOption,
    RawOption,
    RayOption,
    ResumeOption,
    ReuseOption,
    SampleOption,
    SkipAboveOption,
    StartOption,
    VerifyOption,
    WorkersOption,
    parse_rate,
    parse_raw,
    parse_seconds,
)
from uare_rt.cli.work import Settings, preview_job, restore_job
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Scale", "restore"]


class Scale(str, Enum):
    """Output scales, as texts because typer lists and checks those."""

    x1 = "1"
    x2 = "2"
    x4 = "4"


def restore(
    ctx: typer.Context,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Images, videos, directories, quoted globs, @LIST.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="OUT", help="Output file (one input) or directory.")],
    scale: Annotated[Scale, typer.Option("--scale", help="Enlarge by this factor.")] = Scale.x1,
    strength: Annotated[
        float,
        typer.Option(
            "--strength", min=0.0, max=1.0, metavar="S", help="0 leaves the input as it is, 1 restores fully."
        ),
    ] = 1.0,
    tile: Annotated[
        int | None, typer.Option("--tile", min=1, metavar="PX", help="Tile side of images; fits memory if not given.")
    ] = None,
    codec: CodecOption = None,
    crf: CrfOption = None,
    bit_rate: BitRateOption = None,
    preset: PresetOption = None,
    pix_fmt: PixFmtOption = None,
    reuse: ReuseOption = True,
    skip_above: SkipAboveOption = None,
    verify: VerifyOption = False,
    compare: CompareOption = False,
    deinterlace: DeinterlaceOption = False,
    resume: ResumeOption = False,
    start: StartOption = None,
    end: EndOption = None,
    sample: SampleOption = None,
    preview: PreviewOption = None,
    fps: FpsOption = "25",
    ray: RayOption = None,
    workers: WorkersOption = None,
    raw: RawOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    text_scale: TextScaleOption = None,
    image_scale: ImageScaleOption = None,
    renorm: RenormOption = None,
    forecast: ForecastOption = None,
    own_verdict: VerdictOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Restore images and videos.

    One input and an OUT with a suffix give that file; otherwise files of the same names are written into the
    directory OUT. Inputs are never overwritten. A run over several files goes on past bad ones.
    With several GPUs, --workers or --ray, parts of each video are restored side by side and joined.
    A uare-7b model, a bundle or a checkpoint directory, works at its own resolution and gives the input size back.
    A clip may also be numbered images (shot_%04d.png, or a directory with a video as OUT), frames on a pipe (-),
    or a GStreamer pipeline (gst:PIPELINE) on either side.

    With --json, a list with one object per file: path, output, kind, seconds, score (of the input), score_after;
    for an image width and height; for a video frames, reused, skipped and kept of them, tiles and tiles_computed,
    scenes, encoding, backend, precision, parts (backend and precision for parts of frames) and lanes (frames computed
    side by side; as they were measured or asked for),
    stages (seconds each was busy), originals (where the original was kept), notes (what could not
    be kept) and damage (where the source could not be read). A file that failed has path and error only.
    """
    clip = clip_job(paths, out) if preview is None else None
    if preview is not None:
        jobs = [preview_job(paths, out, overwrite=overwrite)]
    else:
        jobs = [clip] if clip is not None else plan_outputs(find_sources(paths), out, overwrite=overwrite)
    if out == "-" and as_json:
        raise UsageError("--json: standard output carries the frames; leave one of the two out")
    if math.isnan(strength):
        raise UsageError("--strength nan: give a number from 0 to 1")
    from uare_rt.video import VideoOptions

    video = VideoOptions(
        codec=codec,
        crf=crf,
        bit_rate=bit_rate,
        preset=preset,
        pix_fmt=pix_fmt,
        reuse=reuse,
        skip_above=skip_above,
        verify=verify,
        compare=compare,
        deinterlace=deinterlace,
        start=parse_seconds(start, "--start"),
        end=parse_seconds(end, "--end"),
        sample=parse_seconds(sample, "--sample"),
        rate=parse_rate(fps),
        raw=parse_raw(raw),
    )
    video.check()
    flow = FlowOptions(steps, seed, text_scale, image_scale, renorm, forecast, own_verdict)
    flow.flow()  # what cannot be used is told before anything is loaded
    settings = Settings(
        int(scale.value), strength, tile, overwrite, video, flow, resume, parse_seconds(preview, "--preview")
    )
    if ray is not None and workers is not None:
        raise UsageError("--ray and --workers: choose one of the two")
    import uare_rt
    from uare_rt.tiling import checked_tile

    with uare_rt.load(bundle, backend=backend, threads=threads) as session:
        if settings.scale not in session.scales:
            known = ", ".join(map(str, session.scales))
            raise UsageError(f"--scale {settings.scale}: this bundle restores at {known} only")
        if not is_unified(session):
            flow.refuse(session.manifest.name)
            if tile is not None:
                checked_tile(tile, session.manifest.tiling)
        failures = Failures(ctx)
        records: list[dict[str, Any]] = []
        with (
            workers_for(jobs, ray, workers, (bundle, backend, threads)) as spreading,
            prepared_directories([job for job in jobs if out != "-" and not out.startswith("gst:")]),
            Meter(len(jobs)) as meter,
        ):
            for job in jobs:
                meter.start(job.source.path.name)
                with failures.at(job.source.path):
                    record = restore_job(session, job, settings, meter, spreading)
                    records.append(record)
                    if out == "-":
                        meter.tell(_line(record))
                    elif not as_json:
                        meter.say(_line(record))
                    _tell_shortcomings(record, failures, job.source.path)
                meter.finish()
    if as_json:
        emit_json([*records, *failures.records()])
    failures.report(len(jobs))


def _line(record: Mapping[str, Any]) -> str:
    if record["kind"] == "video":
        engine = f"{record['backend']} {record['precision']}"
        if record["parts"] != engine:
            engine += f" (parts of frames: {record['parts']})"
        work = f"{record['frames']} frames, {record['fps']:.1f} frames/s{_spared(record)}, {engine}"
    else:
        work = f"{record['width']}x{record['height']}"
    score = f"score {record['score']:.2f} -> {record['score_after']:.2f}"
    return f"{record['path']} -> {record['output']}: {score}, {work}, {record['seconds']:.1f} s"


def _spared(record: Mapping[str, Any]) -> str:
    """What did not have to be computed."""
    frames = record["frames"]
    tiles = 1 - record["tiles_computed"] / record["tiles"] if record["tiles"] else 0.0
    parts = [f"{tiles:.0%} of tiles reused"] if tiles >= 0.005 and record["skipped"] < frames else []
    parts += [
        f"{record[name]} frames {word}"
        for name, word in (("skipped", "skipped"), ("kept", "kept as they were"))
        if record[name]
    ]
    parts += [f"{record['resumed']} frames from an earlier run"] if record["resumed"] else []
    if record["stages"]:
        parts.append(f"most time in {max(record['stages'], key=record['stages'].__getitem__)}")
    return ", " + ", ".join(parts)


def _tell_shortcomings(record: Mapping[str, Any], failures: Failures, path: Path) -> None:
    import logging

    for text in record.get("notes", ()):
        logging.getLogger("uare_rt.cli").warning("%s: %s", path, text)
    for place in record.get("originals", ()):
        logging.getLogger("uare_rt.cli").warning(
            "%s: original kept from %.1f s on: %s", path, place["seconds"], place["reason"]
        )
    if record.get("damage"):
        first = record["damage"][0]
        failures.add_incomplete(
            path,
            f"damaged at {first['seconds']:.1f} s ({first['reason']}); {record['output']} holds what could be read",
        )
