"""How cost grows: with pixels, frames of a batch, threads and sessions at once; and video against a plain loop.

usage: scaling.py [--clip FILE] [--rounds 21] [--plot FILE] [--check] [-o RESULT.json]
Everything of one kind runs in turn. Sessions at once are threads of one process, each with a session of its own, and
their memory is that of a process with one, two and four. A 4K frame is restored in a fresh process. With a clip
`uare-rt restore` runs next to a script that decodes, runs the graph and encodes in one loop, with the same weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from memory import made_picture
from processes import console_script, run_measured
from results import Limit, Result, Table, add_options, bundle_facts, finish, keep_partial, run_command, sha256_of

import uare_rt
from uare_rt import backends
from uare_rt.bench.memory import own_peak
from uare_rt.bench.pairs import interleaved, ratio
from uare_rt.bench.plots import check_target, plot_latency
from uare_rt.bench.subjects import Rig, frames_kind, subjects
from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.errors import InputError, UareError
from uare_rt.machine import available_cores

__all__ = ["main", "tables"]

SIDES = (128, 256, 384, 512, 768, 1024)
BATCHES = (1, 2, 4)
SESSIONS = (1, 2, 4)
MOST_4K = 0.7
"""Peak of restoring a 3840x2160 frame, GB."""
LEAST_THREADS, LEAST_VIDEO, LEAST_STATIC = 1.7, 1.5, 2.0
MOST_SLOPE = 1.15
"""Milliseconds per pixel of the largest frame over those of 512x512."""
_SIDE = 512
_SHARED = 1.5  # of one copy of weights, that four sessions may add to the memory of one


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clip", type=Path, action="append", default=[], help="video to restore; several are possible")
    parser.add_argument("--static", action="append", default=[], metavar="NAME", help="clip from a camera at rest")
    parser.add_argument("--rounds", type=int, default=21, help="of the graphs; a seventh of them of the videos")
    parser.add_argument("--largest", type=int, default=SIDES[-1], help="side of the largest frame, px")
    parser.add_argument("--plot", type=Path, help="picture of time against pixels (.svg, .png, .pdf)")
    parser.add_argument("--sessions-worker", help=argparse.SUPPRESS)
    add_options(parser)
    chosen = parser.parse_args(arguments)
    if chosen.sessions_worker:
        return _sessions_worker(json.loads(chosen.sessions_worker))
    missing = [clip for clip in chosen.clip if not clip.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: no such clip; check the path")
    if chosen.plot is not None:
        check_target(chosen.plot)
    facts = bundle_facts(chosen.bundle)
    backend = backends.choose(chosen.backend).name
    path = shipped_bundle() if chosen.bundle is None else chosen.bundle
    measured: dict[str, Any] = _graphs(path, backend, chosen)
    keep_partial("scaling", measured, chosen)
    measured["sessions"] = [_sessions(path, backend, count) for count in SESSIONS]
    measured["frame_4k"] = _frame_4k(chosen)
    measured["video"] = []
    for clip in chosen.clip:
        keep_partial("scaling", measured, chosen)
        measured["video"].append(_video(clip, chosen, still=clip.name in chosen.static))
    if chosen.plot is not None:
        plot_latency(measured["pixels"], chosen.plot)
    result = Result(
        benchmark="scaling",
        data={"clips": len(chosen.clip), "clips_sha256": sha256_of(chosen.clip)},
        bundle=facts,
        settings={"backend": backend, "rounds": chosen.rounds},
        measured=measured,
        limits=_limits(measured, path),
    )
    return finish(result, tables(measured), chosen)


def _graphs(path: Path, backend: str, chosen: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    bundle, cores = {"model": Bundle.open(path)}, available_cores()
    counts = sorted({1, 2, cores} & set(range(1, cores + 1)))
    sides = [(side, side) for side in SIDES if side <= chosen.largest]
    found: dict[str, list[dict[str, Any]]] = {}
    plans = {
        "pixels": (sides, (1,), (cores,)),
        "batch": ([(256, 256)], BATCHES, (cores,)),
        "threads": ([(_SIDE, _SIDE)], (1,), counts),
    }
    for name, (sizes, batches, threads) in plans.items():
        rig = Rig(bundle)
        kinds = [frames_kind(backend)]
        them = subjects(bundle, kinds=kinds, names=[backend], threads=threads, sizes=sizes, batches=batches, scale=1)
        samples = interleaved({one.name: rig.call(one) for one in them}, rounds=chosen.rounds)
        rig.close()
        first = samples[them[0].name]
        found[name] = [
            {
                "bundle": one.bundle, "kind": one.kind, "backend": one.backend, "threads": one.threads,
                "width": one.width, "height": one.height, "batch": one.batch,
                "median_ms": samples[one.name].median * 1e3,
                "to_first": ratio(samples[one.name].wall, first.wall),
                "ns_per_pixel": samples[one.name].median * 1e9 / one.pixels,
            }
            for one in them
        ]  # fmt: skip
    return found


def _sessions(path: Path, backend: str, count: int) -> dict[str, Any]:
    job = json.dumps({"bundle": str(path), "backend": backend, "sessions": count})
    command = [sys.executable, __file__, "--sessions-worker", job]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UareError(f"{count} sessions at once failed: {done.stderr.strip().splitlines()[-1:]}")
    return dict(json.loads(done.stdout))


def _sessions_worker(job: Mapping[str, Any]) -> int:
    """So many sessions at once, each restoring small frames."""
    frame = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    threads = max(1, available_cores() // job["sessions"])
    sessions = [uare_rt.load(job["bundle"], backend=job["backend"], threads=threads) for _ in range(job["sessions"])]

    def work(session: Any) -> int:
        context = session.null_context()
        for _ in range(8):
            session.restore(frame, context=context)
        return 8

    for session in sessions:  # one after another: what they hold, without what runs at once need
        session.restore(frame)
    loaded = own_peak() / 1e6
    with ThreadPoolExecutor(len(sessions)) as pool:
        began = time.perf_counter()
        frames = sum(pool.map(work, sessions))
        seconds = time.perf_counter() - began
    told = {
        "sessions": len(sessions),
        "frames_per_s": frames / seconds,
        "loaded_mb": loaded,
        "peak_mb": own_peak() / 1e6,
    }
    sys.stdout.write(json.dumps(told))
    return 0


def _frame_4k(chosen: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "frame.png")
        made_picture(3840, 2160).save(source, compress_level=1)
        options = [] if chosen.bundle is None else ["--bundle", str(chosen.bundle)]
        command = [*console_script("uare-rt"), "restore", str(source), "-o", str(Path(folder, "out.png")), *options]
        run = run_measured([*command, "--backend", chosen.backend])
    if run.exit_code:
        raise UareError(f"restoring a 4K frame failed: {run.stderr.strip()}")
    return {"peak_gb": run.peak_rss / 1e9, "seconds": run.wall, "cpu_seconds": run.cpu}


def _video(clip: Path, chosen: argparse.Namespace, *, still: bool) -> dict[str, Any]:
    """`uare-rt restore`, with and without reuse and with the fastest backend, in turn with the plain loop."""
    options = [] if chosen.bundle is None else ["--bundle", str(chosen.bundle)]
    plain = [sys.executable, str(Path(__file__).with_name("plain_loop.py"))]
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder, "out.mp4"))
        restore = [*console_script("uare-rt"), "restore", str(clip), "-o", out, "--overwrite", *options]
        commands = {
            "plain": [*plain, str(clip), out, *options],
            "uare-rt": [*restore, "--backend", chosen.backend],
            "no reuse": [*restore, "--backend", chosen.backend, "--no-reuse"],
            "fastest": [*restore, "--backend", "fastest"],
        }
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(max(1, chosen.rounds // 7)):
            for name, command in commands.items():
                run = run_measured(command)
                if run.exit_code:
                    raise UareError(f"{name} of {clip.name} failed: {run.stderr.strip()[-300:]}")
                runs[name].append((run.wall, run.cpu))
    wall = {name: [pair[0] for pair in pairs] for name, pairs in runs.items()}
    return {
        "clip": clip.name,
        "still": still,
        "seconds": {name: median(times) for name, times in wall.items()},
        "cpu_seconds": {name: median(pair[1] for pair in pairs) for name, pairs in runs.items()},
        "times_faster": ratio(wall["plain"], wall["uare-rt"]),
        "times_faster_no_reuse": ratio(wall["plain"], wall["no reuse"]),
        "times_faster_fastest": ratio(wall["plain"], wall["fastest"]),
    }


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    headers = ("frame", "frames", "threads", "ms", "to the first", "ns a pixel")
    found = [
        Table(
            f"Cost against {name}",
            headers,
            [
                (
                    f"{row['width']}x{row['height']}", str(row["batch"]), str(row["threads"]),
                    f"{row['median_ms']:.1f}", f"{row['to_first']:.3f}", f"{row['ns_per_pixel']:.0f}",
                )
                for row in measured[name]
            ],
        )
        for name in ("pixels", "batch", "threads")
    ]  # fmt: skip
    rows = [
        (str(r["sessions"]), f"{r['frames_per_s']:.1f}", f"{r['loaded_mb']:.0f}", f"{r['peak_mb']:.0f}")
        for r in measured["sessions"]
    ]
    headers = ("sessions", "frames/s", "MB loaded", "peak MB at once")
    found.append(Table("Sessions at once, 128x128", headers, rows))
    frame = measured["frame_4k"]
    row = ("3840x2160", f"{frame['peak_gb']:.2f}", f"{frame['seconds']:.1f}", f"{frame['cpu_seconds']:.1f}")
    found.append(Table("One 4K frame, PNG to PNG", ("frame", "peak GB", "wall s", "CPU s"), [row]))
    if measured["video"]:
        videos = [
            (
                r["clip"], *(f"{r['seconds'][name]:.1f}" for name in ("plain", "uare-rt", "no reuse", "fastest")),
                f"{r['times_faster']:.2f}", f"{r['times_faster_no_reuse']:.2f}", f"{r['times_faster_fastest']:.2f}",
            )
            for r in measured["video"]
        ]  # fmt: skip
        titles = (
            "clip", "plain loop s", "uare-rt s", "without reuse s", "fastest here s", "times faster", "without reuse",
            "fastest here",
        )  # fmt: skip
        found.append(Table("Video, processes as a whole", titles, videos))
    return found


def _limits(measured: Mapping[str, Any], path: Path) -> list[Limit]:
    per_pixel = {row["width"]: row["ns_per_pixel"] for row in measured["pixels"]}
    slope = None if _SIDE not in per_pixel else per_pixel[max(per_pixel)] / per_pixel[_SIDE]
    threads = {row["threads"]: row["to_first"] for row in measured["threads"]}
    sessions = {row["sessions"]: row["loaded_mb"] for row in measured["sessions"]}
    weights = sum(file.stat().st_size for file in path.glob("*.bin")) / 1e6
    # Fp16 in the file, fp32 in memory.
    copies = (sessions[4] - sessions[1]) / (2 * weights) if weights else None
    limits = [
        Limit("cost of a pixel, largest frame to 512x512", slope, MOST_SLOPE, at_least=False),
        Limit("two threads, times one", 1 / threads[2] if 2 in threads else None, LEAST_THREADS, at_least=True),
        Limit("copies of weights that three more sessions add", copies, _SHARED, at_least=False),
        Limit("peak memory, 4K frame", measured["frame_4k"]["peak_gb"], MOST_4K, at_least=False, unit="GB"),
    ]
    for row in measured["video"]:
        bound = LEAST_STATIC if row["still"] else LEAST_VIDEO
        what = f"{row['clip']}, times the plain loop"
        limits.append(Limit(what, row["times_faster"], bound, at_least=True))
        limits.append(Limit(f"{what}, fastest here", row["times_faster_fastest"], bound, at_least=True))
    return limits


if __name__ == "__main__":
    sys.exit(run_command(main))
