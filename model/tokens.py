"""The checkpoint's tokenizer as `uare_rt.vlm.tokens` defines it for PyTorch and the runtime."""

from __future__ import annotations

from uare_rt.vlm.tokens import TOKENIZER_FILES, TextTokenizer

__all__ = ["TOKENIZER_FILES", "TextTokenizer"]
