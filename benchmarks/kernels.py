"""What the Triton kernels must cost at the least on each device, and on a GPU what they do cost, beside torch.

usage: kernels.py [--tune] [--table docs/kernels.md] [-o RESULT.json]
Floors are computed from shapes and the device table (`model/presets/devices.yaml`). With a CUDA device every case is
timed through Triton, torch and torch.compile (median of many runs, the GPU's cache flushed before each) and held to
the floor of the rates that a copy and a matrix product reach there; without one the times are left out. `--tune` times
every tile of the tuning space on the GPU at hand and prints the fastest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from kernel_cases import Case, all_cases
from results import Limit, Result, Table, finish, run_command

from uare_rt.errors import BackendUnavailableError, OutputError
from uare_rt.kernels import dispatch
from uare_rt.kernels.jit import triton
from uare_rt.kernels.tiles import Tile, space
from uare_rt.model.plan import devices

__all__ = ["main"]

_RUNS, _WARM = 50, 10
_SIDE = 8192
_FLUSHED = 256 * 1024 * 1024  # bytes, more than any cache of these GPUs
_BEGIN, _END = "<!-- floors:begin -->", "<!-- floors:end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tune", action="store_true", help="time every tile of the tuning space on this GPU")
    parser.add_argument("--table", type=Path, help="document whose table of floors is written anew")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a limit is missed")
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write")
    chosen = parser.parse_args(arguments)
    cases, gpu = all_cases(), torch.cuda.is_available()
    if chosen.tune:
        return _tune(cases)
    floors = _floors(cases)
    if chosen.table is not None:
        _write(chosen.table, floors)
    measured = {case.name: _measure(case) for case in cases} if gpu else {}
    limits = [
        Limit(f"{name}: time of torch over ours", found["torch"] / found["triton"], 1.0, at_least=True)
        for name, found in measured.items()
    ]
    tables = [floors] + ([_times(measured)] if gpu else [])
    facts = {"device": torch.cuda.get_device_name() if gpu else None, "torch": torch.__version__}
    costs = {case.name: _row(case) for case in cases}
    settings = {"runs": _RUNS, "tune": False}
    found = {"costs": costs, "seconds": measured, "triton": triton.__version__}
    return finish(
        Result("kernels", {"shapes": "uare-7b at 1024 px, uare-nano at 1080p"}, facts, settings, found, limits),
        tables,
        chosen,
    )


def _row(case: Case) -> dict[str, float]:
    cost = case.cost
    row = {"bytes": cost.bytes, "operations": cost.operations + cost.eight_bit, "intensity": cost.intensity}
    return row | {f"floor_{name}": cost.floor(d.bandwidth, d.fp16, d.eight_bit) for name, d in devices().items()}


def _floors(cases: Sequence[Case]) -> Table:
    names = list(devices())
    headers = ("kernel and shape", "MB", "GFLOP", "FLOP/byte", *(f"{name}, ms" for name in names))
    rows = []
    for case in cases:
        row = _row(case)
        floors = (f"{1000 * row[f'floor_{name}']:.3g}" for name in names)
        rows.append(
            (
                case.name,
                f"{row['bytes'] / 1e6:.3g}",
                f"{row['operations'] / 1e9:.3g}",
                f"{row['intensity']:.3g}",
                *floors,
            )
        )
    return Table("Least times on each device, computed and not measured", headers, rows)


def _write(document: Path, table: Table) -> None:
    try:
        text = document.read_text()
        if _BEGIN not in text or _END not in text:
            raise OutputError(f"{document} has no lines {_BEGIN} and {_END} to write the table between")
        before, rest = text.split(_BEGIN, 1)
        document.write_text(f"{before}{_BEGIN}\n{table.markdown()}\n{_END}{rest.split(_END, 1)[1]}")
    except OSError as error:
        raise OutputError(f"{document} cannot be written: {error.strerror or error}") from error


def _seconds(call: Callable[[], Any]) -> float:
    """Median time of a call on the GPU."""
    flushed = torch.empty(_FLUSHED, dtype=torch.int8, device="cuda")
    times = []
    for run in range(_WARM + _RUNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flushed.zero_()
        begin.record()
        call()
        end.record()
        end.synchronize()
        if run >= _WARM:
            times.append(begin.elapsed_time(end) / 1000)
    return statistics.median(times)


def _measure(case: Case) -> dict[str, float]:
    made = case.make(torch.device("cuda"))
    target = _target()
    times = {"triton": _seconds(lambda: made.kernel(target, None)), "torch": _seconds(made.torch)}
    try:
        times["torch_compile"] = _seconds(torch.compile(made.torch, dynamic=False))
    except Exception as error:  # its compiler raises what it likes; the other times stand
        sys.stderr.write(f"{case.name}: torch.compile: {type(error).__name__}: {str(error)[:200]}\n")
    return times | {"floor": case.cost.floor(*_rates())}


@cache
def _rates() -> tuple[float, float, float]:
    """Of the GPU at hand: GB/s of a copy, 1e12 operations per second of a product in fp16, and twice that for int8."""
    memory = torch.empty(_FLUSHED, dtype=torch.int8, device="cuda")
    matrix = torch.randn(_SIDE, _SIDE, device="cuda").half()
    copy, product = _seconds(memory.clone), _seconds(lambda: matrix @ matrix)
    fp16 = 2 * _SIDE**3 / product / 1e12
    return 2 * _FLUSHED / copy / 1e9, fp16, 2 * fp16


def _target() -> str:
    choice = dispatch.choose(torch.device("cuda"))
    if choice.path != "triton":
        raise BackendUnavailableError(f"kernels cannot be timed here: {choice.reason}")
    return choice.target


def _times(measured: dict[str, dict[str, float]]) -> Table:
    headers = ("kernel and shape", "Triton, ms", "torch, ms", "compiled, ms", "Triton over floor")
    rows = [
        (
            name,
            *(f"{1000 * found[way]:.3g}" if way in found else "-" for way in ("triton", "torch", "torch_compile")),
            f"{found['triton'] / found['floor']:.3g}",
        )
        for name, found in measured.items()
    ]
    return Table(f"Times on {torch.cuda.get_device_name()}", headers, rows)


def _tune(cases: Sequence[Case]) -> int:
    if not torch.cuda.is_available():
        raise BackendUnavailableError("--tune times kernels, and there is no CUDA device here")
    target = _target()
    for key in dict.fromkeys(case.key for case in cases):
        total: dict[str, tuple[float, Tile]] = {}
        for tile in space(target, key):
            try:
                spent = sum(
                    _seconds(lambda m=made, t=tile: m.kernel(target, t))
                    for made in (case.make(torch.device("cuda")) for case in cases if case.key == key)
                )
            except Exception as error:  # a tile that needs more than the GPU has fails in many ways
                sys.stderr.write(f"{key} {tile}: {type(error).__name__}\n")
                continue
            total[str(tile)] = (spent, tile)
        spent, best = min(total.values(), key=lambda pair: pair[0])
        values = {**best.blocks, "warps": best.warps, "stages": best.stages}
        chosen = ", ".join(f"{name}: {value}" for name, value in values.items())
        sys.stdout.write(f"{key}:\n  chosen: {{{chosen}}}  # {1000 * spent:.3g} ms\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
