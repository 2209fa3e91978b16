"""Writing the result in pieces that survive a kill, and joining them into one file at the end."""

from __future__ import annotations

import contextlib
import io
import os
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

from uare_rt.video.copying import CONTAINERS, SideTracks
from uare_rt.video.frames import Checkpoint, Picture, SidePacket
from uare_rt.video.journal import PiecePacket
from uare_rt.video.sink import (
    EncodedPictures,
    PictureEncoder,
    add_pictures,
    explained,
    open_output,
    rounding_note,
    rounds,
)
from uare_rt.video.targets import partial_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from uare_rt.video.frames import FrameSource
    from uare_rt.video.journal import Journal
    from uare_rt.video.options import VideoOptions

__all__ = ["PIECE_SECONDS", "PieceWriter", "SegmentSink", "check_container", "join_pieces"]

PIECE_SECONDS = 5
"""Length of a piece: at most this much is computed again after a kill."""
_KEPT = "what is finished is kept: run again with resume (--resume)"


class PieceWriter:
    """Encodes the pictures of one piece; its file holds the packets one after another, as the encoder gave them.

    Args:
        file: open for writing; closed by `finish` and `abandon`.
        encoder: begins anew for the piece.
        format_name: FFmpeg's name of the container that the pieces will be joined into.

    Attributes:
        packets: what the file holds, in order.
    """

    def __init__(self, file: BinaryIO, encoder: PictureEncoder, format_name: str) -> None:
        import av

        self._encoder = encoder
        self._durations: dict[int, int] = {}
        self.packets: list[PiecePacket] = []
        # Never written to: an encoder belongs to a container, which decides where its headers go.
        self._container: Any = av.open(io.BytesIO(), "w", format=format_name)
        encoder.open(self._container, f".{format_name}")
        self._file = file

    def write(self, picture: Picture) -> None:
        """Encode a picture."""
        self._durations[picture.pts] = picture.duration or 0
        self._store(self._encoder.encode(picture))

    def finish(self) -> None:
        """Flush the encoder; a file is on the disk afterwards, a buffer in memory stays open."""
        self._store(self._encoder.encode(None))
        if isinstance(self._file, io.BytesIO):
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _store(self, packets: list[Any]) -> None:
        for packet in packets:
            duration = self._durations.pop(packet.pts)
            self.packets.append(PiecePacket(packet.pts, duration, packet.size, packet.is_keyframe))
            self._file.write(bytes(packet))


