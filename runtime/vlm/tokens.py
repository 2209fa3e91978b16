"""Text to token ids and back, with the checkpoint's own tokenizer files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from uare_rt.errors import InputError, MissingExtraError
from uare_rt.vlm.layout import SpecialTokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["TOKENIZER_FILES", "TextTokenizer"]

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
_SPECIAL = SpecialTokens.__annotations__.keys()
_NAMES = dict(zip(_SPECIAL, ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"), strict=True))
# How Qwen2 splits text before byte-pair encoding; part of the format of vocab.json + merges.txt.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_pair(directory: Path) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    model = models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt"))
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    settings = json.loads((directory / "tokenizer_config.json").read_bytes())
    added = sorted((int(i), token["content"]) for i, token in settings["added_tokens_decoder"].items())
    tokenizer.add_special_tokens([content for _, content in added])
    for number, content in added:
        if tokenizer.token_to_id(content) != number:
            found = tokenizer.token_to_id(content)
            raise ValueError(f"{content} becomes id {found}, but tokenizer_config.json says {number}")
    return tokenizer


class TextTokenizer:
    """A checkpoint's tokenizer.

    Args:
        directory: holds ``tokenizer.json``, or ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``.

    Raises:
        InputError: a file is missing or damaged, or lacks one of the delimiters.
        MissingExtraError: ``tokenizers`` is not installed.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingExtraError("tokenizers", "vlm") from None
        if not any((directory / name).is_file() for name in TOKENIZER_FILES):
            raise InputError(f"{directory}: no tokenizer: expected tokenizer.json, or vocab.json with merges.txt")
        path = directory / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else _byte_pair(directory)
        except Exception as error:  # the library raises bare Exception for whatever it cannot read
            raise InputError(f"{directory}: the tokenizer files cannot be used ({error})") from None
        ids: dict[str, Any] = {name: self._tokenizer.token_to_id(token) for name, token in _NAMES.items()}
        missing = [_NAMES[name] for name, number in ids.items() if number is None]
        if missing:
            raise InputError(f"{directory}: the tokenizer has no {', '.join(missing)}; is it this checkpoint's own?")
        self.special = SpecialTokens(**ids)

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without ``bos`` and ``eos``."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; delimiters are left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
