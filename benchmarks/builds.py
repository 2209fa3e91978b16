"""How long `uare-rt build` takes, and what its own proof says of every precision.

usage: builds.py FOLDER [--precision fp16 --precision int8] [--bundle FLOAT32.uare] [--check] [-o RESULT.json]
Each precision is built in a fresh process for TensorRT-RTX, default targets, no calibration data given, as
FOLDER/fp16.uare and so on; bundles that are there already are replaced. precision.py measures them on photographs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from processes import console_script, run_measured
from results import Limit, Result, Table, add_options, bundle_facts, finish, run_command

from uare_rt.bundle import Bundle
from uare_rt.errors import UareError

__all__ = ["main", "tables"]

LONGEST = 120.0  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write the bundles")
    parser.add_argument("--precision", action="append", help="what to build; fp16 and int8 if not given")
    add_options(parser, backend=False)
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    measured = {p: _build(p, chosen.folder / f"{p}.uare", chosen.bundle) for p in chosen.precision or ("fp16", "int8")}
    result = Result(
        benchmark="builds",
        data={"calibration_sha256": next(iter(measured.values()))["calibration_sha256"]},
        bundle=bundle_facts(chosen.bundle),
        settings={},
        measured=measured,
        limits=[
            Limit(f"uare-rt build --precision {key}", row["wall"], LONGEST, at_least=False, unit="s")
            for key, row in measured.items()
        ],
    )
    return finish(result, tables(measured), chosen)


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    times = [
        (key, f"{row['wall']:.0f}", f"{row['cpu']:.0f}", f"{row['compiling']:.0f}", f"{row['peak_gb']:.2f}")
        for key, row in measured.items()
    ]
    proofs = {precision: graphs for row in measured.values() for precision, graphs in row["held_out"].items()}
    rows = [
        (f"{precision}, {name}", *(f"{graph[key]:.{digits}f}" for key, digits in _PROOF.items()))
        for precision, graphs in proofs.items()
        for name, graph in graphs.items()
    ]
    return [
        Table("Builds, seconds", ("precision", "wall", "CPU", "compiling", "peak GB"), times),
        Table("The build's own proof, synthetic pictures", ("graph", "PSNR dB", "loss dB", "to fp32 dB"), rows),
    ]


_PROOF = {"psnr_db": 2, "loss_db": 3, "to_fp32_db": 1}


def _build(precision: str, out: Path, bundle: Path | None) -> dict[str, Any]:
    model = [] if bundle is None else ["--model", str(bundle)]
    options = ["--backend", "tensorrt-rtx", "--precision", precision, "--overwrite", "-o", str(out)]
    run = run_measured([*console_script("uare-rt"), "build", *model, *options])
    if run.exit_code:
        raise UareError(f"uare-rt build --precision {precision} failed with {run.exit_code}: {run.stderr.strip()}")
    manifest = Bundle.open(out).nano
    engines = [spec.engine for spec in manifest.graphs.values()]
    return {
        "wall": round(run.wall, 1),
        "cpu": round(run.cpu, 1),
        "compiling": round(sum(getattr(engine, "seconds", 0.0) for engine in engines), 1),
        "peak_gb": round(run.peak_rss / 1e9, 3),
        "engines": len(engines),
        "calibration_sha256": manifest.calibration.sha256 if manifest.calibration else None,
        "held_out": {
            kind: {name: graph for name, graph in graphs.items() if isinstance(graph, dict)}
            for kind, graphs in manifest.quality.items()
            if kind != "fp32"
        },
    }


if __name__ == "__main__":
    sys.exit(run_command(main))
