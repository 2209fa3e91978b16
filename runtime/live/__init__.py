"""Live video: cameras and streams restored as they come, with frames of a bounded age.

::

    with uare_rt.load() as session:
        for result in LiveStream("rtsp://camera/1", session):
            show(result.pixels)                        # uint8 [H, W, 3]; also a DLPack tensor
    uare_rt.stream("/dev/video0", "better.mp4")        # the same with a sink

`yuv` converts frames as cameras give them (NV12, I420, P010).
"""

from __future__ import annotations

from uare_rt.live.frames import LiveFrame, LiveResult, Shot
from uare_rt.live.retrying import Retry
from uare_rt.live.sinks import Sink, open_sink
from uare_rt.live.sources import Source, open_source
from uare_rt.live.statistics import LiveStatistics, Spread
from uare_rt.live.streaming import LiveOptions, LiveStream, stream
from uare_rt.live.synthetic import SyntheticCamera, frame_number

__all__ = [
    "LiveFrame",
    "LiveOptions",
    "LiveResult",
    "LiveStatistics",
    "LiveStream",
    "Retry",
    "Shot",
    "Sink",
    "Source",
    "Spread",
    "SyntheticCamera",
    "frame_number",
    "open_sink",
    "open_source",
    "stream",
]
