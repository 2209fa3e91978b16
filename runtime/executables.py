"""The graphs of a bundle on a backend: loaded when first needed, run by name, closed together."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import BackendError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from uare_rt.backends.base import Backend, Executable
    from uare_rt.bundle import Bundle

__all__ = ["Executables"]


class Executables:
    """Loads and runs graphs; may be used from several threads at once.

    Args:
        bundle: an opened bundle.
        backend: where its graphs run.
        threads: processor threads for one run; None takes all cores this process may use.

    Raises:
        UsageError: threads is below 1.
    """

    def __init__(self, bundle: Bundle, backend: Backend, threads: int | None) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}, but must be at least 1")
        self._bundle, self._backend, self._threads = bundle, backend, threads
        self._lock = threading.Lock()
        self._loaded: dict[str, Executable] = {}
        self._closed = False

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._backend.name

    def run(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run a graph on named arrays.

        Raises:
            BackendError: it failed, or gave NaN or infinity.
            BundleError: the bundle has no such graph.
            UsageError: it was closed.
        """
        outputs = self._executable(name).run(inputs)
        for key, value in outputs.items():
            if not np.isfinite(value).all():
                raise BackendError(
                    f"graph {name!r} of bundle {self._bundle.path} gave NaN or infinity in {key!r} on {self.backend}; "
                    f"check its weights with: uare-rt inspect {self._bundle.path}"
                )
        return outputs

    def close(self) -> None:
        """Give back the memory of the graphs. Runs that are under way finish; later ones fail."""
        with self._lock:
            self._closed = True
            loaded = list(self._loaded.values())
            self._loaded.clear()
        for executable in loaded:
            executable.close()

    def _executable(self, name: str) -> Executable:
        with self._lock:
            if self._closed:
                raise UsageError("the session is closed; load the bundle again")
            if name not in self._loaded:
                self._loaded[name] = self._backend.load(self._bundle.graph(name), threads=self._threads)
            return self._loaded[name]
