"""Standard input and output as files that another thread can wake."""

from __future__ import annotations

import os
import select

__all__ = ["PipeReader", "PipeWriter"]

_POLL_SECONDS = 0.2


class PipeReader:
    """Reads a file descriptor; `stop` ends a read that waits.

    Args:
        descriptor: open for reading.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopped = False

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end or after `stop`."""
        while not self._stopped:
            if select.select([self._descriptor], [], [], _POLL_SECONDS)[0]:
                return os.read(self._descriptor, size)
        return b""

    def stop(self) -> None:
        """End every read."""
        self._stopped = True


class PipeWriter:
    """Writes a file descriptor; `stop` ends a write that waits for its reader.

    Args:
        descriptor: open for writing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopped = False

    def write(self, data: bytes) -> int:
        """Write all of ``data``.

        Raises:
            BrokenPipeError: the reader has left, or `stop` was called.
        """
        view = memoryview(data)
        while view:
            if self._stopped:
                raise BrokenPipeError("stopped")
            if select.select([], [self._descriptor], [], _POLL_SECONDS)[1]:
                # More than a pipe takes at once would wait in the kernel, where `stop` cannot reach.
                view = view[os.write(self._descriptor, view[: select.PIPE_BUF]) :]
        return len(data)

    def stop(self) -> None:
        """End every write."""
        self._stopped = True
