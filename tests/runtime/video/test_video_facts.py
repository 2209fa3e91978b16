"""Whatever a clip is made of, what a prober says about it is the same before and after."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from video_clips import FakeSession, make_clip, tone

from uare_rt.video import VideoOptions, restore_video

if TYPE_CHECKING:
    from pathlib import Path

CHAPTERS = [
    {"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": "eins"}},
    {"id": 2, "start": 100, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "zwei"}},
]


def facts(path: Path) -> dict[str, Any]:
    """What ffprobe would list: streams, times, shape, colour, chapters, and the packets of what is copied."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        found: dict[str, Any] = {
            "streams": [
                (s.type, s.codec_context.name if s.codec_context is not None and s.type != "video" else "")
                for s in container.streams
            ],
            "chapters": [
                (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
                for c in container.chapters()
            ],
            "aspect": video.sample_aspect_ratio or 1,
            "languages": [s.metadata.get("language") for s in container.streams],
            "layouts": [s.codec_context.layout.name for s in container.streams.audio],
            "dispositions": [int(s.disposition) for s in container.streams],
        }
        times, copied = [], []
        for packet in container.demux():
            if packet.stream.index != video.index:
                if packet.size:
                    copied.append((packet.stream.index, packet.pts * Fraction(packet.time_base), bytes(packet)))
                continue
            for frame in packet.decode():
                times.append(frame.pts * frame.time_base)
                found["shape"] = (frame.width, frame.height, frame.rotation)
                found["depth"] = max(c.bits for c in frame.format.components)
                found["colour"] = (frame.colorspace, frame.color_range)
        found["times"] = times
        found["copied"] = sorted(copied)
    return found


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    size=st.sampled_from([(64, 48), (65, 48), (63, 47)]),
    steps=st.lists(st.sampled_from([20, 33, 40, 95]), max_size=9),
    deep=st.booleans(),
    bframes=st.integers(0, 3),
    sound=st.sampled_from([None, ("stereo", 0.1, 0), ("5.1", 0.9, 0), ("5.1", 0.4, 960)]),
    degrees=st.sampled_from([0, 90, 180, 270]),
    subtitles=st.booleans(),
    chapters=st.booleans(),
    colour=st.sampled_from([None, (1, 1, 1, 1), (6, 2, 6, 6)]),
)
def test_facts_in_are_facts_out(
    tmp_path: Path,
    size: tuple[int, int],
    steps: list[int],
    deep: bool,
    bframes: int,
    sound: tuple[str, float, int] | None,
    degrees: int,
    subtitles: bool,
    chapters: bool,
    colour: tuple[int, int, int, int] | None,
) -> None:
    width, height = size
    odd = width % 2 or height % 2
    rng = np.random.default_rng(len(steps))
    frames = [rng.integers(0, 255, (height, width, 3)).astype(np.uint8) for _ in range(len(steps) + 1)]
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    subtitle: list[Any] = []

    def setup(out: Any, video: Any) -> None:
        video.metadata["language"] = "deu"
        if degrees and hasattr(video, "set_display_rotation"):
            video.set_display_rotation(degrees)
        if subtitles:
            subtitle.append(out.add_mux_stream("subrip"))
            subtitle[0].time_base = Fraction(1, 1000)
        if chapters:
            out.set_chapters(CHAPTERS)

    make_clip(
        source,
        frames,
        pts=[sum(steps[:i]) for i in range(len(frames))],
        time_base=Fraction(1, 1000),
        pix_fmt=("yuv444p" if odd else "yuv420p") + ("10le" if deep else ""),
        audio=tone(sound[1], layout=sound[0], pts=sound[2]) if sound else None,
        layout=sound[0] if sound else "stereo",
        options={"crf": "20", "bf": str(bframes), "preset": "veryfast"},
        colour=colour,
        setup=setup,
    )
    restore_video(
        FakeSession(), source, target, overwrite=True, options=VideoOptions(crf=20, preset="ultrafast", verify=True)
    )
    before, after = facts(source), facts(target)
    assert after == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


def test_text_and_sound_of_several_tracks_come_through_whole(tmp_path: Path) -> None:
    """A film as it is sold: 5.1 and stereo sound, subtitles with text, chapters, an attached font."""
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sounds = []
        for layout in ("5.1", "stereo"):
            sounds.append(out.add_stream("aac", rate=48000))
            sounds[-1].codec_context.layout = layout
        text = out.add_mux_stream("subrip")
        text.time_base = Fraction(1, 1000)
        text.metadata["language"] = "fra"
        out.add_attachment("font.ttf", "application/x-truetype-font", b"not really a font")
        out.set_chapters(CHAPTERS)
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * i, np.uint8), "rgb24")
            out.mux(video.encode(frame))
        for sound, layout in zip(sounds, ("5.1", "stereo"), strict=True):
            for frame in tone(0.8, layout=layout):
                out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
        out.mux(video.encode(None))
        for start in (100, 500):
            packet = av.Packet(f"line at {start}".encode())
            packet.stream, packet.pts, packet.dts, packet.duration = text, start, start, 200
            packet.time_base = Fraction(1, 1000)
            out.mux(packet)
    restore_video(FakeSession(), source, tmp_path / "out.mkv", options=VideoOptions(crf=20, preset="ultrafast"))
    before, after = facts(source), facts(tmp_path / "out.mkv")
    assert len([1 for index, _, _ in before["copied"] if index == 3]) == 2
    assert after == before
    with av.open(str(tmp_path / "out.mkv")) as result:
        attached = [s for s in result.streams if s.type == "attachment"]
        assert [s.name for s in attached] == ["font.ttf"]
        assert bytes(attached[0].data) == b"not really a font"
