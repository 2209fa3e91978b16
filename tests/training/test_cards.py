"""The model card and the curves of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.errors import InputError
from uare_rt.training import curves
from uare_rt.training.model_card import main, model_card
from uare_rt.training.photos import photo_list


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(shipped_bundle())


def result(weights: str) -> dict[str, object]:
    row = {"pictures": 2, "input": {"psnr": 20.0}, "output": {"psnr": 30.0}, "gain": 10.0}
    scores = {
        "blend": {"spearman": 0.93},
        "seeded": {"spearman": 0.94, "severity_error": 0.1, "dominant_right": 0.9},
        "comparisons": {"right": 0.95},
        "opinion_proxy": {"spearman": {"uare": 0.86}},
    }
    return {
        "command": "python benchmarks/evaluate.py evalset",
        "date": "2026-01-01",
        "bundle": {"weights_sha256": weights},
        "measured": {"restoration": {"noise25": row}, "scores": scores},
    }


def test_the_card_names_data_recipe_figures_limits_and_hashes(bundle: Bundle, tmp_path: Path) -> None:
    weights = bundle.nano.source.weights_sha256
    figures = tmp_path / "evaluate.json"
    figures.write_text(json.dumps(result(weights)))
    card = model_card(bundle, ["nano-first"], figures)
    for photo in photo_list():
        if photo.split == "train":
            assert f"{photo.package} {photo.version}" in card
            assert photo.licence in card
    assert "`nano-first`" in card
    assert weights in card
    for name, entry in bundle.nano.files.items():
        assert f"| bundle: {name} | `{entry.sha256}` |" in card
    assert "| noise25 | 20.00 | 30.00 | +10.00 |" in card
    assert "MOS-like" in card


def test_figures_of_other_weights_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    figures = tmp_path / "evaluate.json"
    figures.write_text(json.dumps(result("0" * 64)))
    with pytest.raises(InputError, match="measure again"):
        model_card(bundle, ["nano-first"], figures)
    figures.write_text("{}")
    with pytest.raises(InputError, match="no result"):
        model_card(bundle, ["nano-first"], figures)


def test_the_command_writes_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--recipe", "nano-first", "-o", str(tmp_path / "card.md")]) == 0
    assert "Not measured for these weights yet" in (tmp_path / "card.md").read_text()
    assert main(["--recipe", "nano-none", "-o", str(tmp_path / "other.md")]) == 1
    assert "nano-none: no such recipe" in capsys.readouterr().err
    assert not (tmp_path / "other.md").exists()


def test_curves_have_a_panel_for_every_column(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss,noise\n1,3.5,\n2,nan,28.5\n3,2.5,29\n")
    assert curves.main([str(tmp_path), "-o", str(tmp_path / "curves.svg")]) == 0
    drawn = (tmp_path / "curves.svg").read_text()
    assert "loss: 2.5 (2.5 to 3.5)" in drawn
    assert "noise: 29 (28.5 to 29)" in drawn
    assert drawn.count("<polyline") == 2


@pytest.mark.parametrize("text", ["", "loss\n1\n", "step,loss\n"])
def test_a_file_that_is_no_metrics_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    assert curves.main([str(tmp_path), "-o", str(tmp_path / "curves.svg")]) == 1
