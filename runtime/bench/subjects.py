"""What `uare-rt bench` times: graphs of a bundle on a backend, and whole calls of a session."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from uare_rt import backends
from uare_rt.errors import UsageError
from uare_rt.executables import Executables
from uare_rt.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from uare_rt.bundle import Bundle

__all__ = ["KINDS", "Kind", "Rig", "Subject", "frames_kind", "subjects"]

Kind = Literal["assess", "restore", "sized", "whole"]
KINDS: tuple[Kind, ...] = ("assess", "restore", "sized", "whole")
"""The assess graph; the whole restore graph, tone curve included; the same loaded for one size; a call of
``Session.restore``, which looks the curve up instead."""


@dataclass(frozen=True)
class Subject:
    """One thing to time.

    Attributes:
        bundle: name of its bundle.
        precision: of its restore graph.
        kind: see `KINDS`.
        backend: that runs it.
        threads: for one run.
        scale: of the output.
        width: of the frame, px.
        height: of the frame, px.
        batch: frames in one run.
        flops: operations of one run, of convolutions and matrix products; None where the bundle does not say.
    """

    bundle: str
    precision: str
    kind: Kind
    backend: str
    threads: int
    scale: int
    width: int
    height: int
    batch: int
    flops: float | None

    @property
    def name(self) -> str:
        """For people; no two subjects have the same."""
        size = "" if self.kind == "assess" else f" {self.width}x{self.height}"
        batch = f" batch {self.batch}" if self.batch > 1 else ""
        scale = f" x{self.scale}" if self.scale > 1 else ""
        return f"{self.bundle} {self.kind}{scale}{size}{batch}, {self.backend}, {self.threads} threads"

    @property
    def pixels(self) -> int:
        """Of the input, all frames."""
        return self.width * self.height * self.batch


class Rig:
    """Everything that is loaded for timing; close it after use.

    Args:
        bundles: opened, by name.
    """

    def __init__(self, bundles: dict[str, Bundle]) -> None:
        self._bundles = bundles
        # One per subject: what is loaded for one size would take the place of what is for another.
        self._loaded: list[Executables | Session] = []

    def call(self, subject: Subject) -> Callable[[], None]:
        """What to time for a subject, loaded and with its inputs ready."""
        bundle, backend = self._bundles[subject.bundle], backends.get(subject.backend)
        graph = f"restore_x{subject.scale}"
        rng = np.random.default_rng(0)
        if subject.kind == "whole":
            session = Session(bundle, backend, threads=subject.threads)
            self._loaded.append(session)
            picture = rng.integers(0, 256, (subject.height, subject.width, 3), dtype=np.uint8)
            context = session.null_context()
            return lambda: _ignored(session.restore(picture, scale=subject.scale, context=context, ahead=1 << 40))
        graphs = Executables(bundle, backend, subject.threads)
        self._loaded.append(graphs)
        if subject.kind == "assess":
            views = bundle.nano.views
            given = {"views": rng.random((views.crops + 1, 3, views.size, views.size), dtype=np.float32)}
            return lambda: _ignored(graphs.run("assess", given))
        frame = rng.random((subject.batch, 3, subject.height, subject.width), dtype=np.float32)
        inputs = bundle.null_context().inputs()
        every: dict[str, NDArray[Any]] = {"frame": frame, **inputs}
        return lambda: _ignored(graphs.run(graph, every, sized=subject.kind == "sized"))

    def close(self) -> None:
        """Give everything back."""
        for loaded in self._loaded:
            loaded.close()


def frames_kind(backend: str) -> Kind:
    """The kind that times the restore graph as a backend runs it on a video's frames.

    Args:
        backend: its name.

    Raises:
        UsageError: there is no such backend.
    """
    return "restore" if backends.get(backend).worth_sizing is None else "sized"


def subjects(
    bundles: dict[str, Bundle],
    *,
    kinds: Sequence[Kind],
    names: Sequence[str],
    threads: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    batches: Sequence[int],
    scale: int,
) -> list[Subject]:
    """Every combination that can run.

    Args:
        bundles: opened, by name.
        kinds: what of each.
        names: of backends.
        threads: numbers of them.
        sizes: (width, height) of frames in px, rounded up to what the graphs take.
        batches: frames in one run; whole calls take one.
        scale: of the output.

    Raises:
        UsageError: a bundle has no such scale.
    """
    found: dict[str, Subject] = {}
    for (name, bundle), kind, backend, count in itertools.product(bundles.items(), kinds, names, threads):
        if scale not in bundle.nano.scales:
            raise UsageError(f"--scale {scale}: {name} offers {', '.join(map(str, bundle.nano.scales))}")
        if kind == "sized" and backends.get(backend).worth_sizing is None:
            continue
        spec = bundle.nano.graphs["assess" if kind == "assess" else f"restore_x{scale}"]
        for (width, height), batch in _frames(bundle, kind, sizes, batches):
            per_pixel = None if kind == "assess" else spec.flops_per_pixel
            # Counted per pixel of the output, on frames where tokens need some more padding than on most.
            flops = None if per_pixel is None else per_pixel * width * height * batch * scale**2
            subject = Subject(
                name,
                spec.precision,
                kind,
                backend,
                count,
                scale if kind != "assess" else 1,
                width,
                height,
                batch,
                flops,
            )
            found.setdefault(subject.name, subject)
    return list(found.values())


def _frames(
    bundle: Bundle, kind: Kind, sizes: Iterable[tuple[int, int]], batches: Sequence[int]
) -> Iterator[tuple[tuple[int, int], int]]:
    if kind == "assess":
        yield (bundle.nano.views.size, bundle.nano.views.size), 1
        return
    multiple = bundle.nano.tiling.multiple
    for size in sizes:
        width, height = (-(-side // multiple) * multiple for side in size)
        for batch in (1,) if kind == "whole" else batches:
            yield (width, height), batch


def _ignored(_: object) -> None:
    """Drops a result."""
