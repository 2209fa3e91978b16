"""A stream whose source is faster than the engine: how old frames get, what is dropped, whether memory grows.

usage: live.py [--size 320x192] [--rate 60] [--frames 10000] [--bundle NAME.uare] [--check] [-o RESULT.json]
A synthetic camera into a sink that counts, the newest frame wins. Ages are from arrival to the sink, in units of the
engine's time for one frame, so that they mean something on a busy machine too.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results import Limit, Result, Table, add_options, bundle_facts, finish, run_command

import uare_rt
from uare_rt.errors import InputError
from uare_rt.live import LiveStatistics, LiveStream, SyntheticCamera
from uare_rt.session import Session

__all__ = ["AGE", "GROWTH", "main", "tables"]

AGE = 3.0
"""Most that a frame's age may be, in frames of engine time."""
GROWTH = 16.0
"""Most that the process may grow after the first tenth of the frames, in MiB."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="320x192", help="of the camera")
    parser.add_argument("--rate", type=float, default=60.0, help="of the camera, frames per second")
    parser.add_argument("--frames", type=int, default=10_000, help="that it films")
    add_options(parser)
    chosen = parser.parse_args(arguments)
    sides = re.fullmatch(r"(\d+)x(\d+)", chosen.size)
    if sides is None:
        parser.error(f"--size {chosen.size}: write it as 320x192")
    camera = SyntheticCamera(int(sides[1]), int(sides[2]), rate=chosen.rate, frames=chosen.frames)
    facts = bundle_facts(chosen.bundle)
    with uare_rt.load(chosen.bundle, backend=chosen.backend) as session:
        if not isinstance(session, Session):
            raise InputError(f"{chosen.bundle}: live video is for uare-nano bundles")
        measured = _measure(camera, session)
    ages = measured["age"]
    result = Result(
        benchmark="live",
        data={"camera": f"synthetic {chosen.size} at {chosen.rate:g} frames/s, seed 0", "frames": chosen.frames},
        bundle=facts,
        settings={"backend": session.backend, "policy": "newest"},
        measured=measured,
        limits=[
            *(Limit(f"age, {name}", ages[name], AGE, at_least=False, unit="frames of engine time") for name in ages),
            Limit("frames unaccounted for", float(measured["unaccounted"]), 0.0, at_least=False, unit="frames"),
            Limit("growth of memory", measured["growth_mib"], GROWTH, at_least=False, unit="MiB"),
        ],
    )
    return finish(result, tables(measured), chosen)


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    counts = measured["counts"]
    rows = [
        (name, *(f"{counts[name][key]:.0f}" for key in ("p50", "p90", "p99", "longest")))
        for name in ("engine", "latency")
    ]
    numbers = [(name, str(counts[name])) for name in ("captured", "dropped", "delivered", "copies")]
    return [
        Table("Milliseconds", ("what", "p50", "p90", "p99", "longest"), rows),
        Table("Counted", ("what", "number"), numbers),
    ]


def _measure(camera: SyntheticCamera, session: Session) -> dict[str, Any]:
    sizes: list[int] = []
    counts = LiveStream(camera, session).run(lambda _: sizes.append(_resident()))
    warm = sizes[len(sizes) // 10 :]
    return {
        "counts": counts.to_dict(),
        "age": _ages(counts),
        "unaccounted": counts.captured - counts.dropped - counts.delivered,
        "growth_mib": round((max(warm) - warm[0]) / 2**20, 2),
    }


def _ages(counts: LiveStatistics) -> dict[str, float]:
    """Age of the median frame and of the oldest in a hundred, each by the engine's own median or tail."""
    return {name: round(getattr(counts.latency, name) / getattr(counts.engine, name), 3) for name in ("p50", "p99")}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(run_command(main))
