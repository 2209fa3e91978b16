"""Large images: 50 megapixels within 1.5 GB, and tiles that change nothing on 2 megapixels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from uare_rt.tiling import smallest_tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt import Session

pytestmark = pytest.mark.slow

_RESTORE = """
import sys
from pathlib import Path
from uare_rt.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
status = Path("/proc/self/status").read_text()
print("peak", next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux")
def test_fifty_megapixels_stay_within_a_gigabyte_and_a_half(
    bundle_path: Path, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    source, target = tmp_path / "large.jpg", tmp_path / "restored.jpg"
    Image.fromarray(photo).resize((8192, 6144), Image.Resampling.BICUBIC).save(source, quality=90)
    done = subprocess.run(
        [sys.executable, "-c", _RESTORE, "restore", source, "-o", target, "--bundle", bundle_path],
        check=True,
        capture_output=True,
        text=True,
    )
    with Image.open(target) as restored:
        assert restored.size == (8192, 6144)
    peak = int(done.stdout.rsplit("peak ", 1)[1]) * 1024
    assert peak <= 1.5e9


def test_tiles_change_nothing_on_two_megapixels(session: Session, photo: NDArray[np.uint8]) -> None:
    image = np.asarray(Image.fromarray(photo).resize((1633, 1225), Image.Resampling.BICUBIC))
    context = session.assess(image).context
    whole = session.restore(image, context=context, tile=4096)
    tiled = session.restore(image, context=context, tile=smallest_tile(session.manifest.tiling))
    assert (whole.tiles, tiled.tiles > 4) == (1, True)
    inside = np.s_[32:-32, 32:-32]
    assert np.abs(whole.image[inside].astype(np.int16) - tiled.image[inside]).max() <= 1
