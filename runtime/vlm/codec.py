"""The image autoencoder through its graphs, whole or in tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.machine import available_memory
from uare_rt.vlm.codec_tiles import Core, Gathered, check_tile, in_tiles, spans
from uare_rt.vlm.memory import codec_pass_bytes, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from uare_rt.vlm.layout import TiledHalf, UnifiedLayout

    Run = Callable[[str, Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]

__all__ = ["Codec"]

_TILE = 512  # px, where memory asks for tiles


class Codec:
    """Image <-> latent.

    Args:
        layout: of the model.
        run: runs a graph by its name on named arrays.
    """

    def __init__(self, layout: UnifiedLayout, run: Run) -> None:
        self._layout, self._run = layout, run

    def encode(self, image: NDArray[np.float32], tile: int | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Encode one image.

        Args:
            image: float32 [1, 3, H, W] in [-1, 1], sides multiples of the stride.
            tile: pixels along the side of what the outer levels work on at once; None takes the whole picture, and
                tiles where memory does not allow that.

        Returns:
            Mean and spread of the latent, float32 [1, z, h, w] each.

        Raises:
            UsageError: the tile is smaller than what its convolutions read.
            BackendError: there is not the memory.
        """
        layout = self._layout
        height, width = image.shape[2:]
        tile = self._tile("encode", (height, width), tile)
        if tile is None:
            out = self._run("encode", {"image": image})
        else:
            cells = (height // layout.codec_cell, width // layout.codec_cell)
            features = self._in_tiles(("encode_outer", "image", "features"), layout.encode_tiles, image, cells, tile)
            out = self._run("encode_inner", {"features": features})
        return out["latent"], out["spread"]

    def decode(self, latent: NDArray[np.float32], tile: int | None) -> NDArray[np.float32]:
        """Latent float32 [1, z, h, w] -> image float32 [1, 3, H, W], not clamped; else as `encode`."""
        layout = self._layout
        stride = layout.latent_stride // layout.latent_patch
        size = (latent.shape[2] * stride, latent.shape[3] * stride)
        tile = self._tile("decode_image", size, tile)
        if tile is None:
            return self._run("decode_image", {"latent": latent})["image"]
        features = self._run("decode_inner", {"latent": latent})["features"]
        cells = (features.shape[2], features.shape[3])
        return self._in_tiles(("decode_outer", "features", "image"), layout.decode_tiles, features, cells, tile)

    def _tile(self, graph: str, size: tuple[int, int], tile: int | None) -> int | None:
        """The tile to work in, or None for the whole picture."""
        layout, (height, width) = self._layout, size
        if tile is None:
            free = available_memory()
            if free is not None and codec_pass_bytes(layout, graph, height * width, None) > free:
                tile = _TILE
        if tile is not None:
            half = layout.encode_tiles if graph == "encode" else layout.decode_tiles
            check_tile(tile, layout.codec_cell, half.reach)
            tile = tile if max(size) > tile else None
        doing = "encoding" if graph == "encode" else "decoding"
        need = codec_pass_bytes(layout, graph, height * width, tile)
        way_out = f"give a smaller tile than {tile} px" if tile else "use a smaller picture"
        require(f"{doing} a picture of {width}x{height} px", need, way_out)
        return tile

    def _in_tiles(
        self, names: tuple[str, str, str], half: TiledHalf, x: NDArray[np.float32], cells: tuple[int, int], tile: int
    ) -> NDArray[np.float32]:
        """The outer levels: graph, input and output; ``cells`` down and across."""
        graph, given, made = names
        gathered = Gathered()

        def of_tile(part: NDArray[np.float32], core: Core) -> NDArray[np.float32]:
            used = gathered.used or (np.zeros((half.norms, half.groups)),) * 2
            where = (core.rows.start, core.rows.stop, core.columns.start, core.columns.stop)
            inputs = {
                given: np.ascontiguousarray(part),
                "core": np.array(where, np.int64),
                "settled": np.array([gathered.used is not None]),
                "means": used[0].astype(np.float32),
                "variances": used[1].astype(np.float32),
            }
            out = self._run(graph, inputs)
            gathered.add(core.cells, out["found_means"].astype(np.float64), out["found_variances"].astype(np.float64))
            return out[made]

        rows, columns = (spans(along, tile // self._layout.codec_cell, half.reach) for along in cells)
        found: NDArray[np.float32] = in_tiles(
            of_tile, gathered.settle, half.norms, x, (rows, columns), lambda array, _: array
        )
        return found
