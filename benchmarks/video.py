"""Video: what reuse saves and costs, flicker, whole-run time against its parts, memory against the length of a clip.

usage: python benchmarks/video.py CLIP_OR_DIRECTORY [--seconds 10] [--rounds 1] [--long 2000] [-o FILE]
A clip from a static camera is wanted for the limits of reuse (vtest.avi of Debian's opencv-doc). Each clip is cut to
its middle, for the whole run to three times as much. Results are encoded with FFV1 where pictures are compared, so that
no encoder's loss is counted.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from processes import console_script, run_measured
from results import Limit, Result, Table, add_options, bundle_facts, finish, keep_partial, run_command, sha256_of

from uare_rt.errors import InputError, UareError
from uare_rt.machine import available_cores
from uare_rt.video import is_video

FASTER, LIKENESS = 3.0, 45.0
OVERHEAD = 1.15
MEMORY_GROWTH = 1.10
_LONGER = 3  # times the excerpt for the whole run: start, the same for a film, counts as a tenth of ten seconds
_STILL = 12  # levels of 255 that a still place may move by between two frames, for noise and codecs
_STRIP = (32, 128)  # height and width in px of the strip whose light is followed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clips", type=Path, help="a video, or a directory with some; the first stands for the limits")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the excerpt from the middle of each")
    parser.add_argument("--rounds", type=int, default=1, help="pairs of runs with and without reuse, interleaved")
    parser.add_argument("--long", type=int, default=2000, help="frames of the longer of the two clips for memory")
    add_options(parser)
    chosen = parser.parse_args(arguments)
    clips = clips_in(chosen.clips)
    facts = bundle_facts(chosen.bundle)
    options = ["--backend", chosen.backend, *(["--bundle", str(chosen.bundle)] if chosen.bundle else [])]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        reuse: dict[str, dict[str, Any]] = {}
        memory: dict[str, dict[str, Any]] = {}
        measured: dict[str, Any] = {"reuse": reuse, "memory": memory}
        for clip in clips:
            try:
                reuse[clip.name] = _reuse(clip, work, chosen.seconds, chosen.rounds, options)
            except UareError as error:  # a damaged clip among others
                if clip == clips[0]:
                    raise
                reuse[clip.name] = {"reason": str(error).replace(str(work), "")[:200]}
            keep_partial("video", measured, chosen)
        measured["whole"] = _whole(clips[0], work, _LONGER * chosen.seconds, options)
        keep_partial("video", measured, chosen)
        for frames in (100, chosen.long):
            memory[str(frames)] = _memory(made_clip(work / f"{frames}.mp4", frames), options)
            keep_partial("video", measured, chosen)
    result = Result(
        benchmark="video",
        data={"clips_sha256": sha256_of(clips), "clips": [clip.name for clip in clips]},
        bundle=facts,
        settings={"backend": chosen.backend, "seconds": chosen.seconds, "rounds": chosen.rounds},
        measured=measured,
        limits=_limits(measured, clips[0].name),
    )
    return finish(result, tables(measured), chosen)


def clips_in(path: Path) -> list[Path]:
    """A video itself, or those of a directory by name.

    Raises:
        InputError: there is none.
    """
    found = sorted(p for p in path.iterdir() if is_video(p)) if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise InputError(f"{path}: no video there; name a clip, or a directory with some")
    return found


def made_clip(path: Path, frames: int) -> Path:
    """A clip of 320x240: something moves in front of a still wall, with noise."""
    rng = np.random.default_rng(7)
    wall = rng.integers(20, 220, (15, 20, 3)).repeat(16, 0).repeat(16, 1).astype(np.int16)
    noise = rng.normal(0, 5, (300, 400, 1)).astype(np.int16)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.options = {"crf": "20", "preset": "ultrafast"}
        for i in range(frames):
            y, x = rng.integers(0, 60), rng.integers(0, 80)
            picture = wall + noise[y : y + 240, x : x + 320]
            left = 3 * i % 280
            picture[100:140, left : left + 40] = 220
            frame = av.VideoFrame.from_ndarray(np.clip(picture, 0, 255).astype(np.uint8), "rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    reuse = [
        (
            name,
            f"{row['wall_reuse']:.1f}",
            f"{row['wall_whole']:.1f}",
            f"{row['speedup_cpu']:.2f}",
            f"{row['psnr']:.1f}",
            f"{row['tiles_computed']:.0%}",
            f"{row['score_before']:.2f} -> {row['score_after']:.2f}",
            f"{row['strip_before']:.2f} -> {row['strip_after']:.2f}" if row["strip_before"] is not None else "-",
        )
        if "reason" not in row
        else (f"{name}: {row['reason']}", *"-------")
        for name, row in measured["reuse"].items()
    ]
    headers = ("clip", "reuse s", "whole s", "CPU ratio", "PSNR dB", "tiles", "score", "strip sigma")
    whole = measured["whole"]
    parts = [(name, f"{whole[name]:.1f}") for name in ("decode", "engine", "encode", "run")]
    peaks = [(f"{frames} frames", f"{row['peak_mb']:.0f}") for frames, row in measured["memory"].items()]
    return [
        Table("Excerpts with and without reuse", headers, reuse),
        Table("Processor seconds of the parts, each alone, and of a whole run", ("part", "CPU s"), parts),
        Table("Peak memory, 320x240", ("clip", "peak MB"), peaks),
    ]


def _reuse(clip: Path, work: Path, seconds: float, rounds: int, options: Sequence[str]) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {"--reuse": [], "--no-reuse": []}
    for number in range(rounds):
        for flag, found in runs.items():
            target = work / f"{clip.stem}{flag}-{number}.mkv"
            found.append(_restored(clip, target, [*options, flag, "--codec", "ffv1", "--sample", str(seconds)]))
    targets = [work / f"{clip.stem}{flag}-0.mkv" for flag in runs]
    source = work / f"{clip.stem}-source.mkv"
    _restored(clip, source, [*options, "--strength", "0", "--codec", "ffv1", "--sample", str(seconds)])
    strip = _still_strip(source)
    row = {
        **{name: statistics.median(r[key] for r in runs[flag]) for name, flag, key in _MEASURES},
        "psnr": _psnr(*targets),
        "tiles_computed": runs["--reuse"][0]["tiles_computed"] / runs["--reuse"][0]["tiles"],
        "frames": runs["--reuse"][0]["frames"],
        "score_before": runs["--reuse"][0]["score"],
        "score_after": runs["--reuse"][0]["score_after"],
        "strip_before": None if strip is None else _strip_sigma(source, strip),
        "strip_after": None if strip is None else _strip_sigma(targets[0], strip),
    }
    row["speedup_wall"] = row["wall_whole"] / row["wall_reuse"]
    row["speedup_cpu"] = row["cpu_whole"] / row["cpu_reuse"]
    return row


_MEASURES = (
    ("wall_reuse", "--reuse", "seconds"),
    ("wall_whole", "--no-reuse", "seconds"),
    ("cpu_reuse", "--reuse", "cpu"),
    ("cpu_whole", "--no-reuse", "cpu"),
)


def _restored(clip: Path, target: Path, options: Sequence[str]) -> dict[str, Any]:
    """Run `uare-rt restore`; its JSON with the processor seconds of the process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*console_script("uare-rt"), "restore", str(clip), "-o", str(target), "--json", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise UareError(f"uare-rt restore {clip.name} failed ({done.returncode}): {done.stderr.strip()}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    record: dict[str, Any] = json.loads(done.stdout)[0]
    return {**record, "cpu": cpu}


def _whole(clip: Path, work: Path, seconds: float, options: Sequence[str]) -> dict[str, Any]:
    """A whole run that computes every frame, against its parts alone."""
    short = work / f"short{clip.suffix if clip.suffix in ('.mp4', '.mkv') else '.mkv'}"
    _restored(clip, short, [*options, "--strength", "0", "--sample", str(seconds), "--crf", "10"])
    run = _restored(short, work / "whole.mp4", [*options, "--no-reuse"])
    decode, engine, encode = (_alone(name, short, options) for name in ("decode", "engine", "encode"))
    parts = decode + engine + encode
    return {
        "decode": decode,
        "engine": engine,
        "encode": encode,
        "run": run["cpu"],
        "wall": run["seconds"],
        "stages": run["stages"],
        "cpu_ratio": run["cpu"] / parts,
        "wall_ratio": run["seconds"] * available_cores() / parts,
    }


def _alone(what: str, clip: Path, options: Sequence[str]) -> float:
    """Processor seconds of one part of the work on every frame of a clip, in this process."""
    import uare_rt
    from uare_rt.video.colour import FromRgb
    from uare_rt.video.encoding import ENCODERS

    frames = list(_pictures(clip)) if what != "decode" else []
    began = time.process_time()
    if what == "decode":
        for _ in _pictures(clip):
            pass
        return time.process_time() - began
    if what == "engine":
        bundle = options[options.index("--bundle") + 1] if "--bundle" in options else None
        with uare_rt.load(bundle, backend=options[options.index("--backend") + 1]) as session:
            context = session.assess(frames[0]).context
            area = len(frames) * frames[0].shape[0] * frames[0].shape[1]
            session.restore(frames[0], context=context, ahead=area)
            began = time.process_time()
            for frame in frames:
                session.restore(frame, context=context, ahead=area)
            return time.process_time() - began
    encoder, convert = ENCODERS["libx264"], FromRgb("yuv420p", 6, full_range=False)
    ready = [convert(frame) for frame in frames]
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = ready[0].width, ready[0].height, "yuv420p"
    context.framerate, context.time_base = 25, Fraction(1, 25)
    context.options = {"crf": str(encoder.quality), "preset": encoder.preset}
    began = time.process_time()
    for index, frame in enumerate(ready):
        frame.pts, frame.time_base = index, context.time_base
        context.encode(frame)
    context.encode(None)
    return time.process_time() - began


def _memory(clip: Path, options: Sequence[str]) -> dict[str, Any]:
    target = clip.with_name(f"{clip.stem}-restored.mp4")
    run = run_measured([*console_script("uare-rt"), "restore", str(clip), "-o", str(target), *options])
    if run.exit_code:
        raise UareError(f"uare-rt restore of {clip.stem} frames failed ({run.exit_code}): {run.stderr.strip()}")
    return {"peak_mb": run.peak_rss / 1e6, "seconds": run.wall, "cpu": run.cpu}


def _pictures(clip: Path) -> Iterator[np.ndarray]:
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _psnr(one: Path, other: Path) -> float:
    errors = [
        float(np.square(a.astype(np.float32) - b).mean()) for a, b in zip(_pictures(one), _pictures(other), strict=True)
    ]
    return float(10 * np.log10(255**2 / max(float(np.mean(errors)), 1e-9)))


def _luma(frame: np.ndarray, strip: tuple[slice, slice]) -> np.ndarray:
    return frame[strip].astype(np.float32) @ np.float32([0.299, 0.587, 0.114])


def _still_strip(clip: Path) -> tuple[slice, slice] | None:
    """The strip in which nothing moves and light changes the most; None where everything moves."""
    height, width = _STRIP
    last = moved = total = squares = None
    count = 0
    for frame in _pictures(clip):
        grey = frame.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
        if last is None:
            moved, total, squares = np.zeros_like(grey), np.zeros_like(grey), np.zeros_like(grey)
        else:
            moved = np.maximum(moved, np.abs(grey - last))
        last, count = grey, count + 1
        total, squares = total + grey, squares + grey * grey
    if last is None or moved is None:
        return None
    deviation = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))
    places = [
        (float(deviation[y : y + height, x : x + width].mean()), y, x)
        for y in range(0, last.shape[0] - height + 1, height)
        for x in range(0, last.shape[1] - width + 1, width)
        if moved[y : y + height, x : x + width].max() <= _STILL
    ]
    if not places:
        return None
    _, y, x = max(places)
    return slice(y, y + height), slice(x, x + width)


