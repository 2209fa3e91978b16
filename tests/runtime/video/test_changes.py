"""What changed since a part was computed."""

from __future__ import annotations

import numpy as np
import pytest

from uare_rt.video.changes import ChangeDetector
from uare_rt.video.regions import Box


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("box", [Box(0, 40, 8, 64), Box(24, 75, 40, 109), Box(0, 75, 0, 109)])
def test_a_computed_part_counts_from_then_on(box: Box, dtype: type[np.unsignedinteger]) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, np.iinfo(dtype).max + 1, (2, 75, 109, 3), dtype)  # sides that no block divides
    detector = ChangeDetector(refresh=80)
    detector.computed(first, None)
    detector.computed(second, (box,))
    mixed = first.copy()
    mixed[box.there()] = second[box.there()]
    same = detector.compare(mixed)
    assert same is not None
    assert same.exact
    assert not same.cells.any()
    # A detector that saw the mixture at once finds the same in another frame.
    other = ChangeDetector(refresh=80)
    other.computed(mixed, None)
    third = np.where(rng.random((75, 109, 1)) < 0.01, second, mixed)
    found, expected = detector.compare(third), other.compare(third)
    assert found is not None
    assert expected is not None
    assert np.array_equal(found.cells, expected.cells)
    assert np.array_equal(found.weights, expected.weights)
