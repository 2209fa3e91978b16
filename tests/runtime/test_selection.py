"""The fastest backend is measured once per machine, remembered, and measured again when the machine has changed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest

import uare_rt
from uare_rt import backends, selection
from uare_rt.backends.engine_cache import cache_directory
from uare_rt.bundle import Bundle
from uare_rt.errors import BackendError
from uare_rt.selection import candidates, fastest, remembered

if TYPE_CHECKING:
    from pathlib import Path

BOTH = [name for name in ("onnxruntime", "openvino") if backends.get(name).probe().available]
pytestmark = pytest.mark.skipif(len(BOTH) < 2, reason="needs onnxruntime and openvino")


@pytest.fixture
def bundle(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The tiny bundle, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(selection, "_SIDE", 64)
    monkeypatch.setattr(selection, "_ROUNDS", 2)
    return Bundle.open(tiny)


def test_it_is_measured_once(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    assert remembered(bundle) is None
    with caplog.at_level(logging.WARNING):
        choice = fastest(bundle)
        assert "measuring once" in caplog.text
        caplog.clear()
        assert fastest(bundle) == choice == remembered(bundle)
        assert not caplog.text
    assert (choice.backend, choice.threads) in candidates()
    assert choice.milliseconds > 0


def test_the_fastest_is_chosen(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    slow = backends.get("openvino").load

    def slowed(*args: object, **kwargs: object) -> object:
        executable = slow(*args, **kwargs)  # type: ignore[arg-type]
        run = executable.run
        executable.run = lambda inputs: (time.sleep(0.5), run(inputs))[1]  # type: ignore[method-assign]
        return executable

    monkeypatch.setattr(type(backends.get("openvino")), "load", lambda _, *a, **k: slowed(*a, **k))
    assert fastest(bundle).backend == "onnxruntime"


def test_another_machine_measures_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fastest(bundle)
    monkeypatch.setattr(selection, "cpu_model", lambda: "another processor")
    assert remembered(bundle) is None


def test_a_session_takes_the_choice(bundle: Bundle, rng: np.random.Generator) -> None:
    choice = fastest(bundle)
    with uare_rt.load(bundle.path, backend="fastest") as session:
        assert session.backend == choice.backend
        picture = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        assert session.restore(picture).image.shape == picture.shape


def test_what_is_remembered_may_be_damaged(bundle: Bundle) -> None:
    path = cache_directory().with_name("selection.json")
    path.parent.mkdir(parents=True)
    for content in ("{", "[]", '{"a": 1}'):
        path.write_text(content)
        assert remembered(bundle) is None
    assert fastest(bundle) == remembered(bundle)


def test_no_backend_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "candidates", list)
    with pytest.raises(BackendError, match=r"no backend of the processor.*doctor"):
        fastest(bundle)
