"""The ablations differ in what they say they differ in, and run from pictures to a table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from uare_rt.model.nano import UareNano
from uare_rt.model.presets.nano import UARE_NANO

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from ablations import ARMS, ContextFree, recipe_of

ROOT = Path(__file__).resolve().parents[2]


def test_arms_have_the_same_steps_and_differ_in_one_thing() -> None:
    recipes = {arm: recipe_of(arm, 30) for arm in ARMS}
    assert {recipe.steps for recipe in recipes.values()} == {30}
    assert [recipes["unified"].assess_weight > 0, recipes["restoration-alone"].assess_weight] == [True, 0]
    assert recipes["unified"].phases == recipes["restoration-alone"].phases
    assert [phase.start for phase in recipes["easy-to-hard"].phases] == [0, 10, 20]
    assert recipes["all-at-once"].phases[0].mixtures == recipes["easy-to-hard"].phases[-1].mixtures
    assert recipes["context-free"].phases == recipes["easy-to-hard"].phases


def test_without_a_verdict_the_context_has_the_same_form_and_follows_the_picture() -> None:
    free, guided = ContextFree(UARE_NANO), UareNano(UARE_NANO)
    views = torch.rand(2, 9, 3, 96, 96)
    with torch.inference_mode():
        (logits, context), (_, other) = free.assess(views), guided.assess(views)
    assert not logits.any()
    assert [context.k.shape, context.v.shape, context.vec.shape] == [other.k.shape, other.v.shape, other.vec.shape]
    assert not torch.equal(context.vec[0], context.vec[1])
    assert sum(p.numel() for p in free.parameters()) == sum(p.numel() for p in guided.parameters())


@pytest.mark.slow
def test_arms_are_trained_and_judged(photos: list[Path], tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "make_evalset.py"), photos[0].parent, tmp_path / "set"]
    subprocess.run([*map(str, command), "--size", "64", "--limit", "1"], check=True, capture_output=True)
    command = [sys.executable, str(ROOT / "benchmarks" / "ablations.py"), tmp_path / "set", "--data", photos[0].parent]
    arms = ["--arm", "easy-to-hard", "--arm", "context-free"]
    done = subprocess.run(
        [*map(str, command), *arms, "--steps", "1", "--limit", "1", "-o", str(tmp_path / "result.json")],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "result.json").read_bytes())["measured"]
    assert list(measured) == ["easy-to-hard", "context-free"]
    assert all(set(row["gain"]) == set(measured["context-free"]["gain"]) for row in measured.values())


def test_going_on_needs_weights(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "ablations.py"), tmp_path, "--data", tmp_path]
    done = subprocess.run([*map(str, command), "--arm", "unified"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "give --from" in done.stderr


@pytest.fixture
def photos(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "photos").glob("*.jpg"))
