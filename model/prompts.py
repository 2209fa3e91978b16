"""The texts a preset asks its model with, read from YAML; what they mean is in `uare_rt.vlm.prompts`."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec

from uare_rt.errors import InputError, MissingExtraError
from uare_rt.slots import SLOTS
from uare_rt.vlm.prompts import (
    Answer,
    AnswerIds,
    Choice,
    ChoiceIds,
    Interview,
    Prompts,
    QuestionIds,
    choice_ids,
    question_ids,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Answer",
    "AnswerIds",
    "Choice",
    "ChoiceIds",
    "Interview",
    "Prompts",
    "QuestionIds",
    "choice_ids",
    "load_prompts",
    "question_ids",
]


def load_prompts(path: Path | None = None) -> Prompts:
    """Read prompts from a YAML file; without one, those of ``uare-7b``.

    Raises:
        InputError: missing, malformed, or without an answer for some slot.
        MissingExtraError: PyYAML is not installed.
    """
    source = path or files("uare_rt.model.presets") / "uare_7b.yaml"
    try:
        prompts = msgspec.yaml.decode(source.read_bytes(), type=Prompts)
    except ImportError:
        raise MissingExtraError("pyyaml", "vlm") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from None
    except msgspec.DecodeError as error:
        raise InputError(f"{source}: not a file of prompts: {error}") from None
    if set(prompts.answers) != set(SLOTS):
        raise InputError(f"{source}: answers are for {', '.join(prompts.answers)}, but must be for {', '.join(SLOTS)}")
    return prompts
