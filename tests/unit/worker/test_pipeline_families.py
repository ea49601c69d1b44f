"""Today's families on the engine `pipeline`: each picture is stock diffusers' own, at every size and guidance value, or
the request is refused with the reason. The transformer's passes are counted.
"""

import numpy as np
import pytest

from tests.unit.worker.families import (
    EMBEDDED,
    FACTORS,
    NO_NEGATIVE,
    QUIET,
    STEPS,
    TOLERANCE,
    WITHOUT,
    Family,
    by_stock,
    guided,
    job,
    kind,
    pixels,
    render,
)
from worker.engines.errors import Incapable

pytestmark = QUIET
SIZES = ((1080, 72), (72, 136))
"""64x64 is that of the tests of guidance."""
GUIDANCE = (0.0, 1.0, 7.0)
NEGATIVE = "grey and blue"


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_the_middle_of_stock_s_picture_at_the_next_larger(family: Family, size: tuple[int, int]) -> None:
    asked = job(width=size[0], height=size[1])
    (picture,) = render(family, asked)
    assert (picture.width, picture.height) == size
    factor = FACTORS.get(family.name, 16)
    assert (picture.made.width, picture.made.height) == tuple(-(-side // factor) * factor for side in size)
    difference = np.abs(pixels(picture) - by_stock(family, asked)).max()
    assert difference <= TOLERANCE


@pytest.mark.parametrize("scale", GUIDANCE)
@pytest.mark.parametrize("negative", ["", NEGATIVE])
def test_guidance_is_as_in_stock_or_refused(family: Family, scale: float, negative: str) -> None:
    asked = job(guidance_scale=scale, negative_prompt=negative)
    if negative and family.name in NO_NEGATIVE:
        with pytest.raises(Incapable, match="negative_prompt"):
            family.engine.key(asked)
        with pytest.raises(Incapable, match="negative_prompt"):
            family.engine.admit([asked])
        return
    family.engine.key(asked)
    (picture,) = render(family, asked)
    assert np.abs(pixels(picture) - by_stock(family, asked)).max() <= TOLERANCE
    steps = STEPS + (family.name == "sd")  # PLMS makes one more
    assert family.passes == steps * (2 if guided(family.name, scale) else 1)
    made = picture.made
    assert made.guidance == kind(family.name)
    assert made.guidance_scale == (scale if guided(family.name, scale) or family.name in EMBEDDED else 0.0)
    assert made.negative_prompt is (bool(negative) and guided(family.name, scale))


def test_guidance_values_make_different_pictures_where_there_is_guidance(family: Family) -> None:
    several = [render(family, job(guidance_scale=scale))[0].rgb for scale in (1.0, 3.0)]
    assert len(set(several)) == (1 if family.name in WITHOUT else 2)


def test_a_picture_does_not_depend_on_its_mates(family: Family) -> None:
    mates = [job(id="g/0"), job(id="g/1", prompt="x", seed=2), job(id="g/2", prompt="a long blue line " * 3, seed=3)]
    together = render(family, *mates)
    for mate, picture in zip(mates[1:], together[1:], strict=True):
        assert np.abs(pixels(picture) - pixels(render(family, mate)[0])).max() <= TOLERANCE
    assert len({picture.rgb for picture in together}) == 3
