"""Results of benchmarks: where they come from, the limits they are held to, and how they are shown and kept."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from uare_rt.bench.document import installed_versions
from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.errors import InputError, UareError
from uare_rt.images import is_image
from uare_rt.machine import available_cores, cpu_model, total_memory

__all__ = [
    "Limit",
    "Result",
    "Table",
    "add_options",
    "bundle_facts",
    "finish",
    "keep_partial",
    "limits_table",
    "photos_in",
    "run_command",
    "sha256_of",
]

_PACKAGES = ("numpy", "pillow", "onnxruntime", "openvino", "opencv-python-headless", "scikit-image", "av", "typer")


class Table(NamedTuple):
    """A table for people; the first column is text, the others are numbers."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """As lines of a terminal."""
        lines = [self.headers, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.headers))]
        shown = [
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.title, *shown])

    def markdown(self) -> str:
        """As a Markdown table under its title."""
        rule = ["---", *("---:" for _ in self.headers[1:])]
        lines = [f"| {' | '.join(line)} |" for line in (self.headers, rule, *self.rows)]
        return "\n".join([f"{self.title}:", "", *lines])


@dataclass(frozen=True)
class Limit:
    """A value and what was promised of it.

    Attributes:
        name: what is limited.
        value: as measured; None where it was not measured, which never meets the limit.
        bound: the promise.
        at_least: the value may not be below the bound; otherwise it may not be above.
        unit: of both, or an empty text.
    """

    name: str
    value: float | None
    bound: float
    at_least: bool
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the promise is kept; false for NaN."""
        if self.value is None:
            return False
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def row(self) -> tuple[str, str, str, str]:
        """Name, value, bound and verdict, as texts."""
        unit = f" {self.unit}" if self.unit else ""
        value = "not measured" if self.value is None else f"{self.value:.3g}{unit}"
        return self.name, value, f"{'>=' if self.at_least else '<='} {self.bound:g}{unit}", "yes" if self.met else "NO"


@dataclass(frozen=True)
class Result:
    """What a benchmark found.

    Attributes:
        benchmark: name of the script.
        data: what it worked on, with a SHA-256.
        bundle: from ``bundle_facts``.
        settings: options that change the numbers.
        measured: the numbers, ready for JSON.
        limits: promises and whether they are kept.
    """

    benchmark: str
    data: Mapping[str, Any]
    bundle: Mapping[str, Any]
    settings: Mapping[str, Any]
    measured: Mapping[str, Any]
    limits: Sequence[Limit]


def add_options(parser: ArgumentParser, *, backend: bool = True) -> None:
    """Add the options that every benchmark has; ``backend`` where it can be chosen."""
    parser.add_argument("--bundle", type=Path, help="bundle to measure; the shipped uare-nano if not given")
    if backend:
        parser.add_argument("--backend", default="auto", help="inference backend; `uare-rt doctor` lists them")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a limit is missed")
    parser.add_argument(
        "-o", "--output", type=Path, help="JSON file to write, for example benchmarks/results/NAME.json"
    )


def run_command(main: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None) -> int:
    """Run the main function of a benchmark; errors become a line and an exit code as in `uare-rt`."""
    try:
        return main(arguments)
    except UareError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def photos_in(folder: Path) -> list[Path]:
    """Images of a folder by name.

    Raises:
        InputError: it is missing or holds none.
    """
    try:
        found = sorted(path for path in folder.iterdir() if is_image(path))
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror}); name a directory with photographs") from error
    if not found:
        raise InputError(f"{folder} holds no image that can be read; name a directory with photographs")
    return found


def sha256_of(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def bundle_facts(path: Path | None) -> dict[str, Any]:
    """What identifies a bundle in a result; None means the shipped one.

    Raises:
        BundleError: it is missing or damaged.
    """
    manifest = Bundle.open(shipped_bundle() if path is None else path).manifest
    return {
        "name": manifest.name,
        "created_by": manifest.created_by,
        "weights_sha256": manifest.source.weights_sha256,
        "parameters": manifest.source.parameters,
        "steps": manifest.source.steps,
    }


def finish(result: Result, tables: Sequence[Table], chosen: Namespace) -> int:
    """Show a result, write it where asked for, and hold it to its limits.

    Returns:
        The exit code: 1 if ``--check`` was given and a limit is missed.
    """
    shown = [*tables, limits_table(result.limits)] if result.limits else list(tables)
    sys.stdout.write("\n\n".join(table.text() for table in shown) + "\n")
    if chosen.output is not None:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(json.dumps(_document(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        _partial(chosen.output).unlink(missing_ok=True)
    if not chosen.check:
        return 0
    missed = [limit for limit in result.limits if not limit.met]
    for limit in missed:
        name, value, bound, _ = limit.row()
        sys.stderr.write(f"error: {result.benchmark}: {name} is {value}, but should be {bound}\n")
    return 1 if missed else 0


def keep_partial(benchmark: str, measured: Mapping[str, Any], chosen: Namespace) -> None:
    """Write what was measured so far to ``NAME.json.partial`` beside the output, until `finish` writes the whole.

    Args:
        benchmark: name of the script.
        measured: the numbers so far.
        chosen: parsed arguments; without an output nothing is written.
    """
    if chosen.output is not None:
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        content = {**_origin(benchmark), "measured": measured}
        _partial(chosen.output).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _partial(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


def limits_table(limits: Iterable[Limit]) -> Table:
    """Limits as a table."""
    return Table("Limits", ("what", "measured", "limit", "met"), [limit.row() for limit in limits])


def _document(result: Result) -> dict[str, Any]:
    return {
        **_origin(result.benchmark),
        "data": result.data,
        "bundle": result.bundle,
        "settings": result.settings,
        "measured": result.measured,
        "limits": [asdict(limit) for limit in result.limits],
    }


def _origin(benchmark: str) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "command": shlex.join(["python", f"benchmarks/{benchmark}.py", *map(_portable, sys.argv[1:])]),
        "machine": _machine(),
        "versions": installed_versions(_PACKAGES),
    }


def _portable(argument: str) -> str:
    """An argument without the directories of this machine: results are read on others."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    path = Path(value)
    return f"{option}{equals}{path.name if path.is_absolute() or '..' in path.parts else value}"


def _machine() -> dict[str, Any]:
    memory = total_memory()
    return {
        "cpu": cpu_model(),
        "cores": available_cores(),
        "memory_gib": None if memory is None else round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        # Over five minutes, this run included: much above what it uses, others shared the cores.
        "load_average": round(os.getloadavg()[1], 2),
    }
