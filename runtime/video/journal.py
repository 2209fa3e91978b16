"""The journal of a run that can be taken up again: finished pieces of the result, and the state at their end.

Everything lies in one hidden directory beside the target. A piece, its times and the state are on the disk under their
names before the journal speaks of them, and the journal is replaced in one step: after a kill or a power loss it tells
of whole pieces only.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from uare_rt.errors import OutputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from uare_rt.video.frames import Checkpoint

__all__ = ["Journal", "Piece", "PiecePacket", "journal_folder", "load_state", "save_state", "write_safely"]

_VERSION = 1


class Piece(msgspec.Struct, frozen=True):
    """A finished part of the result.

    Attributes:
        file: its name in the journal's directory.
        frames: in it.
        last: time of its last frame, in ticks.
    """

    file: str
    frames: int
    last: int


class PiecePacket(msgspec.Struct, frozen=True, array_like=True):
    """A packet of a part.

    Attributes:
        pts: time in ticks.
        duration: in ticks, 0 where not known.
        size: bytes.
        key: whether decoding can begin here.
    """

    pts: int
    duration: int
    size: int
    key: bool


class _Content(msgspec.Struct):
    version: int
    settings: dict[str, str]
    pieces: list[Piece]
    state: str | None


def journal_folder(target: Path) -> Path:
    """Where the journal of a target lies."""
    return target.with_name(f".{target.name}.resume")


class Journal:
    """Opens the journal of a target, or begins one.

    Args:
        target: the file that is being made.
        settings: what determines the result; a journal made with others is refused.

    Raises:
        UsageError: the journal there was made with other settings.
        OutputError: it cannot be read or written.
    """

    def __init__(self, target: Path, settings: dict[str, str]) -> None:
        self.folder = journal_folder(target)
        self._path = self.folder / "journal.json"
        try:
            found = self._path.read_bytes() if self._path.exists() else None
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be used ({error.strerror})") from error
        if found is None:
            self._content = _Content(_VERSION, settings, [], None)
            return
        try:
            self._content = msgspec.json.decode(found, type=_Content)
        except msgspec.DecodeError as error:
            raise OutputError(f"{self._path}: is damaged ({error}); delete {self.folder} to begin anew") from error
        self._check(settings)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Finished parts, in order."""
        return tuple(self._content.pieces)

    @property
    def frames(self) -> int:
        """Frames in the finished parts."""
        return sum(piece.frames for piece in self._content.pieces)

    @property
    def last(self) -> int | None:
        """Time of the last finished frame in ticks; None before any."""
        return self._content.pieces[-1].last if self._content.pieces else None

    def packets(self, piece: Piece) -> list[PiecePacket]:
        """What the file of a part holds, in order."""
        return msgspec.json.decode((self.folder / f"{piece.file}.json").read_bytes(), type=list[PiecePacket])

    def state(self) -> dict[str, dict[str, Any]] | None:
        """State of every stage after the last finished part; None before any."""
        if self._content.state is None:
            return None
        return load_state(self.folder / self._content.state)

    def begin(self) -> None:
        """Make the directory."""
        self.folder.mkdir(exist_ok=True)

    def add(self, file: str, packets: list[PiecePacket], checkpoint: Checkpoint) -> None:
        """Note a finished part; its file is on the disk already.

        Args:
            file: its name.
            packets: what it holds.
            checkpoint: the state after it.
        """
        write_safely(self.folder / f"{file}.json", msgspec.json.encode(packets))
        before = self._content.state
        state = f"state-{len(self._content.pieces):05d}.npz"
        save_state(self.folder / state, checkpoint.state)
        self._content.pieces.append(Piece(file, len(packets), checkpoint.pts))
        self._content.state = state
        self._write()
        if before is not None:
            (self.folder / before).unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the journal and all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Delete the journal where nothing was finished."""
        if not self._content.pieces:
            self.remove()

    def _check(self, settings: dict[str, str]) -> None:
        if self._content.version != _VERSION:
            raise UsageError(f"{self.folder}: was begun by another version; delete it to begin anew")
        for name in sorted({*settings, *self._content.settings}):
            then, now = self._content.settings.get(name), settings.get(name)
            if then != now:
                raise UsageError(
                    f"{self.folder}: was begun with another {name} ({then}, now {now}); "
                    "resume with the same, or delete it to begin anew"
                )

    def _write(self) -> None:
        write_safely(self._path, msgspec.json.encode(self._content))


def save_state(path: Path, state: dict[str, dict[str, Any]]) -> None:
    """Write the state of every stage: a file that is there whole or not at all."""
    arrays: dict[str, Any] = {}
    plain: dict[str, dict[str, Any]] = {}
    for stage, values in state.items():
        plain[stage] = {key: value for key, value in values.items() if not isinstance(value, np.ndarray)}
        arrays |= {f"{stage}/{key}": value for key, value in values.items() if isinstance(value, np.ndarray)}
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, plain=np.array(json.dumps(plain)), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_state(path: Path) -> dict[str, dict[str, Any]]:
    """Read what `save_state` has written."""
    with np.load(path) as arrays:
        plain: dict[str, dict[str, Any]] = json.loads(str(arrays["plain"]))
        for name in arrays.files:
            if name != "plain":
                stage, _, key = name.partition("/")
                plain[stage][key] = arrays[name]
    return plain


def write_safely(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, even after a power loss."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
