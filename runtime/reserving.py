"""One writer for one target: a second process is refused rather than mixed in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from uare_rt.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["reserved"]


@contextlib.contextmanager
def reserved(target: Path, work: str, *, inside: bool = False) -> Iterator[None]:
    """Refuse a second process that would write a target while one does; what is killed reserves nothing.

    Where the system or the file system has no such locks (Windows, some networks), nobody is refused.

    Args:
        target: what is written, there or not.
        work: what is done, for the message.
        inside: the hidden lock file lies in the target, a directory that is there, rather than beside it.

    Raises:
        OutputError: another process is at it, or the directory cannot be written to.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    lock = target / ".lock" if inside else target.parent / f".{target.name}.lock"
    try:
        stream = lock.open("w")
    except OSError as error:
        raise OutputError(f"{lock.parent}: cannot write into it ({error.strerror}); choose another -o") from error
    with stream:
        with contextlib.suppress(OSError):  # of file systems without locks
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    f"{target}: another {work} is writing it; wait for it, or choose another -o"
                ) from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
