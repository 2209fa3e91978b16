"""Makes examples/sample.mp4: a slow camera move over a real photo, dark, noisy and compressed.

    python examples/make_sample_clip.py pexels-photo-302304.jpeg -o examples/sample.mp4

The photo is named in examples/ATTRIBUTION.md. Needs OpenCV besides the base install (extra `train`).
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from uare_rt.degradation import Step, degrade_clip

WIDTH, HEIGHT, RATE, SECONDS = 480, 320, 24, 3
SAMPLE_RATE = 48000


def camera_move(photo: Image.Image, frames: int) -> np.ndarray:
    """A pan with a slight zoom, sub-pixel smooth: uint8 [T, H, W, 3]."""
    out = []
    for t in np.linspace(0, 1, frames):
        ease = t * t * (3 - 2 * t)
        width = photo.width * (0.86 - 0.16 * ease)
        height = width * HEIGHT / WIDTH
        left = (photo.width - width) * (0.15 + 0.6 * ease)
        top = (photo.height - height) * (0.3 + 0.2 * ease)
        box = (left, top, left + width, top + height)
        out.append(np.asarray(photo.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box)))
    return np.stack(out)


def tone(seconds: float) -> list[av.AudioFrame]:
    """A soft chord that fades in and out, so that sync can be heard."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = sum(np.sin(2 * np.pi * f * t) for f in (220.0, 277.2, 329.6)) * 0.08 * np.sin(np.pi * t / seconds)
    frames = []
    for start in range(0, len(t) - 1023, 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024].astype(np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        frames.append(frame)
    return frames


def write(path: Path, frames: np.ndarray, crf: int) -> None:
    """H.264 with an AAC track, tagged BT.709."""
    with av.open(str(path), "w", container_options={"movflags": "faststart"}) as out:
        video = out.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = video.codec_context
        context.options = {"crf": str(crf), "preset": "medium"}
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        sound = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        sound.bit_rate = 48000
        audio = tone(SECONDS)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=1, src_color_range=2, dst_color_range=1)
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            out.mux(video.encode(frame))
            while audio and audio[0].time <= index / RATE:
                out.mux(sound.encode(audio.pop(0)))
        for left in audio:
            out.mux(sound.encode(left))
        for stream in (video, sound):
            out.mux(stream.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_name("sample.mp4"))
    arguments = parser.parse_args()
    clean = camera_move(Image.open(arguments.photo).convert("RGB"), RATE * SECONDS)
    steps = [Step("low_light", 0.5), Step("noise", 0.36)]
    degraded = degrade_clip(clean, steps, np.random.default_rng(20))
    # The file itself is the compression step.
    write(arguments.output, degraded.frames, crf=24)


if __name__ == "__main__":
    main()
