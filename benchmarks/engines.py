"""One engine with the restore graph of `uare-nano`, in a process of its own, timed on request.

usage: engines.py ENGINE BUNDLE SIZE THREADS
It prints `ready` or one line with the reason why not. Then every line on standard input is answered by two numbers,
seconds from a frame of 8 bits to a picture of 8 bits, and those of the graph between the conversions (`nan` where they
are one call); after `save FILE` the picture is in a .npy file too, uint8 [SIZE, SIZE, 3]. The frame and the null
context are the same for all, and so are the weights: PyTorch's are read back from the bundle.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uare_rt.bundle import Bundle

__all__ = ["ENGINES", "Job", "frame_of", "to_frame", "to_picture"]

Frame = NDArray[np.float32]
Picture = NDArray[np.uint8]
Graph = Callable[[Frame], Frame]
Restore = Callable[[Picture], tuple[Picture, float]]
_MUCH = 1 << 40  # pixels ahead


class Job:
    """What an engine is given.

    Args:
        bundle: with the graph.
        size: side of the frame, px.
        threads: that it may use.
    """

    def __init__(self, bundle: Path, size: int, threads: int) -> None:
        self.path, self.threads = bundle, threads
        self.bundle = Bundle.open(bundle)
        self.graph = self.bundle.graph("restore_x1").path
        self.picture = frame_of(size)
        self.context = self.bundle.null_context()

    @property
    def frame(self) -> Frame:
        """The frame as graphs take it: float32 [1, 3, size, size]."""
        return to_frame(self.picture)

    def inputs(self, frame: Frame) -> dict[str, Frame]:
        """Of the graph."""
        return {"frame": frame, **self.context.inputs()}


def to_frame(picture: Picture) -> Frame:
    """Samples as graphs take them, the way a person writes it: uint8 [H, W, 3] -> float32 [1, 3, H, W] in [0, 1]."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None]).astype(np.float32) / np.float32(255)


def to_picture(restored: Frame) -> Picture:
    """And back: float32 [1, 3, H, W] -> uint8 [H, W, 3], clipped and rounded to nearest."""
    return np.rint(np.clip(restored[0].transpose(1, 2, 0), 0, 1) * np.float32(255)).astype(np.uint8)


def _converted(graph: Graph) -> Restore:
    def restore(picture: Picture) -> tuple[Picture, float]:
        frame = to_frame(picture)
        began = time.perf_counter()
        restored = graph(frame)
        seconds = time.perf_counter() - began
        return to_picture(restored), seconds

    return restore


