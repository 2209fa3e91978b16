"""OpenCV's camera loop with restored frames: opencv_loop.py [CAMERA or FILE] [SCALE]

Needs opencv-python (opencv-python-headless shows no window: pass a third argument, a folder for PNG files).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

import uare_rt
from uare_rt.live import LiveOptions, LiveStream


def frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """Frames as OpenCV gives them, turned into RGB."""
    while True:
        found, frame = capture.read()
        if not found:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def main(camera: str = "0", scale: str = "1", folder: str | None = None) -> None:
    capture = cv2.VideoCapture(int(camera) if camera.isdigit() else camera)
    if not capture.isOpened():
        sys.exit(f"error: OpenCV cannot open {camera}")
    live = camera.isdigit()
    # A camera does not wait, so the newest frame wins; a file does.
    options = LiveOptions(scale=int(scale), policy="newest" if live else "every")
    with uare_rt.load() as session:
        stream = LiveStream(frames(capture), session, options)
        for result in stream:
            picture = cv2.cvtColor(result.pixels, cv2.COLOR_RGB2BGR)
            if folder is not None:
                cv2.imwrite(str(Path(folder, f"{result.index:05d}.png")), picture)
                continue
            cv2.imshow(f"score {result.score:.1f}", picture)
            if cv2.waitKey(1) == 27:  # escape
                break
        counts = stream.statistics
    print(f"{counts.delivered} frames, {counts.dropped} dropped, {counts.latency.p50:.0f} ms late")
    capture.release()


if __name__ == "__main__":
    main(*sys.argv[1:4])
