"""Not enough memory is told before loading and before computing, in one line with a way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from uare_rt.errors import BackendError, UsageError
from uare_rt.model.checkpoint import load_unified
from uare_rt.model.memory import PLAIN, MemoryOptions, Sizes, check_loading, free_memory, loaded_bytes, require
from uare_rt.model.presets.uare_7b import UARE_7B
from uare_rt.model.unified import EMPTY

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"


def test_7b_on_24_gb_is_refused_with_what_would_fit() -> None:
    with pytest.raises(BackendError) as caught:
        check_loading(UARE_7B, PLAIN, Sizes(2, 4), 24_000_000_000, "BAGEL-7B-MoT")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("BAGEL-7B-MoT: not enough memory: its weights need 29.6 GB, but 24 GB are free; less is ")
    for way in (
        "weights='int8' 16.6 GB",
        "weights='int4' 10.2 GB",
        "residency='one' 28.4 GB",
        "stream_und_mlp 18.6 GB",
    ):
        assert way in message
    check_loading(UARE_7B, MemoryOptions("int8"), Sizes(2, 4), 24_000_000_000, "BAGEL-7B-MoT")
    check_loading(UARE_7B, PLAIN, Sizes(2, 4), None, "BAGEL-7B-MoT")


def test_float32_is_told_to_take_16_bit() -> None:
    with pytest.raises(BackendError, match=r"need 58.8 GB, .* with 16-bit weights 29.6 GB, "):
        check_loading(UARE_7B, PLAIN, Sizes(4, 4), 24_000_000_000, "DIR")


def test_where_nothing_helps_it_is_said() -> None:
    least = MemoryOptions("int4", residency="one", stream_und_mlp=True)
    with pytest.raises(BackendError, match="no option reduces it further"):
        check_loading(UARE_7B, least, Sizes(2, 4), 1_000_000_000, "DIR")


def test_loading_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uare_rt.model.checkpoint.free_memory", lambda _: 100_000)
    monkeypatch.setattr("uare_rt.model.checkpoint.Checkpoint.fill", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(BackendError, match=r"mot-tiny: not enough memory: its weights need .* but 0.0001 GB are free"):
        load_unified(TINY)


@pytest.mark.parametrize("options", [MemoryOptions("int8"), MemoryOptions("int4"), MemoryOptions(residency="encoders")])
def test_every_option_reduces_what_is_needed(options: MemoryOptions) -> None:
    assert loaded_bytes(UARE_7B, options, Sizes()) < loaded_bytes(UARE_7B, PLAIN, Sizes())


def test_the_memory_that_is_left_bounds_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = load_unified(TINY)
    monkeypatch.setattr("uare_rt.model.memory.free_memory", lambda _: 1000)
    monkeypatch.setattr("uare_rt.vlm.memory.SMALL", 0)
    with pytest.raises(BackendError, match=r"encoding a picture of 96x80 px needs about .* set tile"):
        model.codec.encode(torch.zeros(3, 80, 96))
    with pytest.raises(BackendError, match=r"decoding a picture of 96x80 px needs about .* set tile"):
        model.codec.decode(torch.zeros(4, 10, 12))
    model.codec.tile = 64
    with pytest.raises(BackendError, match=r"give a smaller tile than 64 px"):
        model.codec.decode(torch.zeros(4, 10, 12))
    with pytest.raises(BackendError, match=r"reading 5 tokens needs about .* but 1e-06 GB are free; use a smaller"):
        model.extend(EMPTY, [model.text_block([1, 2, 3])])


def test_small_steps_do_not_ask_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uare_rt.model.memory.free_memory", lambda _: pytest.fail("asked"))
    require("a word", 1e6, torch.device("cpu"), "")


def test_this_machine_has_memory() -> None:
    assert free_memory("cpu") > 1_000_000
    assert free_memory("meta") is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "int2"}, "weights is 'int2', but must be one of same, int8, int4"),
        ({"cache": "int4"}, "cache is 'int4', but must be one of same, fp16, int8"),
        ({"residency": "none"}, "residency is 'none', but must be one of all, encoders, one"),
        ({"tile": 0}, "tile is 0 px"),
    ],
)
def test_options_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MemoryOptions(**settings)