def _strip_sigma(clip: Path, strip: tuple[slice, slice]) -> float:
    """Standard deviation over time of the luma of each px, mean over a strip, in levels of 255."""
    return float(np.stack([_luma(frame, strip) for frame in _pictures(clip)]).std(axis=0).mean())


def _limits(measured: Mapping[str, Any], first: str) -> list[Limit]:
    row, whole = measured["reuse"][first], measured["whole"]
    short, long = (entry["peak_mb"] for entry in measured["memory"].values())
    return [
        Limit(f"{first}: times faster with reuse", row["speedup_wall"], FASTER, at_least=True),
        Limit(f"{first}: reuse against none", row["psnr"], LIKENESS, at_least=True, unit="dB"),
        Limit(f"{first}: score gained", row["score_after"] - row["score_before"], 0, at_least=True),
        Limit(f"{first}: still strip after", row["strip_after"], row["strip_before"] or 0, at_least=False),
        Limit("whole run, wall x cores / CPU of its parts", whole["wall_ratio"], OVERHEAD, at_least=False),
        Limit("whole run, CPU / CPU of its parts", whole["cpu_ratio"], OVERHEAD, at_least=False),
        Limit(f"memory, {list(measured['memory'])[1]} frames / 100", long / short, MEMORY_GROWTH, at_least=False),
    ]


if __name__ == "__main__":
    sys.exit(run_command(main))
