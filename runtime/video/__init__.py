"""Video: restore or assess a whole clip and keep everything that is not pixels.

::

    from uare_rt.video import assess_video, restore_video

    with uare_rt.load() as session:
        report = restore_video(session, "in.mp4", "out.mp4")

Names are imported on first use: who asks whether a file is a video need not load what restores one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uare_rt.late import late_names

if TYPE_CHECKING:
    from uare_rt.video.assess import VideoAssessment, VideoSample, assess_video, sample_frames
    from uare_rt.video.frames import Damage, Frame, FrameSink, FrameSource, Picture, SidePacket, VideoInfo
    from uare_rt.video.opening import RawFormat, is_video
    from uare_rt.video.options import VideoOptions
    from uare_rt.video.report import KeptOriginal, VideoProgress, VideoReport
    from uare_rt.video.restore import restore_video

__all__ = [
    "Damage",
    "Frame",
    "FrameSink",
    "FrameSource",
    "KeptOriginal",
    "Picture",
    "RawFormat",
    "SidePacket",
    "VideoAssessment",
    "VideoInfo",
    "VideoOptions",
    "VideoProgress",
    "VideoReport",
    "VideoSample",
    "assess_video",
    "is_video",
    "restore_video",
    "sample_frames",
]

_HOME = {
    "Damage": "frames",
    "Frame": "frames",
    "FrameSink": "frames",
    "FrameSource": "frames",
    "KeptOriginal": "report",
    "Picture": "frames",
    "RawFormat": "opening",
    "SidePacket": "frames",
    "VideoAssessment": "assess",
    "VideoInfo": "frames",
    "VideoOptions": "options",
    "VideoProgress": "report",
    "VideoReport": "report",
    "VideoSample": "assess",
    "assess_video": "assess",
    "is_video": "opening",
    "restore_video": "restore",
    "sample_frames": "assess",
}

__getattr__, __dir__ = late_names(__name__, _HOME)
