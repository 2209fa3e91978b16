"""Engines and graphs that this machine compiled, kept in the user's cache directory.

An engine fits one graph, device, version of TensorRT, precision and profile, and its key is made of all of these;
an optimised graph fits one graph, processor and version of ONNX Runtime or OpenVINO.
Several processes may want the same engine: one builds, the others wait. A file is complete or absent, and its content
is checked when it is read, so that a build killed half-way or a damaged disk costs a rebuild and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "KEPT_GRAPHS",
    "MOST_KEPT",
    "EngineCache",
    "cache_directory",
    "engine_key",
    "graph_directory",
    "rebuilds_refused",
    "refuse_rebuilds",
    "trim",
]

KEPT_GRAPHS = 32
"""Entries in the directory of optimised graphs."""
MOST_KEPT = 256 << 20
"""Bytes of a bundle from which on a second copy of its weights is too much to keep."""

_REFUSED = "UARE_NO_REBUILD"
_DIGEST = hashlib.sha256().digest_size
_log = logging.getLogger(__name__)


def cache_directory() -> Path:
    """Where engines are kept: ``$XDG_CACHE_HOME/uare-rt/engines``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "uare-rt" / "engines"


def graph_directory() -> Path:
    """Where graphs are kept that a processor's backend has optimised; they are made again in a blink."""
    return cache_directory().with_name("graphs")


def refuse_rebuilds() -> None:
    """Let this process, and those it starts from now on, compile no engine of a bundle."""
    os.environ[_REFUSED] = "1"


def rebuilds_refused() -> bool:
    """Whether engines of a bundle may not be compiled: `refuse_rebuilds`, or ``UARE_NO_REBUILD=1``."""
    return os.environ.get(_REFUSED) == "1"


def trim(directory: Path, most: int) -> None:
    """Keep the newest entries of a directory, files or directories, and delete the others."""
    with contextlib.suppress(OSError):  # another process may be doing the same
        entries = sorted(directory.iterdir(), key=lambda entry: entry.stat().st_mtime, reverse=True)
        for entry in entries[most:]:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def engine_key(facts: Mapping[str, object]) -> str:
    """The key of an engine: a hash of everything that it depends on.

    Args:
        facts: graph hash, device, version, precision, profile; ready for JSON.
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class EngineCache:
    """Engines by key in a directory.

    Args:
        directory: made when something is first written.
        most: files to keep, of which every engine has two; None keeps all.
        quiet: say nothing where nothing can be kept, because making it again is quick.
    """

    def __init__(self, directory: Path | None = None, *, most: int | None = None, quiet: bool = False) -> None:
        self._directory = directory or cache_directory()
        self._most = most
        self._level = logging.DEBUG if quiet else logging.WARNING

    def get(self, key: str, build: Callable[[], bytes]) -> bytes:
        """The engine of a key, built if it is not there yet.

        A directory that cannot be written to is no obstacle: the engine is built and not kept.

        Args:
            key: of `engine_key`.
            build: makes the engine; its errors pass through and leave the cache as it was.
        """
        path = self._directory / f"{key}.engine"
        found = self._read(path)
        if found is not None:
            return found
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = (self._directory / f"{key}.lock").open("a+b")
        except OSError as error:
            _log.log(
                self._level,
                "engines cannot be kept in %s (%s), so this one is compiled again next time; "
                "make it writable or set XDG_CACHE_HOME",
                self._directory,
                error.strerror,
            )
            return build()
        with lock, _exclusive(lock.fileno()):
            found = self._read(path)  # another process may have built it while this one waited
            if found is None:
                found = build()
                self._write(path, found)
                if self._most is not None:
                    trim(self._directory, self._most)
        return found

    def _read(self, path: Path) -> bytes | None:
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, engine = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(engine).digest() != digest:
            _log.log(self._level, "%s is damaged and is compiled again", path)
            return None
        return engine

    def _write(self, path: Path, engine: bytes) -> None:
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as stream:
                stream.write(hashlib.sha256(engine).digest())
                stream.write(engine)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        except OSError as error:
            _log.log(
                self._level, "%s cannot be written (%s); the engine is compiled again next time", path, error.strerror
            )
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _exclusive(descriptor: int) -> Iterator[None]:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: both compile, and the later one's file stays
        yield
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # the system gives it back when the process ends, however it ends
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
