"""Sessions: a bundle loaded on a backend, assessing and restoring frames."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt import backends
from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.checkpoints import exported, is_checkpoint
from uare_rt.errors import UsageError
from uare_rt.executables import Executables
from uare_rt.frames import check_frame, to_uint8
from uare_rt.machine import available_cores, available_memory
from uare_rt.manifest import Manifest
from uare_rt.quality import Assessment, QualityContext
from uare_rt.restorer import Restorer
from uare_rt.tiles import restore_tile
from uare_rt.tiling import checked_tile, choose_sides, padded, plan_tiles
from uare_rt.views import extract_views

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from uare_rt.backends.base import Backend
    from uare_rt.questions import Answer
    from uare_rt.vlm.session import UnifiedSession

__all__ = ["Restored", "Session", "load"]

# Input, output and the tile under way keep within this, so that a photo of 50 megapixels takes less than
# 1.5 GB with all that reading and writing needs. Larger images still get tiles of a useful size.
_WORKING_SET = 1100 << 20
_LEAST_TILE = 256 << 20
_SMALL = 128 << 20  # not worth asking the system for the memory at hand
_MOST_TILE = 680 << 20  # so that a 4K frame takes less than 0.7 GB in all
_FALLBACK_MEMORY = 2 << 30  # assumed free where the system does not say
_SIDE_BY_SIDE = 512 << 20  # activations of several frames at once
_BYTES_PER_OUTPUT_PIXEL = 48  # beyond scale 1: base, residual, sum and the copy that is rounded, float32 RGB each


@dataclass(frozen=True, eq=False)
class Restored:
    """A restored image.

    Attributes:
        image: dtype of the input, [scale * H, scale * W, 3], RGB.
        assessment: of the input, where ``restore`` made one; None where the caller gave the context.
        tiles: how many tiles it took; 0 where nothing had to be computed.
        seconds: wall time of the whole call.
    """

    image: NDArray[Any]
    assessment: Assessment | None
    tiles: int
    seconds: float


class Session:
    """A bundle on a backend. Made by ``uare_rt.load``; may be used from several threads at once.

    Graphs are loaded when they are first needed. As a context manager it closes itself.

    Args:
        bundle: an opened bundle.
        backend: where its graphs run.
        threads: processor threads for one run; None takes all cores this process may use.
        parts: bundle and backend for parts of a video's frames, where those are better computed elsewhere: the same
            model, in another precision perhaps.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        threads: int | None = None,
        parts: tuple[Bundle, Backend] | None = None,
    ) -> None:
        self._bundle, self._manifest = bundle, bundle.nano
        self._backend, self._threads = backend, threads
        self._graphs = Executables(bundle, backend, threads)
        self._parts = parts
        self._shares = {(1, False): Restorer(self._graphs)}  # by frames side by side, and whether for parts
        self._shares_lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """What the bundle contains."""
        return self._manifest

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._graphs.backend

    @property
    def precision(self) -> str:
        """Lowest precision that the restore graphs compute in, for example ``fp32``."""
        return self.manifest.graphs["restore_x1"].precision

    @property
    def parts(self) -> str:
        """Backend and precision for parts of a video's frames, for example ``onnxruntime fp32``."""
        if self._parts is None:
            return f"{self.backend} {self.precision}"
        bundle, backend = self._parts
        return f"{backend.name} {bundle.nano.graphs['restore_x1'].precision}"

    @property
    def scales(self) -> tuple[int, ...]:
        """Output scales that the bundle offers."""
        return self.manifest.scales

    def assess(self, image: NDArray[Any]) -> Assessment:
        """Say how good an image is and what is wrong with it.

        Args:
            image: uint8, uint16 or float32 in [0, 1], [H, W, 3], RGB, any size from 1x1.

        Raises:
            InputError: the array is of another kind.
            BackendError: inference failed.
            UsageError: the session is closed.
        """
        check_frame(image)
        answer = self._graphs.run("assess", {"views": extract_views(to_uint8(image))})
        context = QualityContext(answer["ctx_k"], answer["ctx_v"], answer["ctx_vec"])
        return Assessment.from_logits(answer["slot_logits"], context)

    def ask(self, image: NDArray[Any], question: str) -> Answer:
        """Answer a question in free words about an image, for example "is it noisy?" or "how sharp?".

        Args:
            image: as ``assess`` takes it.
            question: in English; one about something else than the slots gets an answer that says so.

        Raises:
            InputError: the array is of another kind.
            BackendError: inference failed.
            UsageError: the question is empty, or the session is closed.
        """
        return self.assess(image).answer(question)

    def restore(
        self,
        image: NDArray[Any],
        *,
        scale: int = 1,
        strength: float = 1.0,
        context: QualityContext | None = None,
        tile: int | None = None,
        ahead: int = 0,
        beside: int = 1,
        part: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Restored:
        """Restore an image, tile by tile where it does not fit in memory at once.

        Args:
            image: uint8, uint16 or float32 in [0, 1], [H, W, 3], RGB, any size from 1x1.
            scale: of the output, one of ``scales``.
            strength: 0 gives back the input (bicubically enlarged for scales above 1), 1 the full restoration.
            context: what guides the restoration; None assesses the image first.
            tile: largest side of a tile in px; None chooses from the memory at hand.
            ahead: px of other images of the same size that will be restored. Where it pays for so many, the graph is
                loaded for that size alone: faster, and the same within rounding.
            beside: how many such calls the caller has under way at the same time, itself included: each takes its
                share of the threads. The result is the same within rounding.
            part: the image is a part of a video's frame, and the next one will have another size.
            progress: called after each tile with the number done and the total.

        Raises:
            InputError: the array is of another kind.
            UsageError: scale, strength, tile or context cannot be used, or the session is closed.
            BackendError: inference failed.
        """
        began = time.perf_counter()
        check_frame(image)
        self._check_options(scale, strength, context)
        assessment = self.assess(image) if context is None else None
        guide = assessment.context if assessment is not None else context
        if strength == 0 and scale == 1:
            return Restored(image.copy(), assessment, 0, time.perf_counter() - began)
        tiling = self.manifest.tiling
        sides = self._tile_sides(image, scale) if tile is None else (checked_tile(tile, tiling),) * 2
        height, width = image.shape[:2]
        tiles = plan_tiles(height, width, sides, tiling)
        run = self._runner(guide, scale, ahead if len(tiles) == 1 and not part else 0, self._share(beside, part))
        out = np.empty((height * scale, width * scale, 3), image.dtype)
        for done, piece in enumerate(tiles, start=1):
            restore_tile(image, out, piece, scale=scale, strength=strength, run=run)
            if progress is not None:
                progress(done, len(tiles))
        return Restored(out, assessment, len(tiles), time.perf_counter() - began)

    def lanes(self, height: int, width: int, scale: int = 1) -> int:
        """How many frames of a size are best restored side by side: as memory allows, and measured once per machine.

        Raises:
            BackendError: measuring failed.
        """
        from uare_rt.selection import lanes

        multiple = self.manifest.tiling.multiple
        area = padded(height, multiple) * padded(width, multiple)
        room = int(_SIDE_BY_SIDE / (area * self._bytes_per_pixel(scale)))
        return 1 if room < 2 else min(room, lanes(self._bundle, self._backend, self._threads))

    def null_context(self) -> QualityContext:
        """The context that stands for "nothing known about the quality"."""
        return self._bundle.null_context()

    def close(self) -> None:
        """Give back the memory of the graphs. Calls that are under way finish; later ones fail."""
        with self._shares_lock:
            for share in self._shares.values():
                share.graphs.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _share(self, beside: int, part: bool) -> Restorer:
        """The graphs with the threads that one of some runs at a time may use."""
        key = beside, part and self._parts is not None
        with self._shares_lock:
            if key not in self._shares:
                self._graphs.check_open()
                count = max(1, (self._threads or available_cores()) // beside)
                bundle, backend = self._parts if part and self._parts is not None else (self._bundle, self._backend)
                self._shares[key] = Restorer(Executables(bundle, backend, count, beside))
            return self._shares[key]

    def _check_options(self, scale: int, strength: float, context: object) -> None:
        if scale not in self.scales:
            raise UsageError(f"scale is {scale}, but {self.manifest.name} offers {', '.join(map(str, self.scales))}")
        if not 0.0 <= strength <= 1.0:
            raise UsageError(f"strength is {strength}, but must be from 0 to 1")
        if context is None:
            return
        if not isinstance(context, QualityContext):
            given = type(context).__name__
            raise UsageError(f"the context is a {given}, but must be a QualityContext, as assess gives it")
        if context.shapes() != self.manifest.context.shapes():
            raise UsageError(
                f"the context has shapes {context.shapes()}, but {self.manifest.name} needs "
                f"{self.manifest.context.shapes()}; assess with the same model"
            )

    def _runner(
        self, context: QualityContext | None, scale: int, ahead: int, restorer: Restorer
    ) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
        """Runs the restore graph, one that is loaded for the size where that pays."""
        inputs = context.inputs() if context is not None else {}
        worth = restorer.graphs.worth_sizing
        sized = worth is not None and ahead >= worth
        return lambda samples: restorer.run(samples, scale, inputs, sized=sized)

    def _bytes_per_pixel(self, scale: int) -> float:
        return self.manifest.tiling.bytes_per_pixel + _BYTES_PER_OUTPUT_PIXEL * (scale * scale - 1)

    def _tile_sides(self, image: NDArray[Any], scale: int) -> tuple[int, int]:
        tiling = self.manifest.tiling
        height, width = image.shape[:2]
        per_pixel = self._bytes_per_pixel(scale)
        whole = padded(height, tiling.multiple), padded(width, tiling.multiple)
        if whole[0] * whole[1] * per_pixel <= _SMALL:
            return whole
        free = available_memory()
        result = image.nbytes * scale * scale
        wanted = min(_MOST_TILE * scale, max(_LEAST_TILE, _WORKING_SET - image.nbytes - result))
        possible = ((_FALLBACK_MEMORY if free is None else free) - result) // 2
        return choose_sides(height, width, max(0, min(wanted, possible)) / per_pixel, tiling)


def load(
    bundle: str | Path | None = None, *, backend: str = "auto", threads: int | None = None
) -> Session | UnifiedSession:
    """Open a model and make a session of it.

    Args:
        bundle: a directory ``NAME.uare``, or a checkpoint in the layout of BAGEL-7B-MoT, which is exported into the
            user's cache when it is first given; None takes the ``uare-nano`` that comes with the package.
        backend: a name of ``uare_rt.backends.names()``; ``auto``; or ``fastest``, for long work on the processor: which
            that is, with how many threads, and whether in bfloat16 where the processor has it (some 55 dB from
            float32), is measured once per machine (`uare_rt.selection`). With any backend of the processor so is the
            precision where a bundle holds two.
        threads: processor threads for one run; None takes all cores this process may use.

    Returns:
        A `Session`, or for a bundle of the ``uare-7b`` family a `uare_rt.vlm.session.UnifiedSession`.

    Raises:
        BundleError: the bundle is missing, damaged or too new.
        InputError: the checkpoint cannot be exported; the message says why.
        UsageError: there is no such backend, or threads is below 1.
        BackendUnavailableError: this machine cannot run the backend.
    """
    if bundle is not None and is_checkpoint(bundle):
        bundle = exported(bundle)
    opened = Bundle.open(shipped_bundle() if bundle is None else bundle)
    if isinstance(opened.manifest, Manifest):
        return _nano(opened, backend, threads)
    if backend == "fastest":
        backend = "auto"
    chosen = backends.choose(backend)
    from uare_rt.vlm.session import UnifiedSession

    return UnifiedSession(opened, chosen, threads=threads)


def _nano(bundle: Bundle, backend: str, threads: int | None) -> Session:
    """Backend, threads and precision: as asked for, what is left open as measured."""
    if backend != "fastest":
        chosen = backends.choose(backend)
        if bundle.in_float32() is None:
            return Session(bundle, chosen, threads=threads)
        backend = chosen.name
    from uare_rt.selection import PROCESSOR_BACKENDS, fastest

    if backend not in ("fastest", *PROCESSOR_BACKENDS):
        return Session(bundle, backends.choose(backend), threads=threads)
    choice, variants = fastest(bundle, None if backend == "fastest" else backend, threads)
    whole, parts = (
        (variants[precision], backends.choose(name))
        for name, precision in ((choice.backend, choice.precision), (choice.parts.backend, choice.parts.precision))
    )
    other = None if parts == whole else parts
    return Session(*whole, threads=choice.threads if threads is None else threads, parts=other)
