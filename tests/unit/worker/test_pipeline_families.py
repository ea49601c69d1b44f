"""Today's families on the engine `pipeline`: each picture is stock diffusers' own, at every size and guidance value, or
the request is refused with the reason. The transformer's passes are counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import tiny_families
from worker.engines import capabilities
from worker.engines.contract import Picture, Progress, RenderJob
from worker.engines.pipeline import PipelineEngine
from worker.errors import Incapable

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

Pixels = npt.NDArray[np.int16]
STEPS = 2
TOLERANCE = 2
FACTORS = {"sd": 8, "sdxl": 8, "lcm": 8, "sana": 32}
"""Pixels that sides are multiples of; 16 for the others."""
OFF = {"z-image": 0.0, "krea-2": 0.0}
"""The largest guidance value without a second pass; 1 for the others."""
EMBEDDED = ("flux", "lcm")
WITHOUT = ("schnell", "klein-distilled")
NO_NEGATIVE = (*EMBEDDED, *WITHOUT, "klein")
SIZES = ((1080, 72), (72, 136), (64, 64))
GUIDANCE = (0.0, 1.0, 7.0)
NEGATIVE = "grey and blue"


@dataclass(kw_only=True)
class Rig:
    """An engine, and the same weights as stock diffusers has them. `passes`: images through the engine's denoiser."""

    name: str
    engine: PipelineEngine
    stock: Any
    passes: int = 0

    def count(self, _: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        sample = next(iter(args), None)
        for each in ("hidden_states", "sample", "x"):
            sample = kwargs.get(each, sample)
        self.passes += len(sample)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def of(name: str) -> Path:
        return tiny_families.build(name, tmp_path_factory.mktemp("family") / name)

    return of


@pytest.fixture(scope="module", params=tiny_families.FAMILIES)
def rig(request: pytest.FixtureRequest, folders: Any) -> Iterator[Rig]:
    from diffusers import DiffusionPipeline

    folder = folders(request.param)
    made = PipelineEngine(model="m", source=str(folder), device="cpu", torch_threads=1, max_width=2048)
    made.load()
    stock = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    rig = Rig(name=request.param, engine=made, stock=stock)
    inside = made._pipeline
    denoiser = getattr(inside, "transformer", None) or inside.unet
    denoiser.register_forward_pre_hook(rig.count, with_kwargs=True)
    yield rig
    made.unload()


def job(**more: Any) -> RenderJob:
    fields: dict[str, Any] = {
        "id": "g/0",
        "model": "m",
        "width": 64,
        "height": 64,
        "num_inference_steps": STEPS,
        "guidance_scale": 7.0,
        "seed": 11,
        "prompt": "a red circle",
    }
    return RenderJob(**{**fields, **more})


def render(rig: Rig, *jobs: RenderJob) -> list[Picture]:
    rig.passes = 0
    rig.engine.admit(jobs)
    finished = rig.engine.step(lambda _: None).finished
    assert [done.job_id for done in finished] == [each.id for each in jobs]
    return [rig.engine.decode(done) for done in finished]


def pixels(picture: Picture) -> Pixels:
    return np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3).astype(np.int16)


