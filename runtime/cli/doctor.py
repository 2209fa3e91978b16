"""`uare-rt doctor`: what this machine can run, found out by running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from uare_rt.cli.console import emit, emit_json, emit_table
from uare_rt.cli.failures import FAILED
from uare_rt.cli.options import BundleOption, JsonOption

if TYPE_CHECKING:
    from uare_rt.doctor import BackendReport, Report

__all__ = ["doctor"]

_GIB = 1 << 30


def doctor(as_json: JsonOption = False, bundle: BundleOption = None) -> None:
    """Show what this machine can run, and why not the rest.

    Every backend runs a real inference: lists of providers lie. The exit code is 1 if no backend works.

    With --json, one object to paste into an issue: version, python, system, processor, features, cores,
    memory_total and memory_available (bytes), packages, bundle, default_backend, backends (name, works, reason,
    version, devices, seconds, difference), kernels and warnings.
    """
    from uare_rt.doctor import diagnose

    report = diagnose(bundle)
    if as_json:
        emit_json(report.to_dict())
    else:
        _show(report)
    if not any(backend.works and backend.name != "null" for backend in report.backends):
        raise typer.Exit(FAILED)


def _show(report: Report) -> None:
    memory = ", ".join(
        f"{size / _GIB:.1f} GiB {what}"
        for size, what in ((report.memory_total, "in all"), (report.memory_available, "free"))
        if size is not None
    )
    facts = [
        ("uare-rt", f"{report.version} on Python {report.python}"),
        ("system", report.system),
        ("processor", f"{report.processor}, {report.cores} cores"),
        ("features", ", ".join(report.features) or "-"),
        ("memory", memory or "-"),
        ("packages", ", ".join(f"{name} {version}" for name, version in report.packages.items())),
        ("bundle", report.bundle),
        ("auto takes", report.default_backend or "no backend"),
        *(("kernels", way) for way in report.kernels),
    ]
    emit_table(("", ""), facts)
    emit("")
    emit_table(("backend", "works", "version", ">ms", "reason"), [_row(backend) for backend in report.backends])
    for warning in report.warnings:
        emit(f"warning: {warning}")


def _row(backend: BackendReport) -> tuple[str, ...]:
    milliseconds = "-" if backend.seconds is None else f"{1000 * backend.seconds:.0f}"
    return backend.name, "yes" if backend.works else "no", backend.version or "-", milliseconds, backend.reason
