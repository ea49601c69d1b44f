"""The committed model: it loads anywhere, in silence, and its pictures are what their prompts ask for."""

import json
import subprocess
import sys
from collections import Counter
from random import Random
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from worker.demo_model.checker import describe, read_image
from worker.demo_model.evaluate import held_out_prompts, judge, load, render, summary
from worker.demo_model.export import DEFAULTS_FILE, WEIGHTS, revision_of
from worker.demo_model.vae import pictures
from worker.demo_model.world import PIXELS

HARMLESS = (
    "Loading ",  # progress bars
    "requires torchvision (not installed)",  # transformers, on being imported; nothing of ours reads pictures with it
    "Expected types for vae",  # diffusers says so of every pipeline that holds one of its own tiny autoencoders
)
LOADING = """
import os, socket, sys
os.environ["HF_HUB_OFFLINE"] = "1"
def refuse(*arguments, **options): raise OSError("no network in this test")
socket.socket.connect = refuse
from diffusers import DiffusionPipeline
sys.stderr.write("LOADING\\n")
pipeline = DiffusionPipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
pipeline("a red star", num_inference_steps=2, guidance_scale=3.0)
sys.stderr.write("LOADED " + type(pipeline).__name__)
"""


# torch 2.13's tensors do not know numpy 2's `copy`; diffusers' schedulers make arrays of them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def pipeline() -> DiffusionPipeline:
    loaded, _ = load(WEIGHTS)
    return loaded


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((WEIGHTS / DEFAULTS_FILE).read_text())
    return found


def test_loads_with_stock_diffusers_without_network_and_without_warnings() -> None:
    output = subprocess.run(  # a process of its own: nothing is loaded or silenced beforehand
        [sys.executable, "-c", LOADING, str(WEIGHTS)], capture_output=True, text=True, check=True
    )
    loading = output.stderr.split("LOADING\n")[1]
    lines = [line for line in loading.replace("\r", "\n").splitlines() if line.strip()]
    said = [line for line in lines if not any(note in line for note in HARMLESS)]
    assert said == ["LOADED StableDiffusionPipeline"], loading


def test_weighs_no_more_than_promised() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 16 * 2**20


def test_declares_its_own_defaults(defaults: dict[str, Any]) -> None:
    assert set(defaults) == {
        "default_num_inference_steps",
        "default_guidance_scale",
        "width",
        "height",
        "revision",
    }
    assert defaults["revision"] == revision_of(WEIGHTS)


def test_held_out_prompts_give_right_pictures(pipeline: DiffusionPipeline, defaults: dict[str, Any]) -> None:
    steps, guidance = int(defaults["default_num_inference_steps"]), defaults["default_guidance_scale"]
    trials = judge(pipeline, held_out_prompts(24, seed=7), batch=8, steps=steps, guidance=guidance)
    found = summary(trials)
    wrong = Counter(name for trial in trials for name in trial.misses)
    assert found["background"] >= 0.95, wrong
    assert found["colour"] >= 0.9, wrong
    assert found["position"] >= 0.9, wrong
    assert found["size"] >= 0.85, wrong
    assert found["shape"] >= 0.8, wrong


def test_swapped_pictures_would_be_noticed(pipeline: DiffusionPipeline, defaults: dict[str, Any]) -> None:
    prompts = ["a large red circle on a white background", "a medium blue cross on the left on a yellow background"]
    steps, guidance = int(defaults["default_num_inference_steps"]), defaults["default_guidance_scale"]
    pictures = render(pipeline, prompts, seed=3, steps=steps, guidance=guidance)
    readings = [read_image(picture) for picture in pictures]
    for prompt, own, other in zip(prompts, readings, reversed(readings), strict=True):
        assert describe(prompt).misses(own) == ()
        assert len(describe(prompt).misses(other)) >= 4


def test_one_seed_gives_one_picture(pipeline: DiffusionPipeline) -> None:
    def rendered(seed: int) -> bytes:
        picture = render(pipeline, ["a green heart"], seed=seed, steps=4, guidance=3.0)[0]
        data: bytes = picture.tobytes()
        return data

    assert rendered(5) == rendered(5)
    assert rendered(5) != rendered(6)


@pytest.mark.parametrize("prompt", ["", "an astronaut riding a horse", "日本の絵 🎨", "x" * 3000, "<|endoftext|>"])
def test_text_outside_its_world_gives_some_picture(pipeline: DiffusionPipeline, prompt: str) -> None:
    picture = render(pipeline, [prompt], seed=1, steps=2, guidance=3.0)[0]
    assert picture.size == (256, 256)
    assert picture.mode == "RGB"


def test_the_encoder_finds_latents_that_the_decoder_knows(pipeline: DiffusionPipeline) -> None:
    drawn = pictures(Random(1), 4, PIXELS)
    with torch.no_grad():
        error = (pipeline.vae.decode(pipeline.vae.encode(drawn).latents).sample - drawn).square().mean()
    assert -10 * torch.log10(error / 4) > 25  # decibels
