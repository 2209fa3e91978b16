"""Questions in free words, answered from the slots: no language model, and honest where it does not know.

Words are looked up by their stems ("noisy" and "grain" ask for noise). Words of absence ("sharp", "bright", "not
noisy") turn yes and no around. A question that names no slot is answered with what can be asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uare_rt.errors import UsageError
from uare_rt.slots import DEGRADATIONS, LEVELS, SLOTS, describe, spoken

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Answer", "answer"]

_FAULTS: Mapping[str, str] = {
    "noise": r"nois|grain|speckl|iso\b",
    "blur": r"blur|unsharp|shak|smear|smudg|soft\b|out of focus|unfocus|defocus|motion",
    "compression": r"compress|jpe?g|block|arti?facts?|artefact|codec|mosquito|h\.?26[45]|bitrate",
    "low_resolution": r"low[ -]?res|resolution|pixel|upscal|enlarg|upsampl|thumbnail",
    "low_light": r"dark|dim\b|under-?expos|low[ -]?light|night|gloom",
    "haze": r"haz|fog|mist|smog|smok|washed",
}
_ABSENCES: Mapping[str, str] = {
    "noise": r"noise-?(less|free)|free of noise",
    "blur": r"sharp|crisp|in focus|focus(s?ed)?\b",
    "compression": r"uncompress|losless|lossless",
    "low_resolution": r"high[ -]?res|full[ -]?res",
    "low_light": r"bright|well[ -]?lit|light\b|lit\b|expos",
    "haze": r"haze-?(less|free)|clear\b",
}
_QUALITY = r"quality|good|great|excellent|nice|fine\b|score|rat(e|ing)|look"
_POOR = r"bad|poor|ugly|awful|terrible"
_WHOLE = r"wrong|problem|fault|defect|damag|degrad|describ|explain|why|clean|matter with|issue"
_DENIAL = r"\bnot\b|n't\b|\bno\b|\bwithout\b|\bfree of\b"
_DEGREE = r"\bhow\b|\bmuch\b|\bwhat\b|\brate\b"
_WORTH_SAYING = 0.05
_GOOD = 3  # level from which quality counts as good


@dataclass(frozen=True)
class Answer:
    """What is said to a question.

    Attributes:
        question: as it was asked.
        slots: what it was taken to be about; empty where nothing in it is known.
        text: the answer in English.
        probabilities: for these slots the probability of each of the five levels.
    """

    question: str
    slots: tuple[str, ...]
    text: str
    probabilities: dict[str, tuple[float, ...]]

    def to_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        return {
            "question": self.question,
            "slots": list(self.slots),
            "text": self.text,
            "probabilities": {slot: list(row) for slot, row in self.probabilities.items()},
        }


def answer(question: str, probabilities: Mapping[str, Sequence[float]]) -> Answer:
    """Answer a question about a picture.

    Args:
        question: in English, for example "is it noisy?" or "how sharp?".
        probabilities: of an assessment: for every slot the probability of each of its five levels.

    Raises:
        UsageError: the question is empty.
    """
    words = " ".join(question.lower().split())
    if not words:
        raise UsageError("the question is empty; ask for example: is it noisy?")
    denied, by_degree = bool(re.search(_DENIAL, words)), bool(re.search(_DEGREE, words))
    parts: dict[str, str] = {}
    for slot in DEGRADATIONS:
        absent = re.search(rf"\b(?:{_ABSENCES[slot]})", words)
        if absent or re.search(rf"\b(?:{_FAULTS[slot]})", words):
            parts[slot] = _about_fault(slot, probabilities[slot], bool(absent) != denied, by_degree)
    if not parts and re.search(rf"\b(?:{_WHOLE})", words):
        rows = {slot: np.asarray(probabilities[slot]) for slot in SLOTS}
        named = [slot for slot in SLOTS if slot == "quality" or _level(probabilities[slot]) > 0]
        evidence = "; ".join(f"{spoken(slot)} {_odds(slot, probabilities[slot])}" for slot in named)
        return Answer(question, SLOTS, f"{describe(rows)} ({evidence})", _kept(probabilities, SLOTS))
    poor = re.search(rf"\b(?:{_POOR})", words)
    if not parts and (poor or re.search(rf"\b(?:{_QUALITY})", words)):
        parts["quality"] = _about_quality(probabilities["quality"], bool(poor) != denied, by_degree)
    if not parts:
        known = ", ".join(spoken(slot) for slot in SLOTS)
        return Answer(question, (), f"I cannot tell: I only know about {known}.", {})
    return Answer(question, tuple(parts), " ".join(parts.values()), _kept(probabilities, tuple(parts)))


def _about_fault(slot: str, row: Sequence[float], wants_absence: bool, by_degree: bool) -> str:
    level = _level(row)
    finding = f"{'no' if level == 0 else LEVELS[slot][level]} {spoken(slot)}"
    return _said(finding, (level == 0) == wants_absence, by_degree, _odds(slot, row))


def _about_quality(row: Sequence[float], wants_poor: bool, by_degree: bool) -> str:
    level = _level(row)
    finding = f"{LEVELS['quality'][level]} quality"
    return _said(finding, (level < _GOOD) == wants_poor, by_degree, _odds("quality", row))


def _said(finding: str, agrees: bool, by_degree: bool, odds: str) -> str:
    text = finding if by_degree else f"{'yes' if agrees else 'no'}: {finding}"
    return f"{text[0].upper()}{text[1:]} ({odds})."


def _level(row: Sequence[float]) -> int:
    return int(np.rint(np.dot(row, np.arange(5))))


def _odds(slot: str, row: Sequence[float]) -> str:
    levels = [(share, LEVELS[slot][level]) for level, share in enumerate(row) if share >= _WORTH_SAYING]
    return ", ".join(f"{name} {share:.0%}" for share, name in levels)


def _kept(probabilities: Mapping[str, Sequence[float]], slots: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    return {slot: tuple(float(share) for share in probabilities[slot]) for slot in slots}
