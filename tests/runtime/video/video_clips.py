"""Small clips and a session for the video tests: everything is generated, seeded and seconds long."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from uare_rt.manifest import Tiling
from uare_rt.quality import Assessment, QualityContext
from uare_rt.session import Restored
from uare_rt.slots import SLOTS, describe, expected_score, expected_severity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A smooth picture whose place in the clip can be read back: a bright square walks over a gradient."""
    y, x = np.mgrid[:height, :width]
    frame = np.stack([x * 120 // width + 40, y * 120 // height + 40, np.full_like(x, 90)], axis=2).astype(np.uint8)
    left = index * 3 % (width - 8)
    frame[8:16, left : left + 8] = 230
    return frame


def tone(seconds: float, rate: int = 48000, layout: str = "stereo", pts: int = 0) -> list[Any]:
    """Frames of a 440 Hz tone."""
    channels = av.AudioLayout(layout).nb_channels
    wave = (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)
    frames = []
    for start in range(0, len(wave) - 1023, 1024):
        frame = av.AudioFrame.from_ndarray(np.tile(wave[start : start + 1024], (channels, 1)), "fltp", layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), start + pts
        frames.append(frame)
    return frames


def make_clip(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 12800),
    rate: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    audio: Sequence[Any] | None = None,
    layout: str = "stereo",
    options: dict[str, str] | None = None,
    colour: tuple[int, int, int, int] | None = None,
    setup: Any = None,
) -> Path:
    """Write a clip with PyAV.

    Args:
        path: where.
        pictures: uint8 or uint16 [H, W, 3] RGB, or ready `av.VideoFrame`s.
        pts: their timestamps, at 1/rate by default.
        time_base: of the timestamps.
        rate: nominal frames per second.
        codec: video encoder.
        pix_fmt: of the encoder.
        audio: frames of one AAC track.
        layout: of the audio.
        options: of the encoder.
        colour: (matrix, range, primaries, transfer) tags.
        setup: called with (container, video stream) before the header is written.
    """
    tick = int(1 / (rate * time_base))
    times = list(pts) if pts is not None else [i * tick for i in range(len(pictures))]
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=rate)
        height, width = (
            (pictures[0].height, pictures[0].width) if hasattr(pictures[0], "planes") else pictures[0].shape[:2]
        )
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        video.codec_context.time_base = time_base
        video.codec_context.options = {"crf": "10", "preset": "ultrafast"} if options is None else options
        if colour is not None:
            context = video.codec_context
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = colour
        sound = None
        if audio:
            sound = out.add_stream("aac", rate=48000)
            sound.codec_context.layout = layout
        if setup is not None:
            setup(out, video)
        pending = list(audio or [])
        for array, when in zip(pictures, times, strict=True):
            if hasattr(array, "planes"):
                frame = array
            else:
                frame = av.VideoFrame.from_ndarray(array, "rgb48le" if array.dtype == np.uint16 else "rgb24")
            frame.pts, frame.time_base = when, time_base
            out.mux(video.encode(frame))
            while sound is not None and pending and pending[0].time <= when * time_base:
                out.mux(sound.encode(pending.pop(0)))
        for left in pending:
            out.mux(sound.encode(left))
        out.mux(video.encode(None))
        if sound is not None:
            out.mux(sound.encode(None))
    return path


def read_frames(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    """(time in seconds, RGB) of every frame."""
    with av.open(str(path)) as source:
        return [(f.pts * f.time_base, f.to_ndarray(format="rgb24")) for f in source.decode(video=0)]


def read_packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """(time in seconds, payload) of every packet of the first stream of a kind."""
    with av.open(str(path)) as source:
        stream = getattr(source.streams, kind)[0]
        return [(p.pts * p.time_base, bytes(p)) for p in source.demux(stream) if p.size]


class FakeSession:
    """A session without a model: restores by pixel repetition and judges by mean brightness.

    Attributes:
        restored: mean of every frame it restored, in order.
        contexts: first value of every context it was given.
        fail_at: raise when this many frames were restored.
    """

    scales = (1, 2, 4)
    backend = "fake"
    precision = "fp32"
    parts = "fake fp32"
    manifest = SimpleNamespace(
        source=SimpleNamespace(weights_sha256="0"),
        tiling=Tiling(multiple=16, grid=16, before=8, after=23, bytes_per_pixel=8),
    )

    def __init__(self, fail_at: int | None = None, error: BaseException | None = None) -> None:
        self.restored: list[float] = []
        self.contexts: list[float] = []
        self.assessed = 0
        self.fail_at = fail_at
        self.error = error or RuntimeError("engine failed")

    def assess(self, image: np.ndarray) -> Assessment:
        self.assessed += 1
        value = float(image.mean()) / np.iinfo(image.dtype).max
        p = {slot: np.array([1 - value, 0, 0, 0, value]) for slot in SLOTS}
        context = QualityContext(
            np.zeros((1, 1, 1, 2), np.float32), np.zeros((1, 1, 1, 2), np.float32), np.full(4, value, np.float32)
        )
        return Assessment(
            score=expected_score(p["quality"]),
            level="fair",
            severities={s: expected_severity(p[s]) for s in SLOTS[1:]},
            probabilities={s: tuple(float(x) for x in p[s]) for s in SLOTS},
            description=describe(p),
            context=context,
        )

    def restore(
        self,
        image: np.ndarray,
        *,
        scale: int = 1,
        strength: float = 1.0,
        context: QualityContext | None = None,
        ahead: int = 0,
        beside: int = 1,
        part: bool = False,
    ) -> Restored:
        if self.fail_at is not None and len(self.restored) >= self.fail_at:
            raise self.error
        assert context is not None
        self.restored.append(float(image.mean()))
        self.contexts.append(float(context.vec[0]))
        return Restored(image=image.repeat(scale, 0).repeat(scale, 1), assessment=None, tiles=1, seconds=0.0)

    def lanes(self, height: int, width: int, scale: int = 1) -> int:
        return 1
