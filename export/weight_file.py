"""The weights of large models: copied from their source into one file, tensor by tensor.

No more than one tensor is in memory at a time, so a model may be exported that does not fit. Tensors keep the
16-bit type they are stored in; graphs cast them where they use them. Graphs that share a weight share its bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Protocol

import torch
from onnx import TensorProto

from uare_rt.export.packing import WEIGHT_FILE
from uare_rt.model.tables import sincos_table

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from uare_rt.model.checkpoint import Checkpoint

__all__ = ["CheckpointWeights", "OneLayer", "WeightFile", "WeightSource", "Weights", "raw_bytes", "stored_as"]

_ALIGNMENT = 64
_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
}


class WeightSource(Protocol):
    """Gives the parameters and tables of a `uare_rt.model.unified.UnifiedModel`."""

    def tensor(self, name: str) -> Tensor:
        """A parameter or buffer by its name in the model; floats of any width."""
        ...


class Weights(Protocol):
    """Says where a graph finds its weights."""

    def place(self, name: str) -> TensorProto:
        """Describe a parameter as external data; the proto's own name is that of the initializer."""
        ...


class CheckpointWeights:
    """The weights of a checkpoint, and the position tables that go with its configuration."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def tensor(self, name: str) -> Tensor:
        """See `WeightSource`."""
        config = self._checkpoint.config
        tables = {"vision.table": config.vision.side, "latents.table": config.latent_side}
        if name in tables:
            return sincos_table(tables[name], config.mot.hidden)
        return self._checkpoint.tensor(name)


class OneLayer:
    """Weights as a model of one decoder layer sees them, a layer of a larger model in its place.

    Args:
        weights: of the larger model.
        index: of the layer.
    """

    def __init__(self, weights: Weights, index: int) -> None:
        self._weights, self._index = weights, index

    def place(self, name: str) -> TensorProto:
        """See `Weights`."""
        return self._weights.place(name.replace("mot.layers.0.", f"mot.layers.{self._index}."))


class WeightFile:
    """``weights.bin`` under construction; a context manager that closes it.

    Args:
        path: where to write.
        source: of the tensors.
    """

    def __init__(self, path: Path, source: WeightSource) -> None:
        self._source = source
        self._file: BinaryIO = path.open("wb")
        self._placed: dict[str, TensorProto] = {}

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def place(self, name: str) -> TensorProto:
        """Write a tensor unless it was written before, and describe where it lies.

        Returns:
            External data of type float32, float16 or bfloat16, named ``name``.
        """
        if name not in self._placed:
            tensor = stored_as(self._source.tensor(name))
            self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
            start = self._file.tell()
            self._file.write(raw_bytes(tensor))
            self._placed[name] = _external(name, tensor, start, self._file.tell() - start)
        return self._placed[name]

    def flush(self) -> None:
        """Let readers of the file see all that was written."""
        self._file.flush()


def stored_as(tensor: Tensor) -> Tensor:
    """A tensor in a type that a bundle may hold: its own of 16 or 32 bits, or float32."""
    tensor = tensor.detach().contiguous()
    return tensor if tensor.dtype in _TYPES else tensor.float()


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, not copied."""
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())


def _external(name: str, tensor: Tensor, offset: int, length: int) -> TensorProto:
    stored = TensorProto(
        name=name, dims=tensor.shape, data_type=_TYPES[tensor.dtype], data_location=TensorProto.EXTERNAL
    )
    for field, value in (("location", WEIGHT_FILE), ("offset", offset), ("length", length)):
        stored.external_data.add(key=field, value=str(value))
    return stored
