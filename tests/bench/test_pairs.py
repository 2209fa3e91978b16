"""Interleaving, ratios and fronts: what the figures of a benchmark rest on."""

from __future__ import annotations

import time

import pytest

from uare_rt.bench.limits import Probe
from uare_rt.bench.pairs import interleaved, ratio
from uare_rt.bench.plots import front


def test_subjects_take_turns() -> None:
    order: list[str] = []
    told: list[tuple[int, int]] = []
    samples = interleaved(
        {name: lambda name=name: order.append(name) for name in "abc"},  # type: ignore[misc]
        rounds=3,
        warm_up=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert order == list("abc") * 5
    assert told == [(turn, 5) for turn in range(1, 6)]
    assert all(len(sample.wall) == len(sample.cpu) == 3 for sample in samples.values())


def test_a_subject_may_time_itself() -> None:
    samples = interleaved({"own": lambda: 2.5, "ours": lambda: time.sleep(0.02)}, rounds=2)
    assert samples["own"].wall == (2.5, 2.5)
    assert samples["ours"].median >= 0.02
    assert sum(samples["ours"].cpu) < sum(samples["ours"].wall)  # sleeping takes no processor time


def test_ratios_are_of_the_same_round() -> None:
    # A machine ten times slower in one round: the ratio stays 2, the ratio of sums would too, that of medians not.
    assert ratio([2.0, 20.0, 4.0, 2.0], [1.0, 10.0, 2.0, 1.0]) == pytest.approx(2)


def test_the_front_holds_what_nothing_beats() -> None:
    marks = [
        ("slow", 9.0, 31.0),
        ("fast", 1.0, 20.0),
        ("beaten", 5.0, 19.0),
        ("middle", 4.0, 30.0),
        ("same", 4.0, 29.0),
    ]
    assert [name for name, _, _ in front(marks)] == ["fast", "middle", "slow"]


def test_the_probe_times_what_it_is_asked() -> None:
    with Probe(1) as probe:
        assert 0 < probe.gemm() < 60
        assert 0 < probe.copy() < 60
