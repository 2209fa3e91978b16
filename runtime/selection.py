"""How to run a bundle on this machine's processor: backend, threads, precision, frames side by side.

Measured once and remembered for one processor, one set of cores, the versions of the backends and the shape of the
model, in ``selection.json`` in the user's cache directory. Anything else measures again.
"""

from __future__ import annotations

import json
import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from uare_rt import backends
from uare_rt.backends.engine_cache import cache_directory
from uare_rt.bench.pairs import interleaved
from uare_rt.compiled import compiled_variant
from uare_rt.errors import BackendError
from uare_rt.executables import Executables
from uare_rt.frames import from_unit
from uare_rt.machine import available_cores, cpu_model
from uare_rt.restorer import Restorer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from uare_rt.backends.base import Backend
    from uare_rt.bundle import Bundle

__all__ = ["PROCESSOR_BACKENDS", "Choice", "Place", "candidates", "fastest", "lanes", "remembered"]

PROCESSOR_BACKENDS = ("onnxruntime", "openvino")
"""Backends of the processor, among which there is something to choose."""
_BF16 = "bf16"
_SIDE = 384  # px; large enough for the parts of a frame's cost to have their usual shares
_ROUNDS = 5
_PARTS = 6  # in a round
_PRICE = 1.03  # a lower precision costs some quality, so it has to be faster by more than noise
# dB to float32: what INT8 has where it is computed as it was proven; bfloat16 has some 55 dB.
_LIKENESS = {"int8": 40.0, _BF16: 50.0}
_GAIN = 0.97  # of the time of a frame on its own, that frames side by side must stay below
_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A way to run the graphs of a bundle.

    Attributes:
        backend: its name.
        threads: for one run.
        precision: of the graphs, where the bundle has several.
    """

    backend: str
    threads: int
    precision: str


@dataclass(frozen=True)
class Choice:
    """What was found to be fastest.

    Attributes:
        backend: its name.
        threads: for one run.
        precision: of the restore graphs.
        parts: where small parts of frames are computed, each of another size: some backends prepare for every new one.
        milliseconds: median for a frame of 384x384 px, when it was measured.
    """

    backend: str
    threads: int
    precision: str
    parts: Place
    milliseconds: float


def candidates(bundle: Bundle, backend: str | None = None, threads: int | None = None) -> list[Place]:
    """Ways to run a bundle here: every backend of the processor, with all cores and, of many, with half of them.

    Graphs in float32 count in bfloat16 too where the backend is left open, and backend and processor compute it.

    Args:
        bundle: in INT8 it counts only where its build met the budget for quality, or where it has nothing else.
        backend: only this one.
        threads: only so many.
    """
    cores = available_cores()
    counts = [threads] if threads else [cores] if cores < 4 else [cores, cores // 2]
    names = PROCESSOR_BACKENDS if backend is None else (backend,)
    own = bundle.nano.graphs["restore_x1"].precision

    def counts_here(name: str, precision: str) -> bool:
        derived = precision == _BF16 and own != _BF16
        return not derived or (backend is None and _BF16 in backends.get(name).precisions)

    return [
        Place(name, count, precision)
        for name in names
        if backends.get(name).probe().available
        for count in counts
        for precision in _variants(bundle)
        if counts_here(name, precision)
    ]


def _variants(bundle: Bundle) -> dict[str, Bundle]:
    """What a bundle holds, by precision, float32 first."""
    own, exact = bundle.nano.graphs["restore_x1"].precision, bundle.in_float32()
    if exact is None:
        return {own: bundle} | ({_BF16: bundle.computed_in(_BF16)} if own == "fp32" else {})
    variants = {"fp32": exact, _BF16: exact.computed_in(_BF16)}
    return variants | ({} if bundle.nano.quality.get("missed") else {own: bundle})


def remembered(bundle: Bundle, backend: str | None = None, threads: int | None = None) -> Choice | None:
    """What was measured for such a bundle on this machine; None where nothing was. Arguments as for `fastest`."""
    entry = _entries().get(_key(bundle, candidates(bundle, backend, threads)))
    try:
        return Choice(**(entry | {"parts": Place(*entry["parts"])})) if isinstance(entry, dict) else None
    except (KeyError, TypeError):  # written by another version
        return None


def fastest(
    bundle: Bundle, backend: str | None = None, threads: int | None = None
) -> tuple[Choice, Mapping[str, Bundle]]:
    """The fastest way to restore on this machine's processor, measured now if it is not known yet.

    Measuring takes a second per candidate on a small machine; with one candidate there is nothing to measure.

    Args:
        bundle: what to run; where it holds two precisions, or may be computed in bfloat16, one of them is chosen.
        backend: choose among precisions and threads of this one.
        threads: for one run, if that is not to be chosen.

    Returns:
        The choice, and the bundle by precision.

    Raises:
        BackendError: no backend of the processor runs here.
    """
    variants = _variants(bundle)
    choice = remembered(bundle, backend, threads)
    if choice is None or not {choice.precision, choice.parts.precision} <= variants.keys():
        possible = candidates(bundle, backend, threads)
        if not possible:
            raise BackendError("no backend of the processor runs here; see: uare-rt doctor")
        choice = Choice(*possible[0], parts=possible[0], milliseconds=0.0)
        if len(possible) > 1:
            told = ", ".join(f"{place.backend} {place.precision} ({place.threads})" for place in possible)
            _log.warning("measuring once which of %s is fastest here", told)
            choice = _measured(variants, possible)
        _remember(_key(bundle, possible), asdict(choice))
    return choice, variants


def _measured(variants: Mapping[str, Bundle], possible: list[Place]) -> Choice:
    loaded = {
        place: Restorer(Executables(variants[place.precision], backends.get(place.backend), place.threads))
        for place in possible
    }
    frame = _picture()
    context = next(iter(variants.values())).null_context().inputs()

    def restored(place: Place) -> NDArray[np.float32] | None:
        try:
            return _restored(loaded[place], frame, context)
        except BackendError as error:
            _log.warning("%s is left out: %s", " ".join(map(str, place)), error)
            return None

    def whole(place: Place) -> Callable[[], None]:
        def run() -> None:
            _restored(loaded[place], frame, context)

        return run

    def parts(place: Place) -> Callable[[], None]:
        sizes = _new_sizes()

        def run() -> None:
            for height, width in islice(sizes, _PARTS):
                loaded[place].run(frame[:height, :width], 1, context)

        return run

    try:
        sound = _sound({place: restored(place) for place in possible})
        best, seconds = _cheapest({place: whole(place) for place in sound})
        beside = [place for place in sound if place.threads == best.threads]
        best_for_parts = _cheapest({place: parts(place) for place in beside})[0] if len(beside) > 1 else best
    finally:
        for restorer in loaded.values():
            restorer.graphs.close()
    return Choice(*best, parts=best_for_parts, milliseconds=round(seconds * 1e3, 2))


def _cheapest(calls: Mapping[Place, Callable[[], None]]) -> tuple[Place, float]:
    """The fastest, float32 where another is hardly faster, and its median in seconds."""
    names = {" ".join(map(str, place)): place for place in calls}
    samples = interleaved({text: calls[place] for text, place in names.items()}, rounds=_ROUNDS)

    def price(text: str) -> float:
        return samples[text].median * (1 if names[text].precision == "fp32" else _PRICE)

    best = min(names, key=price)
    return names[best], samples[best].median


def _new_sizes() -> Iterator[tuple[int, int]]:
    """Sizes of parts as change in a video makes them: each comes once before any comes again; the same for all."""
    sides = range(48, 176, 16)
    sizes = [(height, width) for height in sides for width in sides]
    np.random.default_rng(0).shuffle(sizes)
    return cycle(sizes)


def lanes(bundle: Bundle, backend: Backend, threads: int | None) -> int:
    """How many frames of a video to compute side by side: one with all threads, or one per thread; measured once.

    Args:
        bundle: in the precision that is run.
        backend: that runs it; only on the processor there is something to share.
        threads: in all; None takes all cores this process may use.

    Raises:
        BackendError: the graph failed.
    """
    count = threads or available_cores()
    if count == 1 or backend.name not in PROCESSOR_BACKENDS:
        return 1
    place = Place(backend.name, count, bundle.nano.graphs["restore_x1"].precision)
    key = f"lanes; {_key(bundle, [place])}"
    known = _entries().get(key)
    if known in (1, count):
        return int(known)
    _log.info("measuring once whether frames side by side are faster here")  # takes about a second
    found = _measured_lanes(bundle, backend, count)
    _remember(key, found)
    return found


def _measured_lanes(bundle: Bundle, backend: Backend, count: int) -> int:
    frame, context = _picture(), bundle.null_context().inputs()
    whole = Restorer(Executables(bundle, backend, count))
    share = Restorer(Executables(bundle, backend, 1, beside=count))

    def run(restorer: Restorer) -> None:
        _restored(restorer, frame, context)

    def one_by_one() -> None:
        for _ in range(count):
            run(whole)

    try:
        with ThreadPoolExecutor(count) as pool:

            def side_by_side() -> None:
                list(pool.map(run, [share] * count))

            samples = interleaved({"one": one_by_one, "more": side_by_side}, rounds=_ROUNDS)
    finally:
        whole.graphs.close()
        share.graphs.close()
    return count if samples["more"].median < _GAIN * samples["one"].median else 1


def _restored(
    restorer: Restorer, frame: NDArray[np.uint8], context: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """As the frames of a video are restored."""
    return restorer.run(frame, 1, context, sized=restorer.graphs.worth_sizing is not None)


def _picture() -> NDArray[np.uint8]:
    """Something smooth with noise, uint8 [side, side, 3]: precisions differ on it as on photographs."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] / np.float32(_SIDE)
    smooth = 0.5 + 0.3 * np.stack([np.sin(9 * x + 4 * y), np.cos(7 * y), np.sin(5 * x - 3 * y)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 0.05, smooth.shape)
    return from_unit((smooth + noise).astype(np.float32), np.uint8)


def _sound(results: Mapping[Place, NDArray[np.float32] | None]) -> list[Place]:
    """Places that run, and whose result is that of their graph: some processors saturate in INT8.

    Raises:
        BackendError: nothing runs.
    """
    exact = next((r for place, r in results.items() if place.precision == "fp32" and r is not None), None)

    def is_sound(place: Place, result: NDArray[np.float32] | None) -> bool:
        if result is None or exact is None or place.precision == "fp32":
            return result is not None
        error = float(np.square(np.clip(result, 0, 1) - np.clip(exact, 0, 1)).mean())
        likeness = -10 * math.log10(max(error, 1e-12))
        if likeness < _LIKENESS.get(place.precision, _LIKENESS["int8"]):
            _log.warning("%s is left out: %.1f dB to float32 here", " ".join(map(str, place)), likeness)
            return False
        return True

    found = [place for place, result in results.items() if is_sound(place, result)]
    if not found:
        raise BackendError("no backend of the processor can run this bundle here; see: uare-rt doctor")
    return found


def _path() -> Path:
    return cache_directory().with_name("selection.json")


def _key(bundle: Bundle, possible: list[Place]) -> str:
    versions = [f"{package} {_version(package)}" for package in PROCESSOR_BACKENDS]
    versions.append(f"compiled {compiled_variant()}")
    spec = bundle.nano.graphs["restore_x1"]
    model = f"{bundle.nano.preset} {spec.precision} {spec.flops_per_pixel}"
    places = [" ".join(map(str, place)) for place in possible]
    return "; ".join([cpu_model(), f"{available_cores()} cores", *versions, model, *places])


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


def _remember(key: str, value: object) -> None:
    path = _path()
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(_entries() | {key: value}, indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        _log.debug("%s cannot be written: %s", path, error.strerror)
