"""How long the command line takes from a standing start.

usage: startup.py PHOTO [--bundle NAME.uare] [--runs 5] [--check] [-o RESULT.json]
`uare-rt --help`, `assess PHOTO` and `restore PHOTO`, each in fresh processes. One run before those that count brings
the files into the system's cache. Processor time tells on a busy machine what wall time cannot. With
PYTHONDONTWRITEBYTECODE set, an editable install is compiled anew in every process, which an installed wheel is not.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from processes import console_script, run_measured
from results import Limit, Result, Table, add_options, bundle_facts, finish, run_command, sha256_of

from uare_rt.errors import InputError, UareError

__all__ = ["LIMITS", "main", "tables"]

LIMITS: Mapping[str, float] = {"help": 0.25, "assess": 1.0}
"""Longest median wall time by command, in seconds."""

_SLOWEST = 10
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|\s*(\S+)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photo", type=Path, help="photograph to assess and restore")
    parser.add_argument("--runs", type=int, default=5, help="processes that count, per command")
    add_options(parser, backend=False)
    chosen = parser.parse_args(arguments)
    if chosen.runs < 1:
        parser.error(f"--runs {chosen.runs}: give at least 1")
    if not chosen.photo.is_file():
        raise InputError(f"{chosen.photo}: no such photo; check the path")
    options = [] if chosen.bundle is None else ["--bundle", str(chosen.bundle)]
    facts = bundle_facts(chosen.bundle)
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder, "restored.png"))
        commands = {
            "help": ["--help"],
            "assess": ["assess", str(chosen.photo), *options],
            "restore": ["restore", str(chosen.photo), "-o", target, "--overwrite", *options],
        }
        times = {name: _times(command, chosen.runs) for name, command in commands.items()}
        imports = _slowest_imports(commands["assess"])
    measured = {"commands": times, "assess_imports": imports}
    result = Result(
        benchmark="startup",
        data={"photo_sha256": sha256_of([chosen.photo])},
        bundle=facts,
        settings={"runs": chosen.runs, "bytecode_cached": not sys.dont_write_bytecode},
        measured=measured,
        limits=[
            Limit(f"uare-rt {_shown(name)}", times[name]["wall_median"], most, at_least=False, unit="s")
            for name, most in LIMITS.items()
        ],
    )
    return finish(result, tables(measured), chosen)


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    rows = [
        (f"uare-rt {_shown(name)}", *(f"{row[key]:.3f}" for key in ("wall_median", "wall_min", "cpu_median")))
        for name, row in measured["commands"].items()
    ]
    imports = [(row["module"], f"{row['self_ms']:.1f}") for row in measured["assess_imports"]]
    return [
        Table("Fresh processes, seconds", ("command", "wall, median", "wall, least", "CPU, median"), rows),
        Table("Slowest imports of assess, without what they import themselves", ("module", "ms"), imports),
    ]


def _shown(name: str) -> str:
    return "--help" if name == "help" else name


def _times(arguments: Sequence[str], runs: int) -> dict[str, float]:
    command = [*console_script("uare-rt"), *arguments]
    done = [run_measured(command) for _ in range(runs + 1)][1:]
    for run in done:
        if run.exit_code:
            raise UareError(f"uare-rt {arguments[0]} failed with exit code {run.exit_code}: {run.stderr.strip()}")
    walls = [run.wall for run in done]
    return {
        "wall_median": round(median(walls), 4),
        "wall_min": round(min(walls), 4),
        "cpu_median": round(median(run.cpu for run in done), 4),
    }


def _slowest_imports(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The modules that take longest to import in a command, by the time spent in themselves."""
    command = [sys.executable, "-X", "importtime", "-m", "uare_rt.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [
        {"module": name, "self_ms": int(own) / 1000, "total_ms": int(total) / 1000}
        for own, total, name in _IMPORT.findall(done.stderr)
    ]
    return sorted(found, key=lambda row: -row["self_ms"])[:_SLOWEST]


if __name__ == "__main__":
    sys.exit(run_command(main))
