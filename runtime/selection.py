"""Which backend is fastest on this machine, and with how many threads: measured once and remembered.

What is remembered is for one processor, one set of cores, the versions of the backends and the shape of the model, in
``selection.json`` in the user's cache directory. Anything else measures again.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt import backends
from uare_rt.backends.engine_cache import cache_directory
from uare_rt.bench.pairs import interleaved
from uare_rt.errors import BackendError
from uare_rt.executables import Executables
from uare_rt.machine import available_cores, cpu_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from uare_rt.bundle import Bundle

__all__ = ["Choice", "candidates", "fastest", "remembered"]

_BACKENDS = ("onnxruntime", "openvino")
_SIDE = 384  # px; large enough for the parts of a frame's cost to have their usual shares
_ROUNDS = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """A way to run restore graphs on the processor.

    Attributes:
        backend: its name.
        threads: for one run.
        milliseconds: median for a frame of 384x384 px with a constant context, when it was measured.
    """

    backend: str
    threads: int
    milliseconds: float


def candidates() -> list[tuple[str, int]]:
    """Backends of the processor that run here, each with all cores and, where there are many, with half of them."""
    cores = available_cores()
    counts = [cores] if cores < 4 else [cores, cores // 2]
    return [(name, count) for name in _BACKENDS if backends.get(name).probe().available for count in counts]


def remembered(bundle: Bundle) -> Choice | None:
    """What was measured for such a bundle on this machine; None where nothing was."""
    entry = _entries().get(_key(bundle))
    try:
        return Choice(**entry) if isinstance(entry, dict) else None
    except TypeError:  # written by another version
        return None


def fastest(bundle: Bundle) -> Choice:
    """The fastest way to restore on this machine's processor, measured now if it is not known yet.

    Measuring takes a second per candidate on a small machine; with one candidate there is nothing to measure.

    Raises:
        BackendError: no backend of the processor runs here.
    """
    known = remembered(bundle)
    if known is not None:
        return known
    possible = candidates()
    if not possible:
        raise BackendError("no backend of the processor runs here; see: uare-rt doctor")
    choice = Choice(*possible[0], milliseconds=0.0)
    if len(possible) > 1:
        _log.warning("measuring once which of %s is fastest here", ", ".join(f"{n} ({c})" for n, c in possible))
        choice = _measured(bundle, possible)
    _remember(bundle, choice)
    return choice


def _measured(bundle: Bundle, possible: list[tuple[str, int]]) -> Choice:
    loaded = {place: Executables(bundle, backends.get(place[0]), place[1]) for place in possible}
    frame = np.random.default_rng(0).random((1, 3, _SIDE, _SIDE), dtype=np.float32)
    constants = bundle.null_context().inputs()

    def call(graphs: Executables) -> Callable[[], None]:
        def run() -> None:
            graphs.run("restore_x1", {"frame": frame}, constants)

        return run

    try:
        names = {f"{name} {count}": (name, count) for name, count in possible}
        samples = interleaved({text: call(loaded[place]) for text, place in names.items()}, rounds=_ROUNDS)
    finally:
        for graphs in loaded.values():
            graphs.close()
    best = min(names, key=lambda text: samples[text].median)
    return Choice(*names[best], milliseconds=round(samples[best].median * 1e3, 2))


def _path() -> Path:
    return cache_directory().with_name("selection.json")


def _key(bundle: Bundle) -> str:
    versions = [f"{package} {_version(package)}" for package in _BACKENDS]
    spec = bundle.nano.graphs["restore_x1"]
    model = f"{bundle.nano.preset} {spec.precision} {spec.flops_per_pixel}"
    return "; ".join([cpu_model(), f"{available_cores()} cores", *versions, model])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _entries() -> dict[str, Any]:
    try:
        entries = json.loads(_path().read_bytes())
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _remember(bundle: Bundle, choice: Choice) -> None:
    path = _path()
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(_entries() | {_key(bundle): asdict(choice)}, indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        _log.debug("%s cannot be written: %s", path, error.strerror)
