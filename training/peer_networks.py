"""Networks of peers whose packages hold weights but cannot be imported as they are."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Run = Callable[[Pixels, float], Pixels]

__all__ = ["brisque", "ffdnet", "real_esrgan", "zero_dce"]


def _state(path: Path) -> dict[str, Any]:
    import torch

    loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded


def ffdnet(weights: Path) -> Run:
    """FFDNet for colour (Zhang, Zuo, Zhang 2018, arXiv 1710.04026) on ONNX Runtime: 12 convolutions at half size.

    Args:
        weights: state dictionary with ``model.N.weight`` and ``model.N.bias``.

    Returns:
        ``run(pixels, sigma)``, sigma in levels of 255.
    """
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    state = _state(weights)
    layers = sorted({int(key.split(".")[1]) for key in state})
    nodes, tensors, flow = [], [], "x"
    for number, layer in enumerate(layers):
        for part in ("weight", "bias"):
            array = state[f"model.{layer}.{part}"].numpy()
            tensors.append(numpy_helper.from_array(array, f"{part}{number}"))
        last = number == len(layers) - 1
        out = "y" if last else f"c{number}"
        inputs = [flow, f"weight{number}", f"bias{number}"]
        nodes.append(helper.make_node("Conv", inputs, [out], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"r{number}"]))
            flow = f"r{number}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, "h", "w"]) for n, c in (("x", 13), ("y", 12))]
    graph = helper.make_graph(nodes, "ffdnet", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(pixels: Pixels, sigma: float) -> Pixels:
        height, width = pixels.shape[:2]
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(np.float32) / 255
        rows, columns = even.shape[0] // 2, even.shape[1] // 2
        folded = even.reshape(rows, 2, columns, 2, 3).transpose(4, 1, 3, 0, 2).reshape(12, rows, columns)
        level = np.full((1, rows, columns), sigma / 255, np.float32)
        (clean,) = session.run(None, {"x": np.concatenate([folded, level])[None]})
        flat = clean[0].reshape(3, 2, 2, rows, columns).transpose(3, 1, 4, 2, 0).reshape(2 * rows, 2 * columns, 3)
        return np.clip(np.rint(flat[:height, :width] * 255), 0, 255).astype(np.uint8)

    return run


def zero_dce(weights: Path) -> Run:
    """Zero-DCE++ (Li, Guo, Loy 2021, arXiv 2103.00860) in PyTorch, with the package's plain convolutions.

    Args:
        weights: checkpoint with ``model_state_dict``.

    Returns:
        ``run(pixels, told)``; it is told nothing.
    """
    import torch
    from torch.nn import functional as F

    state = _state(weights)["model_state_dict"]

    def conv(x: Any, number: int) -> Any:
        name = f"dce_net.conv{number}"
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def run(pixels: Pixels, told: float) -> Pixels:
        with torch.inference_mode():
            x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
            outs = [x]
            for number in range(1, 5):
                outs.append(conv(outs[-1], number).relu())
            outs.append(conv(torch.cat([outs[4], outs[3]], 1), 5).relu())
            outs.append(conv(torch.cat([outs[5], outs[2]], 1), 6).relu())
            for curve in conv(torch.cat([outs[6], outs[1]], 1), 7).tanh().split(3, 1):
                x = (x - curve * x * (1 - x)).clamp(0, 1)
            return np.asarray((x[0] * 255).round().byte().permute(1, 2, 0).contiguous())

    return run


def real_esrgan(model: Path) -> Run:
    """Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833) on ncnn's CPU path, the whole picture at once.

    Args:
        model: path of the ``.param`` and ``.bin`` files without suffix.

    Returns:
        ``run(pixels, told)``, enlarges by the model's scale; it is told nothing.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.load_param(str(model.with_name(f"{model.name}.param")))
    net.load_model(str(model.with_name(f"{model.name}.bin")))

    def run(pixels: Pixels, told: float) -> Pixels:
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(255)
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(planes).clone())
        _, out = extractor.extract("output")
        return np.clip(np.rint(np.asarray(out).transpose(1, 2, 0) * 255), 0, 255).astype(np.uint8)

    return run


def brisque() -> Callable[[Pixels], float]:
    """BRISQUE (Mittal, Moorthy, Bovik 2012) of the package of that name; larger is worse."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints while it loads
        from brisque import BRISQUE

        model = BRISQUE(url=False)
    fit = model.asymmetric_generalized_gaussian_fit
    # Its parameters are arrays of one element, which NumPy no longer takes for numbers.
    model.asymmetric_generalized_gaussian_fit = lambda values: tuple(float(np.ravel(part)[0]) for part in fit(values))

    def score(pixels: Pixels) -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            return float(model.score(pixels))

    return score
