"""Each picture is the one that was asked for: what the bare diffusers pipeline gives for that prompt, spec and seed."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import tiny_pipeline
from tests.api import CANARY, Body
from tests.e2e import invariants
from tests.stack import Stack

TENANTS = [f"tenant-{number}" for number in range(10)]
TOLERANCE = 2
ENGINES = ["latent", "pipeline"]
"""The same weights behind each."""
Pixels = npt.NDArray[np.int16]

MODELS = """
[[models]]
name = "{engine}"
engine = "{engine}"
source = "{source}"
width = 64
height = 64
num_inference_steps = 2
guidance_scale = 3.5
max_width = 128
max_height = 128
max_batch = 8
device = "cpu"
"""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, pipeline_folder: Path) -> Iterator[Stack]:
    models = "".join(MODELS.format(engine=engine, source=pipeline_folder) for engine in ENGINES)
    env = {"DARKROOM_WORKER_TORCH_THREADS": "1", "OMP_NUM_THREADS": "1", "DARKROOM_WORKER_MODELS_LOADED": "2"}
    folder = tmp_path_factory.mktemp("content")
    with Stack(folder, models=models, env=env, tenants=TENANTS, visibility_s=20) as stack:
        yield stack


def asked(count: int) -> list[tuple[str, Body]]:
    """Mixed in every way that a batch may mix, and in some that it may not."""
    draw = random.Random(4)
    words = ["red", "green", "blue", "circle", "square", "tree"]
    return [
        (
            TENANTS[number % len(TENANTS)],
            {
                "model": draw.choice(ENGINES),
                "prompt": f"{number} {draw.choice(words)} {draw.choice(words)} {CANARY}",
                "negative_prompt": draw.choice(["", f"small {CANARY}"]),
                "n": 1 + number % 4,
                "seed": draw.randrange(2**32),
                "height": draw.choice([64, 64, 64, 72]),
                "num_inference_steps": draw.choice([2, 2, 2, 3]),
                "guidance_scale": draw.choice([3.5, 3.5, 1.0]),
            },
        )
        for number in range(count)
    ]


def bare(pipeline: Any, body: Body) -> list[Pixels]:
    """The pictures of one generation by diffusers alone, one by one: no batch, no mates."""
    import torch

    pictures = []
    for index in range(body["n"]):
        result = pipeline(
            prompt=body["prompt"],
            negative_prompt=body["negative_prompt"],
            width=64,
            height=body["height"],
            num_inference_steps=body["num_inference_steps"],
            guidance_scale=body["guidance_scale"],
            generator=torch.Generator("cpu").manual_seed((body["seed"] + index) % 2**32),
            output_type="np",
        )
        pictures.append((result.images[0] * 255).round().astype(np.int16))
    return pictures


def test_a_hundred_mixed_generations_show_what_the_bare_pipeline_shows(stack: Stack, pipeline_folder: Path) -> None:
    import torch
    from diffusers import DiffusionPipeline

    torch.set_num_threads(1)
    wanted = asked(100)
    ids: list[str] = []
    for tenant, body in wanted:
        ids.append(stack.client(tenant).submit(**body)["id"])

    pipeline = DiffusionPipeline.from_pretrained(pipeline_folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    expected = [bare(pipeline, body) for _, body in wanted]  # while the worker renders the same

    for tenant in TENANTS:
        mine = [each for (whose, _), each in zip(wanted, ids, strict=True) if whose == tenant]
        stack.client(tenant).succeeded(mine, 90)
    shown = {
        (number, index): pixels(stack, tenant, generation_id, index)
        for number, ((tenant, body), generation_id) in enumerate(zip(wanted, ids, strict=True))
        for index in range(body["n"])
    }
    assert len(shown) == 250
    for (number, index), picture in shown.items():
        assert difference(picture, expected[number][index]) <= TOLERANCE, f"{wanted[number]} image {index}"
    everything = [picture for pictures in expected for picture in pictures]
    for (number, index), picture in shown.items():
        like = sum(difference(picture, each) <= TOLERANCE for each in everything if each.shape == picture.shape)
        assert like == 1, f"{wanted[number]} image {index} looks like {like} of them"
    assert max(start.batch_size for start in invariants.starts(stack)) > 4, "nothing was batched"
    invariants.check(stack)


def pixels(stack: Stack, tenant: str, generation_id: str, index: int) -> Pixels:
    picture = invariants.decoded(stack.client(tenant).picture(generation_id, index).body)
    return np.asarray(picture.convert("RGB"), dtype=np.int16)


def difference(one: Pixels, other: Pixels) -> int:
    """The largest difference of any channel of any pixel, of 255."""
    return int(np.abs(one - other).max()) if one.shape == other.shape else 255
