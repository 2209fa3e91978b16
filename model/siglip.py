"""The understanding encoder of ``uare-7b``: SigLIP on whole patch grids (NaViT), and its connector."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from uare_rt.errors import InputError
from uare_rt.model.patches import patchify
from uare_rt.model.presets.uare_7b import VisionConfig
from uare_rt.model.tables import grid_rows, sincos_table

__all__ = ["Connector", "VisionEncoder", "VisionLayer"]


class VisionLayer(nn.Module):
    """Pre-LayerNorm transformer layer, attention within one image."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(width, config.eps)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, config.eps)
        self.fc1 = nn.Linear(width, config.mlp)
        self.fc2 = nn.Linear(config.mlp, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, hidden] -> same."""
        normed = self.norm1(x)
        q, k, v = (
            linear(normed).unflatten(-1, (self.heads, -1)).transpose(0, 1)[None] for linear in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1)
        x = x + self.out(mixed)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class Connector(nn.Module):
    """Two linear layers from the encoder's width to the decoder's."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[N, width] -> [N, hidden]."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class VisionEncoder(nn.Module):
    """Patches -> embeddings of the decoder's width, with a position table on either side."""

    table: Tensor

    def __init__(self, config: VisionConfig, hidden: int) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Linear(3 * config.patch**2, config.hidden)
        self.position = nn.Embedding(config.side**2, config.hidden)
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.layers))
        self.post_norm = nn.LayerNorm(config.hidden, config.eps)
        self.connector = Connector(config.hidden, hidden)
        self.register_buffer("table", sincos_table(config.side, hidden), persistent=False)

    def grid(self, image: Tensor) -> tuple[int, int]:
        """Patches (down, across) of an image [3, H, W].

        Raises:
            InputError: a side is no multiple of the patch or beyond the position table.
        """
        side, patch = self.config.side, self.config.patch
        height, width = image.shape[1:]
        if height % patch or width % patch or max(height, width) > side * patch:
            raise InputError(
                f"an understanding input of {width}x{height} px does not fit the patch table: sides must be multiples "
                f"of {patch} px, at most {side * patch} px; resize with the model's vit_transform"
            )
        return height // patch, width // patch

    def embed(self, image: Tensor) -> Tensor:
        """Patch projection plus the learned table: [3, H, W] in [-1, 1] -> [N, hidden]."""
        rows, columns = self.grid(image)
        patches = patchify(image, self.config.patch).to(self.patch.weight)
        return self.patch(patches) + self.position(grid_rows(rows, columns, self.config.side).to(patches.device))

    def forward(self, image: Tensor) -> Tensor:
        """[3, H, W] in [-1, 1] -> [N, decoder width]."""
        x = self.embed(image)
        for layer in self.layers:
            x = layer(x)
        x = self.connector(self.post_norm(x))
        rows = grid_rows(*self.grid(image), self.config.side).to(x.device)
        return x + self.table[rows].to(x.dtype)