def by_stock(rig: Rig, asked: RenderJob) -> Pixels:
    """Stock's picture at the enlarged size, cut to the middle; guidance where this pipeline has it."""
    import torch

    factor = FACTORS.get(rig.name, 16)
    width, height = (-(-side // factor) * factor for side in (asked.width, asked.height))
    given: dict[str, Any] = {} if rig.name in WITHOUT else {"guidance_scale": asked.guidance_scale}
    if rig.name == "qwen-image":
        given = {"true_cfg_scale": asked.guidance_scale, "negative_prompt": asked.negative_prompt}
    elif asked.negative_prompt:
        given["negative_prompt"] = asked.negative_prompt
    if rig.name in ("pixart-alpha", "pixart-sigma", "sana"):
        given["use_resolution_binning"] = False
    result = rig.stock(
        prompt=asked.prompt,
        width=width,
        height=height,
        num_inference_steps=asked.num_inference_steps,
        generator=torch.Generator("cpu").manual_seed(asked.seed),
        output_type="np",
        **given,
    )
    image = (result.images[0] * 255).round().astype(np.int16)
    assert image.shape == (height, width, 3)
    top, left = (height - asked.height) // 2, (width - asked.width) // 2
    middle: Pixels = image[top : top + asked.height, left : left + asked.width]
    return middle


def guided(name: str, scale: float) -> bool:
    return name not in (*EMBEDDED, *WITHOUT) and scale > OFF.get(name, 1.0)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_the_middle_of_stock_s_picture_at_the_next_larger_one(rig: Rig, size: tuple[int, int]) -> None:
    asked = job(width=size[0], height=size[1])
    (picture,) = render(rig, asked)
    assert (picture.width, picture.height) == size
    factor = FACTORS.get(rig.name, 16)
    assert (picture.made.width, picture.made.height) == tuple(-(-side // factor) * factor for side in size)
    difference = np.abs(pixels(picture) - by_stock(rig, asked)).max()
    assert difference <= TOLERANCE


@pytest.mark.parametrize("scale", GUIDANCE)
@pytest.mark.parametrize("negative", ["", NEGATIVE])
def test_guidance_is_as_in_stock_or_refused(rig: Rig, scale: float, negative: str) -> None:
    asked = job(guidance_scale=scale, negative_prompt=negative)
    if negative and rig.name in NO_NEGATIVE:
        with pytest.raises(Incapable, match="negative_prompt"):
            rig.engine.key(asked)
        with pytest.raises(Incapable, match="negative_prompt"):
            rig.engine.admit([asked])
        return
    rig.engine.key(asked)
    (picture,) = render(rig, asked)
    assert np.abs(pixels(picture) - by_stock(rig, asked)).max() <= TOLERANCE
    steps = STEPS + (rig.name == "sd")  # PLMS makes one more
    assert rig.passes == steps * (2 if guided(rig.name, scale) else 1)
    made = picture.made
    assert made.guidance == kind(rig.name)
    assert made.guidance_scale == (scale if guided(rig.name, scale) or rig.name in EMBEDDED else 0.0)
    assert made.negative_prompt is (bool(negative) and guided(rig.name, scale))


def kind(name: str) -> str:
    if name in EMBEDDED:
        return "embedded"
    return "none" if name in WITHOUT else "true" if name == "qwen-image" else "cfg"


def test_guidance_values_make_different_pictures_where_there_is_guidance(rig: Rig) -> None:
    several = [render(rig, job(guidance_scale=scale))[0].rgb for scale in (1.0, 3.0, 9.0)]
    assert len(set(several)) == (1 if rig.name in WITHOUT else 3)


def test_a_picture_does_not_depend_on_its_mates(rig: Rig) -> None:
    mates = [job(id="g/0"), job(id="g/1", prompt="x", seed=2), job(id="g/2", prompt="a long blue line " * 3, seed=3)]
    together = render(rig, *mates)
    for mate, picture in zip(mates, together, strict=True):
        assert np.abs(pixels(picture) - pixels(render(rig, mate)[0])).max() <= TOLERANCE
    assert len({picture.rgb for picture in together}) == 3


def test_every_step_is_reported_and_a_cancel_is_heard_at_one(rig: Rig) -> None:
    told: list[int] = []

    def heard(progress: Progress) -> None:
        told.extend(progress.steps.values())
        if told and max(told) == 3:
            rig.engine.evict("g/0")

    rig.engine.admit([job(num_inference_steps=4)])
    stepped = rig.engine.step(heard)
    assert (list(stepped.evicted), list(stepped.finished)) == (["g/0"], [])
    assert told == [1, 2, 3]
    told.clear()
    rig.engine.admit([job(id="g/1", num_inference_steps=2)])
    assert [done.job_id for done in rig.engine.step(heard).finished] == ["g/1"]
    assert told[-1] == 2


def test_there_are_signs_of_life_before_the_first_step_and_after_the_last(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engines.signs._EVERY_S", 0.0)
    told: list[int] = []
    rig.engine.admit([job()])
    rig.engine.step(lambda progress: told.append(max(progress.steps.values(), default=0)))
    at_steps = [place for place, step in enumerate(told) if step]
    assert at_steps[0] > 0, "none while texts are encoded and within the first step"
    assert at_steps[-1] < len(told) - 1, "none while the picture is decoded"
    assert len(told) > 2 * STEPS + 2
    told.clear()
    rig.engine.admit([job()])

    def unwanted(progress: Progress) -> None:
        told.append(len(progress.steps))
        rig.engine.evict("g/0")

    assert list(rig.engine.step(unwanted).evicted) == ["g/0"]
    assert told == [0], "it is left at the first sign, before any step"


def test_each_scheduler_that_it_names_makes_a_picture_of_its_own(rig: Rig) -> None:
    names = capabilities.of_pipeline(rig.stock).schedulers
    assert all(name.startswith("flow_") for name in names) == (
        rig.name not in ("sd", "sdxl", "pixart-alpha", "pixart-sigma")
    )
    used = set()
    for name in names:
        (picture,) = render(rig, job(scheduler=name, num_inference_steps=3))
        used.add(picture.scheduler)
        assert picture.rgb != bytes(len(picture.rgb))
    assert len(used) == len(names)
    with pytest.raises(Incapable, match="scheduler") as refused:
        rig.engine.key(job(scheduler="ddim" if "ddim" not in names else "flow_euler"))
    assert all(name in str(refused.value) for name in names)


def test_the_folder_tells_the_same_as_the_loaded_model(rig: Rig, folders: Any) -> None:
    seen = capabilities.inspect(str(folders(rig.name)))
    assert seen == capabilities.of_pipeline(rig.stock)
    assert seen is not None
    assert rig.engine.facts.abilities == seen.abilities()
    looked = PipelineEngine(model="m", source=str(folders(rig.name)))
    looked.look()
    assert looked.facts.abilities == rig.engine.facts.abilities
    assert not looked.loaded


@pytest.mark.parametrize("rig", ["lcm"], indirect=True)
def test_a_consistency_model_takes_no_more_steps_than_its_scheduler_has(rig: Rig) -> None:
    render(rig, job(num_inference_steps=50))
    with pytest.raises(Incapable, match="at most 50"):
        rig.engine.key(job(num_inference_steps=51))


@pytest.mark.parametrize("rig", ["sdxl"], indirect=True)
def test_what_its_own_checks_refuse_is_refused_once_and_before_any_step(rig: Rig) -> None:
    known = rig.engine._asked
    assert known is not None
    rig.engine._asked = replace(known, size_factor=1)  # as a rule that does not know this model would have it
    rig.passes = 0
    try:
        rig.engine.admit([job(width=68)])
        with pytest.raises(Incapable, match="divisible by 8"):
            rig.engine.step(lambda _: None)
    finally:
        rig.engine.reset()
        rig.engine._asked = known
    assert rig.passes == 0