def frame_of(size: int) -> NDArray[np.uint8]:
    """A seeded frame, smooth with noise: uint8 [size, size, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / size
    smooth = 128 + 90 * np.stack([np.sin(9 * x + 4 * y), np.cos(7 * y), np.sin(5 * x - 3 * y)], axis=-1)
    return np.clip(smooth + rng.normal(0, 25, smooth.shape), 0, 255).astype(np.uint8)


def _session(job: Job, backend: str, ahead: int) -> Restore:
    import uare_rt

    session = uare_rt.load(job.path, backend=backend, threads=job.threads)
    return lambda picture: (session.restore(picture, context=job.context, ahead=ahead).image, float("nan"))


def _onnxruntime(job: Job, *, tuned: bool) -> Restore:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job.threads
    if tuned:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    session = ort.InferenceSession(str(job.graph), options, providers=["CPUExecutionProvider"])
    return _converted(lambda frame: session.run(None, job.inputs(frame))[0])


def _openvino(job: Job, *, sized: bool) -> Restore:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    model = core.read_model(str(job.graph))
    if sized:
        model.reshape({"frame": list(job.frame.shape)})
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    shared = {"share_inputs": True, "share_outputs": True}
    return _converted(lambda frame: request.infer(job.inputs(frame), **shared)["restored"])


def _model(job: Job) -> Any:
    import torch

    from uare_rt.model.weights import load_nano

    torch.set_num_threads(job.threads)
    model, _ = load_nano(job.path)
    return model.requires_grad_(False)


def _torch(job: Job, *, channels_last: bool = False, compiled: bool = False) -> Restore:
    import torch

    from uare_rt.model.nano import QualityContext

    model = _model(job)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    k, v, vec = (torch.from_numpy(part) for part in job.context.inputs().values())
    context = QualityContext(k[:, None], v[:, None], vec[None])
    call = torch.compile(model.restore) if compiled else model.restore

    def run(frame: Frame) -> Frame:
        with torch.inference_mode():
            return np.asarray(call(torch.from_numpy(frame).contiguous(memory_format=layout), context).numpy())

    return _converted(run)


def _ncnn(job: Job) -> Restore:
    """Convolutions and modulation in ncnn. Cutting tokens into windows takes six dimensions, and ncnn's tensors have
    four at most, so the experts on the tokens run in PyTorch between two nets of ncnn, on its own arrays.
    """
    import torch

    from uare_rt.model.nano import QualityContext

    model = _model(job)
    k, v, vec = (torch.from_numpy(part) for part in job.context.inputs().values())
    context = QualityContext(k[:, None], v[:, None], vec[None])

    class Before(torch.nn.Module):
        def forward(self, frame: torch.Tensor) -> tuple[torch.Tensor, ...]:
            base = model.tone(frame, context.vec)
            latent, skips = model.codec.encode(base, context.vec)
            return (base, latent, *skips)

    class After(torch.nn.Module):
        def forward(self, base: torch.Tensor, latent: torch.Tensor, *skips: torch.Tensor) -> torch.Tensor:
            features = model.codec.decode(latent, list(skips), context.vec)
            restored: torch.Tensor = model.codec.heads["x1"](features, base)
            return restored

    before, after, frame = Before().eval(), After().eval(), torch.from_numpy(job.frame)
    before.model = after.model = model
    with torch.inference_mode():
        between, expected = before(frame), model.restore(frame, context).numpy()
    first, last = _ncnn_net(before, (frame,), job.threads), _ncnn_net(after, between, job.threads)

    def run(frame: Frame) -> Frame:
        base, latent, *skips = first(frame)
        tokens = torch.from_numpy(latent)
        with torch.inference_mode():
            mended = (tokens + model.generate(tokens, context)).numpy()
        return last(base, mended, *skips)[0]

    apart = float(np.abs(run(job.frame) - expected).max())
    if apart > 1 / 255:
        raise RuntimeError(f"ncnn is wrong by {apart * 255:.2f} levels of 255")
    return _converted(run)


def _ncnn_net(module: Any, inputs: Sequence[Any], threads: int) -> Callable[..., list[Frame]]:
    """A module of PyTorch as a net of ncnn: arrays [1, ...] to arrays [1, ...]."""
    import ncnn
    import torch

    folder = Path(tempfile.mkdtemp())
    torch.jit.trace(module, tuple(inputs), check_trace=False).save(str(folder / "net.pt"))
    shapes = ",".join(f"[{','.join(map(str, tensor.shape))}]f32" for tensor in inputs)
    converter = Path(sysconfig.get_path("scripts"), "pnnx")
    command = [converter, "net.pt", f"inputshape={shapes}", "fp16=0"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.load_param(str(folder / "net.ncnn.param"))
    net.load_model(str(folder / "net.ncnn.bin"))
    outputs = [f"out{index}" for index in range(len(net.output_names()))]

    def run(*arrays: Frame) -> list[Frame]:
        with net.create_extractor() as extractor:
            for index, array in enumerate(arrays):
                extractor.input(f"in{index}", ncnn.Mat(np.ascontiguousarray(array[0])))
            return [np.array(extractor.extract(name)[1])[None] for name in outputs]

    return run


ENGINES: dict[str, Callable[[Job], Restore]] = {
    "uare-rt": lambda job: _session(job, "onnxruntime", 0),
    "uare-rt, OpenVINO": lambda job: _session(job, "openvino", 0),
    "uare-rt, OpenVINO, one size": lambda job: _session(job, "openvino", _MUCH),
    "uare-rt, fastest here": lambda job: _session(job, "fastest", _MUCH),
    "ONNX Runtime, defaults": lambda job: _onnxruntime(job, tuned=False),
    "ONNX Runtime, tuned": lambda job: _onnxruntime(job, tuned=True),
    "OpenVINO, raw": lambda job: _openvino(job, sized=False),
    "OpenVINO, raw, one size": lambda job: _openvino(job, sized=True),
    "PyTorch eager": _torch,
    "PyTorch eager, channels last": lambda job: _torch(job, channels_last=True),
    "torch.compile": lambda job: _torch(job, compiled=True),
    "ncnn, tokens in PyTorch": _ncnn,
}
"""By name."""


def _serve(engine: str, job: Job) -> None:
    try:
        restore = ENGINES[engine](job)
        restore(job.picture)
    except Exception as error:  # every library has its own; all of them are a reason
        sys.stdout.write(" ".join(f"{type(error).__name__}: {error}".split())[:200] + "\n")
        return
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        word, _, path = line.strip().partition(" ")
        began = time.perf_counter()
        result, graph = restore(job.picture)
        seconds = time.perf_counter() - began
        if word == "save":
            np.save(path, result)
        sys.stdout.write(f"{seconds} {graph}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _name, _bundle, _size, _threads = sys.argv[1:]
    _serve(_name, Job(Path(_bundle), int(_size), int(_threads)))
