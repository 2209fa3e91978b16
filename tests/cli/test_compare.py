from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from uare_rt.cli.compare import TIE, verdict

if TYPE_CHECKING:
    from conftest import Run


def assessed(score: float, **severities: float) -> dict[str, Any]:
    return {"score": score, "severities": {"noise": 0.0, "blur": 0.0, "low_light": 0.0, **severities}}


@pytest.mark.parametrize(
    ("a", "b", "better", "description"),
    [
        (
            assessed(2.0, noise=0.75, low_light=0.3),
            assessed(4.0, noise=0.25),
            "B",
            "B is better by 2.00: it has less noise (0.50), low light (0.30).",
        ),
        (
            assessed(4.0, blur=0.2),
            assessed(3.0, noise=0.5),
            "A",
            "A is better by 1.00: it has less noise (0.50); but more blur (0.20).",
        ),
        (assessed(3.0), assessed(3.5), "B", "B is better by 0.50; no single degradation stands out."),
        (assessed(3.0), assessed(3.0 + TIE / 2), "tie", "A and B are equally good (0.05 apart)."),
        (
            assessed(3.0, noise=0.5),
            assessed(3.0, blur=0.4),
            "tie",
            "A and B are equally good (0.00 apart); B has less noise (0.50); A has less blur (0.40).",
        ),
    ],
)
def test_the_verdict_says_which_and_why(a: dict[str, Any], b: dict[str, Any], better: str, description: str) -> None:
    found = verdict(a, b)
    assert found["better"] == better
    assert found["description"] == description
    assert found["difference"] == pytest.approx(b["score"] - a["score"])
    mirrored = verdict(b, a)
    assert mirrored["better"] == {"A": "B", "B": "A", "tie": "tie"}[better]
    assert mirrored["severities"] == {name: -change for name, change in found["severities"].items()}


def test_json_holds_both_assessments(run: Run, tiny: Path, photo: Path) -> None:
    Image.open(photo).resize((12, 8)).resize((96, 64)).save("soft.png")
    result = run("compare", photo, "soft.png", "--json", "--bundle", tiny)
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (found["a"]["path"], found["b"]["path"]) == ("photo.jpg", "soft.png")
    assert found["difference"] == pytest.approx(found["b"]["score"] - found["a"]["score"])
    text = run("compare", photo, "soft.png", "--bundle", tiny).stdout
    assert text.splitlines()[-1] == found["description"]
    assert found["a"]["description"] in text


def test_a_file_equals_itself(run: Run, tiny: Path, photo: Path) -> None:
    assert json.loads(run("compare", photo, photo, "--json", "--bundle", tiny).stdout)["better"] == "tie"


def test_a_directory_cannot_be_compared(run: Run, tiny: Path, photo: Path) -> None:
    result = run("compare", photo, ".", "--bundle", tiny)
    assert result.exit_code == 2
    assert result.stderr == "error: .: compare takes two files; give one image or video\n"
