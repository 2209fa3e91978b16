"""The interface of a backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from uare_rt.bundle import GraphFile

__all__ = ["Backend", "Capability", "Executable", "one_line"]


@dataclass(frozen=True)
class Capability:
    """What a backend can do on this machine.

    Attributes:
        name: of the backend.
        available: whether its software is here and sees a device. Only a real inference proves more (``doctor``).
        reason: why not, or what it runs on.
        version: of its software, empty where it is absent.
        devices: what it can run on.
    """

    name: str
    available: bool
    reason: str
    version: str = ""
    devices: tuple[str, ...] = ()


class Executable(Protocol):
    """A loaded graph. ``run`` may be called from several threads at once."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on named arrays.

        Args:
            inputs: an array for every input of the graph, of its dtype and shape.

        Returns:
            An array for every output, owned by the caller.

        Raises:
            BackendError: the graph failed.
        """
        ...

    def close(self) -> None:
        """Give back its memory; runs that are under way finish."""
        ...


class Backend(Protocol):
    """A way to run graphs."""

    @property
    def name(self) -> str:
        """As in ``uare_rt.load(backend=...)``."""
        ...

    @property
    def worth_sizing(self) -> int | None:
        """Pixels in frames of one size from which it pays to load a graph once more for that size; None: never."""
        ...

    @property
    def precisions(self) -> tuple[str, ...]:
        """What it can compute graphs in float32 in besides, fast on this machine: ``bf16`` or nothing."""
        ...

    @property
    def runs_parts(self) -> bool:
        """Whether it can load a part of a graph."""
        ...

    def probe(self) -> Capability:
        """Whether this machine can run it, and why not. Never raises."""
        ...

    def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> Executable:
        """Load a graph of a bundle.

        Args:
            graph: its name, file and description; for one shape only where ``worth_sizing`` is a number, in part
                only with ``runs_parts``.
            threads: processor threads for one run; None takes all cores this process may use.
            beside: how many runs at the same time shall each have that many, where a backend shares threads out.

        Raises:
            BackendUnavailableError: this machine cannot run the backend.
            BackendError: the backend refuses the graph.
        """
        ...


def one_line(error: Exception) -> str:
    """The message of a foreign exception, in one line of bearable length."""
    return " ".join(str(error).split())[:300]
