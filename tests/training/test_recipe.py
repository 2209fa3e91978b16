"""Recipes: what is refused when they are read, and the schedule they give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from uare_rt.errors import InputError, UsageError
from uare_rt.training.recipe import load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[..., Path]


def test_every_recipe_of_the_package_can_be_read() -> None:
    with pytest.raises(InputError, match=r"no-such: no such recipe file.*nano-first"):
        load_recipe("no-such")
    recipe = load_recipe("nano-first")
    assert recipe.preset == "uare-nano"
    assert load_recipe("nano-first", 7).steps == 7


def one_mixture(**fields: object) -> list[dict[str, object]]:
    return [{"start": 0, "mixtures": [{"min_count": 1, "max_count": 1, **fields}]}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learing_rate": 1}, "unknown field `learing_rate`"),
        ({"clip": None}, "missing required field `clip`"),
        ({"steps": "many"}, "Expected `int`.*steps"),
        ({"preset": "uare-7b"}, "preset 'uare-7b' cannot be trained"),
        ({"steps": 0}, "steps is 0, expected 1"),
        ({"floor_steps": 0}, "floor_steps is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"ema": 1.5}, "ema is 1.5, expected 0 to 1"),
        ({"photo_scale": 0.0}, "photo_scale is 0.0"),
        ({"mse_floor": [0.002, 0.0]}, "mse_floor .* stay above 0"),
        ({"mse_floor": [0.002]}, "length 2"),
        ({"scales": {3: {"weight": 1, "region": 64, "size": 32, "batch": 1}}}, r"scales \[3\] must be among 1, 2, 4"),
        ({"scales": {}}, "scales"),
        (
            {"scales": {1: {"weight": 1, "region": 64, "size": 40, "batch": 1}}},
            "size 40 of scale 1 must be a multiple of 16",
        ),
        ({"scales": {1: {"weight": 1, "region": 64, "size": 32, "batch": 0}}}, "scale 1 needs a batch of at least 1"),
        ({"scales": {1: {"weight": 0, "region": 64, "size": 32, "batch": 1}}}, "no scale has a weight"),
        ({"scales": {1: {"weight": 1, "region": 64, "size": 32, "batch": 1, "shape": 2}}}, "unknown field `shape`"),
        ({"scales": {1: {"weight": 1, "region": 16, "size": 32, "batch": 1}}}, "region 16 no smaller"),
        ({"assess_regions": []}, "assess_regions"),
        ({"phases": [{**one_mixture()[0], "assess_batch": -1}]}, "assess_batch of the phase at step 0 is -1"),
        ({"phases": [{**one_mixture()[0], "assess_batch": 1}]}, "assessment of the phase at step 0: weights"),
        ({"phases": []}, "first phase must start at step 0"),
        ({"phases": [{"start": 2, "mixtures": [{"min_count": 1, "max_count": 1}]}]}, "must start at step 0"),
        ({"phases": [{"start": 0, "mixtures": []}]}, "at least one above 0"),
        ({"phases": one_mixture(colour=1)}, "phase at step 0, mixture 1: .*colour"),
        ({"phases": one_mixture(kinds={"rain": 1})}, "unknown degradations rain"),
        ({"phases": one_mixture(severity=[0.5, 2])}, "mixture 1: severity range"),
        ({"phases": one_mixture(severity="high")}, "mixture 1"),
        ({"phases": one_mixture(weight=-1)}, "weights must be 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_before_work(
    write_recipe: Write, changes: dict[str, object], message: str
) -> None:
    path = write_recipe(**changes)
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_faults_are_told_at_once(write_recipe: Write) -> None:
    with pytest.raises(UsageError, match=r"ema is 2.*clip is 0|clip is 0.*ema is 2"):
        load_recipe(write_recipe(ema=2, clip=0))


@pytest.mark.parametrize("content", [b"steps: [1, 2\n", b"\tsteps: 1\n", b"\xff\xfe\x00x", b"a: b: c\n"])
def test_what_is_no_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not readable as YAML") as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "just text\n", "- 1\n- 2\n"])
def test_yaml_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match="Expected `object`"):
        load_recipe(path)


def test_the_rate_rises_stays_and_falls(write_recipe: Write) -> None:
    recipe = load_recipe(write_recipe(steps=20, warmup_steps=4, decay_steps=5, learning_rate=1.0))
    assert [recipe.rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert {recipe.rate(step) for step in range(4, 16)} == {1.0}
    assert [recipe.rate(step) for step in range(16, 21)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


def test_runs_of_different_length_agree_until_one_decays(write_recipe: Write) -> None:
    path = write_recipe(warmup_steps=4, decay_steps=5)
    short, long = load_recipe(path, 20), load_recipe(path, 50)
    assert short.digest() == long.digest()
    assert [short.rate(s) for s in range(16)] == [long.rate(s) for s in range(16)]
    assert load_recipe(write_recipe(warmup_steps=4, decay_steps=5, seed=6), 20).digest() != short.digest()


def test_the_floor_falls_geometrically(write_recipe: Write) -> None:
    recipe = load_recipe(write_recipe(mse_floor=[0.01, 0.0001], floor_steps=10))
    assert [recipe.floor(s) for s in (0, 5, 10, 99)] == pytest.approx([0.01, 0.001, 0.0001, 0.0001])


def test_the_phase_is_the_last_that_has_begun(write_recipe: Write) -> None:
    recipe = load_recipe(write_recipe())
    assert [recipe.phase(step).start for step in range(5)] == [0, 0, 0, 3, 3]


def test_a_tail_begins_again_lower_and_leaves_what_was_before(write_recipe: Write) -> None:
    fields = {"warmup_steps": 4, "decay_steps": 5, "learning_rate": 1.0}
    plain = load_recipe(write_recipe(steps=20, **fields))
    tailed = load_recipe(write_recipe(steps=24, tail_steps=4, tail_rate=0.4, **fields))
    assert [tailed.rate(step) for step in range(20)] == [plain.rate(step) for step in range(20)]
    assert [tailed.rate(step) for step in range(20, 25)] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])
