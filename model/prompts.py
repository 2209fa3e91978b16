"""The texts a preset asks its model with, read from YAML and turned into token ids."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec

from uare_rt.errors import InputError, MissingExtraError
from uare_rt.slots import SLOTS

if TYPE_CHECKING:
    from pathlib import Path

    from uare_rt.model.tokens import TextTokenizer

__all__ = ["Answer", "AnswerIds", "Prompts", "QuestionIds", "load_prompts", "question_ids"]


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an answer about one slot begins, and the five words that may follow, in the order of the slot's levels."""

    prefix: str
    levels: tuple[str, str, str, str, str]


class Prompts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a preset asks.

    Attributes:
        question: asked before all answers.
        answers: by slot, every one of `uare_rt.slots.SLOTS`.
        describe: asks for a free description.
        restore: the instruction to restore.
    """

    question: str
    answers: dict[str, Answer]
    describe: str
    restore: str


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


@dataclass(frozen=True)
class AnswerIds:
    """An `Answer` in token ids: those of the prefix, and the first that tells each level from the others."""

    prefix: tuple[int, ...]
    levels: tuple[int, ...]


@dataclass(frozen=True)
class QuestionIds:
    """Question and answers in token ids, without delimiters; answers in the order of `uare_rt.slots.SLOTS`."""

    question: tuple[int, ...]
    answers: tuple[AnswerIds, ...]


def question_ids(prompts: Prompts, tokenizer: TextTokenizer) -> QuestionIds:
    """Turn the question and the answers into token ids.

    Raises:
        InputError: a level's word does not begin a token of its own after the prefix, or two share one.
    """
    answers = []
    for slot in SLOTS:
        answer = prompts.answers[slot]
        prefix = tokenizer.encode(answer.prefix)
        levels = []
        for word in answer.levels:
            whole = tokenizer.encode(answer.prefix + word)
            if whole[: len(prefix)] != prefix or len(whole) == len(prefix):
                raise InputError(
                    f"{slot}: {word!r} does not begin a new token after {answer.prefix!r}; reword the prompt"
                )
            levels.append(whole[len(prefix)])
        if len(set(levels)) < len(levels):
            raise InputError(f"{slot}: two of the levels {answer.levels} begin with the same token; choose other words")
        answers.append(AnswerIds(tuple(prefix), tuple(levels)))
    return QuestionIds(tuple(tokenizer.encode(prompts.question)), tuple(answers))
