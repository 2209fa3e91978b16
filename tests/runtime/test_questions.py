"""Questions in free words and what they are answered."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from typer.testing import CliRunner

import uare_rt
from uare_rt.cli.app import app
from uare_rt.errors import UsageError
from uare_rt.questions import answer
from uare_rt.slots import SLOTS

PHOTO = "tests/data/photos/bridge.jpg"


def picture(**levels: int) -> dict[str, Sequence[float]]:
    """Probabilities of a picture whose slots are mostly at these levels, degradations at none otherwise."""
    rows = {}
    for slot in SLOTS:
        row = [0.02] * 5
        row[levels.get(slot, 4 if slot == "quality" else 0)] = 0.92
        rows[slot] = row
    return rows


@pytest.mark.parametrize(
    ("question", "slot"),
    [
        ("is it noisy?", "noise"),
        ("Is there much film grain", "noise"),
        ("how sharp?", "blur"),
        ("is the picture out of focus?", "blur"),
        ("any JPEG artifacts?", "compression"),
        ("are there blocks", "compression"),
        ("is the resolution low?", "low_resolution"),
        ("Too dark?", "low_light"),
        ("is it underexposed", "low_light"),
        ("is it foggy?", "haze"),
        ("How good is it?", "quality"),
        ("is the quality bad?", "quality"),
    ],
)
def test_free_words_find_their_slot(question: str, slot: str) -> None:
    assert answer(question, picture()).slots == (slot,)


@pytest.mark.parametrize(
    ("question", "levels", "begins"),
    [
        ("is it noisy?", {"noise": 2}, "Yes: moderate noise (moderate 92%"),
        ("is it noisy?", {}, "No: no noise (none 92%"),
        ("is it sharp?", {}, "Yes: no blur"),
        ("is it sharp?", {"blur": 3}, "No: strong blur"),
        ("how sharp?", {"blur": 3}, "Strong blur"),
        ("isn't it noisy?", {"noise": 2}, "No: moderate noise"),
        ("is it not blurry", {}, "Yes: no blur"),
        ("is it bright?", {"low_light": 4}, "No: severe low light"),
        ("is it good?", {"quality": 1}, "No: poor quality"),
        ("is it bad?", {"quality": 1}, "Yes: poor quality"),
        ("how much compression?", {"compression": 1}, "Slight compression"),
    ],
)
def test_yes_and_no_follow_the_wording(question: str, levels: dict[str, int], begins: str) -> None:
    assert answer(question, picture(**levels)).text.startswith(begins)


def test_two_things_in_one_question_are_both_answered() -> None:
    said = answer("is it noisy or hazy?", picture(haze=4))
    assert said.slots == ("noise", "haze")
    assert "No: no noise" in said.text
    assert "Yes: severe haze" in said.text
    assert set(said.probabilities) == {"noise", "haze"}


def test_what_is_wrong_is_the_description_with_its_probabilities() -> None:
    said = answer("what is wrong with it?", picture(quality=2, compression=3, blur=1))
    assert said.text.startswith("Fair quality: strong compression, slight blur; otherwise clean. (")
    assert "compression strong 92%" in said.text
    assert said.slots == SLOTS


@pytest.mark.parametrize("question", ["is there a dog in it?", "who took it?", "welche Farbe hat der Himmel?"])
def test_a_question_about_something_else_is_not_answered(question: str) -> None:
    said = answer(question, picture(noise=4))
    assert said.slots == ()
    assert said.text.startswith("I cannot tell: I only know about quality, noise,")
    assert said.probabilities == {}


def test_an_empty_question_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        answer("  ", picture())


def test_sessions_and_the_command_line_answer_alike() -> None:
    pixels = np.full((128, 128, 3), 12, np.uint8)
    with uare_rt.load(backend="null") as session:
        assert session.ask(pixels, "is it dark?").slots == ("low_light",)
    done = CliRunner().invoke(
        app, ["assess", PHOTO, "--backend", "null", "--json", "--ask", "is it dark?", "--ask", "a dog?"]
    )
    assert done.exit_code == 0, done.output
    answers = json.loads(done.stdout)[0]["answers"]
    assert [said["slots"] for said in answers] == [["low_light"], []]
    shown = CliRunner().invoke(app, ["assess", PHOTO, "--backend", "null", "--ask", "is it dark?"])
    assert f"{PHOTO}: is it dark? " in shown.stdout
