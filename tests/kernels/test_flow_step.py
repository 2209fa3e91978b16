"""One step of the flow: guidance, limits and update as the model computes them one by one."""

from __future__ import annotations

import pytest
import torch
from harness import DTYPES, TARGET, Memory, as_good_as, doubles

from uare_rt.errors import UsageError
from uare_rt.kernels import flow_step
from uare_rt.kernels.tiles import Tile
from uare_rt.model.flow import Guidance, guide


@pytest.mark.parametrize("renorm", flow_step.RENORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "width", "image"), [(37, 64, True), (5, 20, False)])
def test_a_guided_step(renorm: str, dtype: torch.dtype, tokens: int, width: int, image: bool) -> None:
    memory = Memory()
    x = memory.normal(tokens, width, dtype=torch.float32)
    main, text_free, image_free = (memory.normal(tokens, width, dtype=dtype) for _ in range(3))
    settings = {"text_scale": 4.0, "image_scale": 2.0, "renorm": renorm, "renorm_min": 0.3}
    arguments = (x, main, text_free, image_free if image else None)
    tile = Tile({"ROWS": 8}, 4, 1)
    moved, velocity = flow_step.run(*arguments, step=0.04, **settings, target=TARGET, tile=tile)
    wide = doubles((x, main, text_free, image_free))
    exact = flow_step.reference(*wide[:3], wide[3] if image else None, step=0.04, **settings)
    own = flow_step.reference(*arguments, step=0.04, **settings)
    assert as_good_as(moved, own[0], exact[0])
    assert as_good_as(velocity, own[1], exact[1])
    guided = guide(wide[1], wide[2], wide[3] if image else None, Guidance(**settings))
    assert torch.allclose(exact[1], guided)
    assert memory.intact()


def test_many_blocks_share_one_global_limit() -> None:
    memory = Memory()
    x, main, text_free = (memory.normal(301, 16, dtype=torch.float32) for _ in range(3))
    options = {"step": 0.1, "text_scale": 3.0}
    moved, _ = flow_step.run(x, main, text_free, None, **options, target=TARGET, tile=Tile({"ROWS": 2}, 1, 1))
    assert torch.allclose(moved, flow_step.reference(x, main, text_free, None, **options)[0], atol=1e-5)


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    x = torch.zeros(4, 16)
    with pytest.raises(UsageError, match="flow step: x's dtype is float16, but must be float32"):
        flow_step.run(x.half(), x, x, None, step=0.1, text_scale=2.0, target=TARGET)
    with pytest.raises(UsageError, match=r"flow step: text_free's shape is \[3, 16\], but must be \[4, 16\]"):
        flow_step.run(x, x, x[:3], None, step=0.1, text_scale=2.0, target=TARGET)
    with pytest.raises(UsageError, match="flow step: renorm is 'local', but must be one of global, channel"):
        flow_step.run(x, x, x, None, step=0.1, text_scale=2.0, renorm="local", target=TARGET)
