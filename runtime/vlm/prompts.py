"""The texts a unified model is asked with, in words and in token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from uare_rt.errors import InputError
from uare_rt.slots import DEGRADATIONS, SLOTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from uare_rt.vlm.tokens import TextTokenizer

__all__ = [
    "Answer",
    "AnswerIds",
    "Choice",
    "ChoiceIds",
    "Interview",
    "Prompts",
    "QuestionIds",
    "choice_ids",
    "question_ids",
    "verdict_text",
]


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an answer about one slot begins, and the five words that may follow, in the order of the slot's levels."""

    prefix: str
    levels: tuple[str, str, str, str, str]


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question about two images, how its answer begins, and the words for the first and the second."""

    question: str
    prefix: str
    words: tuple[str, str]


class Prompts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a preset asks.

    Attributes:
        question: asked before all answers.
        answers: by slot, every one of `uare_rt.slots.SLOTS`.
        describe: asks for a free description.
        restore: the instruction to restore.
        compare: asks which of two images is better.
    """

    question: str
    answers: dict[str, Answer]
    describe: str
    restore: str
    compare: Choice


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


@dataclass(frozen=True)
class ChoiceIds:
    """A `Choice` in token ids, without delimiters."""

    question: tuple[int, ...]
    answer: AnswerIds


def question_ids(prompts: Prompts, tokenizer: TextTokenizer) -> QuestionIds:
    """Turn the question and the answers into token ids.

    Raises:
        InputError: a level's word does not begin a token of its own after the prefix, or two share one.
    """
    answers = tuple(
        _answer_ids(slot, prompts.answers[slot].prefix, prompts.answers[slot].levels, tokenizer) for slot in SLOTS
    )
    return QuestionIds(tuple(tokenizer.encode(prompts.question)), answers)


def choice_ids(choice: Choice, tokenizer: TextTokenizer) -> ChoiceIds:
    """Turn a choice into token ids; errors as of `question_ids`."""
    answer = _answer_ids("compare", choice.prefix, choice.words, tokenizer)
    return ChoiceIds(tuple(tokenizer.encode(choice.question)), answer)


def _answer_ids(name: str, prefix: str, words: Sequence[str], tokenizer: TextTokenizer) -> AnswerIds:
    before = tokenizer.encode(prefix)
    first = []
    for word in words:
        whole = tokenizer.encode(prefix + word)
        if whole[: len(before)] != before or len(whole) == len(before):
            raise InputError(f"{name}: {word!r} does not begin a new token after {prefix!r}; reword the prompt")
        first.append(whole[len(before)])
    if len(set(first)) < len(first):
        raise InputError(f"{name}: two of the levels {tuple(words)} begin with the same token; choose other words")
    return AnswerIds(tuple(before), tuple(first))


def verdict_text(prompts: Prompts, probabilities: Mapping[str, NDArray[np.floating]]) -> str:
    """A verdict in the words the model was made to answer in: the likeliest level of every slot, one sentence each.

    A degradation whose likeliest level is its first, none, is left out.

    Args:
        prompts: what the model was asked.
        probabilities: for every slot its five levels, float [5].
    """
    likeliest = {slot: int(probabilities[slot].argmax()) for slot in SLOTS}
    told = ["quality", *(slot for slot in DEGRADATIONS if likeliest[slot])]
    return " ".join(f"{prompts.answers[slot].prefix}{prompts.answers[slot].levels[likeliest[slot]]}." for slot in told)


class Interview:
    """What a model is asked and what it said, in token ids.

    Args:
        prompts: the texts.
        tokenizer: of the model.

    Attributes:
        questions: the question and the forced answers.

    Raises:
        InputError: see `question_ids`.
    """

    def __init__(self, prompts: Prompts, tokenizer: TextTokenizer) -> None:
        self._prompts, self._tokenizer = prompts, tokenizer
        self.questions = question_ids(prompts, tokenizer)

    def verdict(self, probabilities: Mapping[str, NDArray[np.floating]]) -> list[int]:
        """`verdict_text` in token ids."""
        return self._tokenizer.encode(verdict_text(self._prompts, probabilities))
