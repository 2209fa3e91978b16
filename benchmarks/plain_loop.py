"""A straightforward video restorer for comparison: decode, run the graph, encode, one frame after another.

usage: plain_loop.py IN OUT [--bundle NAME.uare]
What a person writes in an evening with PyAV and ONNX Runtime, with the bundle's graphs: the context is assessed on the
first frame and every 48 frames as `uare-rt restore` does; everything else in the file but the pictures is lost.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import av
import numpy as np
import onnxruntime as ort
from engines import to_frame, to_picture

from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.views import extract_views

_ASSESS_EVERY = 48


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--bundle", type=Path, default=shipped_bundle())
    chosen = parser.parse_args()
    bundle = Bundle.open(chosen.bundle)
    assess, restore = (
        ort.InferenceSession(str(bundle.graph(name).path), providers=["CPUExecutionProvider"])
        for name in ("assess", "restore_x1")
    )
    with av.open(chosen.source) as source, av.open(chosen.target, "w") as target:
        video = source.streams.video[0]
        out = target.add_stream("libx264", rate=video.average_rate)
        out.width, out.height, out.pix_fmt = video.width // 2 * 2, video.height // 2 * 2, "yuv420p"
        out.options = {"crf": "16", "preset": "medium"}
        context: dict[str, np.ndarray] = {}
        for index, frame in enumerate(source.decode(video)):
            pixels = frame.to_ndarray(format="rgb24")
            if index % _ASSESS_EVERY == 0:
                names = ["ctx_k", "ctx_v", "ctx_vec"]
                context = dict(zip(names, assess.run(names, {"views": extract_views(pixels)}), strict=True))
            height, width = pixels.shape[:2]
            padded = np.pad(pixels, ((0, -height % 16), (0, -width % 16), (0, 0)), mode="reflect")
            restored = restore.run(["restored"], {"frame": to_frame(padded), **context})[0]
            picture = np.ascontiguousarray(to_picture(restored[:, :, : out.height, : out.width]))
            for packet in out.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                target.mux(packet)
        for packet in out.encode():
            target.mux(packet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
