"""The graphs of a bundle on a backend: loaded when first needed, shared between sessions, run by name."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from uare_rt.errors import BackendError, UsageError
from uare_rt.onnx_parts import makes_value

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from uare_rt.backends.base import Backend, Executable
    from uare_rt.bundle import Bundle, GraphFile, Part

__all__ = ["Executables"]


class _Shared:
    """One loaded graph and the sessions that use it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend  # kept, so that its identity is not given to another
        self.lock = threading.Lock()
        self.executable: Executable | None = None
        self.users = 0


# What a session has loaded: by name, shape that it is for and part, the key in the registry and the graph.
_Loaded: TypeAlias = "dict[tuple[str, tuple[int, ...] | None, Part | None], tuple[tuple[object, ...], Executable]]"
_registry: dict[tuple[object, ...], _Shared] = {}
_registry_lock = threading.RLock()  # a finalizer may need it while its own thread has it


class Executables:
    """Loads and runs graphs; may be used from several threads at once.

    Sessions in one process that load the same graph on the same backend with as many threads share it, and so its
    weights; it is closed with the last of them.

    Args:
        bundle: an opened bundle.
        backend: where its graphs run.
        threads: processor threads for one run; None takes all cores this process may use.
        beside: runs at the same time, each with that many.

    Raises:
        UsageError: threads is below 1.
    """

    def __init__(self, bundle: Bundle, backend: Backend, threads: int | None, beside: int = 1) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}, but must be at least 1")
        self._bundle, self._backend, self._threads, self._beside = bundle, backend, threads, beside
        self._lock = threading.Lock()
        self._loaded: _Loaded = {}
        self._closed = False
        # A session that is dropped rather than closed leaves the registry too.
        weakref.finalize(self, _release_all, self._loaded, close=False).atexit = False

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._backend.name

    @property
    def worth_sizing(self) -> int | None:
        """Pixels from which a graph of its own pays for a size; see ``Backend.worth_sizing``."""
        return self._backend.worth_sizing

    @property
    def runs_parts(self) -> bool:
        """Whether a part of a graph can be run; see ``Backend.runs_parts``."""
        return self._backend.runs_parts

    def has_value(self, name: str, value: str) -> bool:
        """Whether a graph has a value of that name inside, where it can be cut in two.

        Raises:
            BundleError: the bundle has no such graph.
        """
        return makes_value(self._bundle.graph(name).path.read_bytes(), value)

    def run(
        self,
        name: str,
        inputs: Mapping[str, NDArray[Any]],
        part: Part | None = None,
        *,
        sized: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Run a graph on named arrays.

        Args:
            name: of the graph.
            inputs: its inputs.
            part: of the graph, where `runs_parts`.
            sized: load the graph for the shape of the first input alone, in place of the one for another shape; where
                there is `worth_sizing`.

        Raises:
            BackendError: it failed, or gave NaN or infinity.
            BundleError: the bundle has no such graph.
            UsageError: it was closed.
        """
        shape = next(iter(inputs.values())).shape if sized else None
        outputs = self._executable(name, shape, part).run(inputs)
        for key, value in outputs.items():
            if not _all_finite(value):
                raise BackendError(
                    f"graph {name!r} of bundle {self._bundle.path} gave NaN or infinity in {key!r} on {self.backend}; "
                    f"check its weights with: uare-rt inspect {self._bundle.path}"
                )
        return outputs

    def check_open(self) -> None:
        """Refuse what was closed.

        Raises:
            UsageError: it was.
        """
        if self._closed:
            raise UsageError("the session is closed; load the bundle again")

    def release(self, *, but: Collection[str]) -> None:
        """Give back the memory of all graphs ``but`` some; they are loaded again when they are needed."""
        with self._lock:
            for place in [place for place in self._loaded if place[0] not in but]:
                _release(self._loaded.pop(place)[0], close=False)

    def close(self) -> None:
        """Give back the memory of the graphs. Runs that are under way finish; later ones fail."""
        with self._lock:
            self._closed = True
            _release_all(self._loaded, close=True)

    def _executable(self, name: str, shape: tuple[int, ...] | None, part: Part | None) -> Executable:
        place = (name, shape, part)
        with self._lock:
            self.check_open()
            if place in self._loaded:
                return self._loaded[place][1]
            graph = self._bundle.graph(name)._replace(shape=shape, part=part)
            kind = (graph.path.resolve(), graph.content, graph.spec.precision)
            key = (id(self._backend), *kind, self._threads, self._beside, *place)
            # Before the next one takes memory. Another thread may be about to run it: it ends with its last reference.
            for old in [at for at in self._loaded if at[0] == name and at[1] and shape]:
                _release(self._loaded.pop(old)[0], close=False)
            executable = _acquire(key, self._backend, graph, self._threads, self._beside)
            self._loaded[place] = (key, executable)
            return executable


def _all_finite(values: NDArray[Any]) -> bool:
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):  # which it is not if one of them is not, and is in a third of the time
            return True
    return bool(np.isfinite(values).all())  # the sum alone may overflow


def _acquire(
    key: tuple[object, ...], backend: Backend, graph: GraphFile, threads: int | None, beside: int
) -> Executable:
    with _registry_lock:
        shared = _registry.setdefault(key, _Shared(backend))
        shared.users += 1
    try:
        with shared.lock:
            if shared.executable is None:
                shared.executable = backend.load(graph, threads=threads, beside=beside)
            return shared.executable
    except BaseException:
        _release(key, close=False)
        raise


def _release_all(loaded: _Loaded, *, close: bool) -> None:
    for key, _ in loaded.values():
        _release(key, close=close)
    loaded.clear()


def _release(key: tuple[object, ...], *, close: bool) -> None:
    with _registry_lock:
        shared = _registry[key]
        shared.users -= 1
        if shared.users:
            return
        del _registry[key]
    if close and shared.executable is not None:
        shared.executable.close()