class SegmentSink(EncodedPictures):
    """Writes pieces beside the target and joins them when all are there.

    Args:
        source: where metadata and side streams come from.
        target: the file to make; `targets.check_target` has passed.
        journal: of the target.
        scale: size of the restored frames relative to the source's.
        options: how to encode.
        reopened: opens the source anew, for its side streams.

    Raises:
        UsageError: an option does not fit, or the container cannot hold a stream of the source.
        OutputError: nothing can be written.
    """

    def __init__(
        self,
        source: FrameSource,
        target: Path,
        journal: Journal,
        *,
        scale: int,
        options: VideoOptions,
        reopened: Callable[[], FrameSource],
    ) -> None:
        self._source = source
        self._target = target
        self._journal = journal
        self._reopened = reopened
        self._notes: tuple[str, ...] = ()
        self._format = CONTAINERS[target.suffix.lower()]
        self._encoder = PictureEncoder(source, self._format, scale=scale, options=options)
        self._writer: PieceWriter | None = None
        self._partial: Path | None = None
        self._finished = False
        check_container(source, target, self._encoder)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the caller should know about how the result was written."""
        return (*self._encoder.notes, *self._notes)

    def write(self, item: Picture | SidePacket | Checkpoint) -> None:
        """Encode a picture, or finish a piece; packets of other streams are copied at the end.

        Raises:
            OutputError: no space is left, or the encoder failed; finished pieces are kept.
        """
        with explained(self._target, kept=_KEPT):
            if isinstance(item, Picture):
                if self._writer is None:
                    self._journal.begin()
                    self._partial = self._journal.folder / "piece.part"
                    self._writer = PieceWriter(self._partial.open("wb"), self._encoder, self._format)
                self._writer.write(item)
            elif isinstance(item, Checkpoint):
                self._close_piece(item)

    def finish(self) -> None:
        """Join the pieces; the last checkpoint stands at the very end.

        Raises:
            OutputError: the file cannot be completed; the pieces are kept.
        """
        with explained(self._target, kept=_KEPT):
            source = self._reopened()
            try:
                pieces = [(self._journal.folder / p.file, self._journal.packets(p)) for p in self._journal.pieces]
                self._notes = join_pieces(source, self._target, pieces, self._encoder)
            finally:
                source.close()
        self._finished = True
        self._journal.remove()

    def stop(self) -> None:
        """Files never wait."""

    def discard(self) -> None:
        """Delete the piece under way; those that are finished are kept."""
        if self._finished:
            return
        if self._writer is not None:
            self._writer.abandon()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)
        self._journal.remove_if_empty()

    def _close_piece(self, checkpoint: Checkpoint) -> None:
        if self._writer is None or self._partial is None:
            return
        self._writer.finish()
        name = f"piece-{len(self._journal.pieces):05d}"
        os.replace(self._partial, self._journal.folder / name)
        self._journal.add(name, self._writer.packets, checkpoint)
        self._writer = None


def check_container(source: FrameSource, target: Path, encoder: PictureEncoder) -> None:
    """Find out now, and not after hours, whether the container can hold everything.

    Raises:
        UsageError: it cannot; the message names one that can.
        OutputError: nothing can be written there.
    """
    partial = partial_name(target)
    container: Any = None
    try:
        with explained(target):
            container = open_output(partial, CONTAINERS[target.suffix.lower()], source)
            add_pictures(container, encoder, source, target.suffix)
            SideTracks(container, source, target.suffix).add()
            container.start_encoding()
    finally:
        if container is not None:
            with contextlib.suppress(Exception):
                container.close()
        partial.unlink(missing_ok=True)


def join_pieces(
    source: FrameSource,
    target: Path,
    pieces: Sequence[tuple[Path, list[PiecePacket]]],
    encoder: PictureEncoder,
) -> tuple[str, ...]:
    """Join encoded pieces and the side streams of a source into one file.

    Args:
        source: opened anew, not iterated yet.
        target: the file to make; appears only when complete.
        pieces: files of packets, and what each holds.
        encoder: with the settings that made them.

    Returns:
        What the caller should know.
    """
    format_name = CONTAINERS[target.suffix.lower()]
    partial = partial_name(target)
    info = encoder.info
    container = open_output(partial, format_name, source)
    try:
        stream = add_pictures(container, encoder, source, target.suffix)
        tracks = SideTracks(container, source, target.suffix)
        tracks.add()
        # The encoder is opened for the header only: with the same settings it is the same for every piece.
        container.start_encoding()
        sides = source.side_packets()
        side = next(sides, None)
        for packet in _renumbered(pieces, info.time_base):
            when = packet.dts * info.time_base
            while side is not None and _time(side) <= when:
                tracks.mux(side)
                side = next(sides, None)
            packet.stream = stream
            container.mux(packet)
        while side is not None:
            tracks.mux(side)
            side = next(sides, None)
        container.close()
        os.replace(partial, target)
    except BaseException:
        with contextlib.suppress(Exception):
            container.close()
        partial.unlink(missing_ok=True)
        raise
    rounded = sum(rounds(format_name, packet.pts, info) for _, packets in pieces for packet in packets)
    return (*tracks.notes, *rounding_note(target, rounded))


def _time(side: SidePacket) -> Fraction:
    packet = side.packet
    when = packet.dts if packet.dts is not None else packet.pts
    return Fraction(0) if when is None else when * Fraction(packet.time_base)


def _renumbered(pieces: Sequence[tuple[Path, list[PiecePacket]]], time_base: Fraction) -> Iterator[Any]:
    """Packets of all pieces with decoding times that rise over the joins."""
    import av

    times = sorted(packet.pts for _, packets in pieces for packet in packets)
    delay = max(_delay(packets) for _, packets in pieces)
    index = 0
    for path, packets in pieces:
        with path.open("rb") as file:
            for stored in packets:
                data = file.read(stored.size)
                if len(data) < stored.size:
                    raise OSError(f"{path.name} ends too early")
                packet = av.Packet(data)
                packet.pts, packet.dts = stored.pts, _decoding_time(times, index, delay)
                packet.duration, packet.time_base, packet.is_keyframe = stored.duration, time_base, stored.key
                index += 1
                yield packet


def _delay(packets: list[PiecePacket]) -> int:
    """How many frames a piece's packets have to be decoded ahead of their time."""
    ranks = {pts: rank for rank, pts in enumerate(sorted(packet.pts for packet in packets))}
    return max(place - ranks[packet.pts] for place, packet in enumerate(packets))


def _decoding_time(times: list[int], index: int, delay: int) -> int:
    """Times of the frames in order, moved by the delay; those before the first follow the rate at the start."""
    if index >= delay:
        return times[index - delay]
    ahead = times[delay] - times[0] if delay < len(times) else delay
    return times[index] - max(ahead, delay)
