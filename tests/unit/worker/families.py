"""Each of today's families with tiny weights: on the engine `pipeline`, and as stock diffusers has it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import tiny_families
from worker.engines.base import Bounds, WeightSource
from worker.engines.contract import Picture, RenderJob
from worker.engines.devices import Device
from worker.engines.pipeline.engine import PipelineEngine

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
QUIET = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
"""For modules: what the libraries say at loading is not asked about here."""


@dataclass(kw_only=True)
class Family:
    """An engine, and the same weights as stock diffusers has them. `passes`: images through the engine's denoiser."""

    name: str
    folder: Path
    engine: PipelineEngine
    stock: Any
    passes: int = 0
    drawn: dict[RenderJob, Pixels] = field(default_factory=dict)
    """Stock's pictures."""

    def count(self, _: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        sample = next(iter(args), None)
        for each in ("hidden_states", "sample", "x"):
            sample = kwargs.get(each, sample)
        self.passes += len(sample)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a family's folder once in a session."""

    @cache
    def of(name: str) -> Path:
        return tiny_families.build(name, tmp_path_factory.mktemp("family") / name)

    return of


@pytest.fixture(scope="module", params=tiny_families.FAMILIES)
def family(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]) -> Iterator[Family]:
    """Each family in turn, loaded."""
    from diffusers import DiffusionPipeline

    folder = family_folder(request.param)
    engine = PipelineEngine(
        WeightSource(model="m", source=str(folder)),
        Device(name="cpu", threads=1),
        bounds=Bounds(max_width=2048, max_height=1024),
    )
    engine.load()
    stock = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    made = Family(name=request.param, folder=folder, engine=engine, stock=stock)
    inside = engine._pipeline
    denoiser = getattr(inside, "transformer", None) or inside.unet
    denoiser.register_forward_pre_hook(made.count, with_kwargs=True)
    yield made
    engine.unload()


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


def render(family: Family, *jobs: RenderJob) -> list[Picture]:
    family.passes = 0
    family.engine.admit(jobs)
    finished = family.engine.step(lambda _: None).finished
    assert [done.job_id for done in finished] == [each.id for each in jobs]
    return [family.engine.decode(done) for done in finished]


def pixels(picture: Picture) -> Pixels:
    return np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3).astype(np.int16)


def by_stock(family: Family, asked: RenderJob) -> Pixels:
    """Stock's picture at the enlarged size, cut to the middle; guidance where this pipeline has it."""
    if family.name in WITHOUT:
        asked = replace(asked, guidance_scale=0.0)
    if asked not in family.drawn:
        family.drawn[asked] = _by_stock(family, asked)
    return family.drawn[asked]


def _by_stock(family: Family, asked: RenderJob) -> Pixels:
    import torch

    factor = FACTORS.get(family.name, 16)
    width, height = (-(-side // factor) * factor for side in (asked.width, asked.height))
    given: dict[str, Any] = {} if family.name in WITHOUT else {"guidance_scale": asked.guidance_scale}
    if family.name == "qwen-image":
        given = {"true_cfg_scale": asked.guidance_scale, "negative_prompt": asked.negative_prompt}
    elif asked.negative_prompt:
        given["negative_prompt"] = asked.negative_prompt
    if family.name in ("pixart-alpha", "pixart-sigma", "sana"):
        given["use_resolution_binning"] = False
    result = family.stock(
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


def kind(name: str) -> str:
    if name in EMBEDDED:
        return "embedded"
    return "none" if name in WITHOUT else "true" if name == "qwen-image" else "cfg"
