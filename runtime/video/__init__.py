"""Video: restore or assess a whole clip and keep everything that is not pixels.

::

    from uare_rt.video import assess_video, restore_video

    with uare_rt.load() as session:
        report = restore_video(session, "in.mp4", "out.mp4")
"""

from __future__ import annotations

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
