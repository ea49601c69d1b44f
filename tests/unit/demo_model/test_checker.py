"""The checker is right about true drawings, and says so when a picture is wrong."""

import io
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from worker.demo_model import world
from worker.demo_model.checker import Expected, describe, expected, read_image, read_picture
from worker.demo_model.world import Scene, draw, random_jitter, random_scene

SCENE = Scene(shape="star", colour="red", background="blue", size="medium", position="top left")


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_true_drawings_are_read_right() -> None:
    random = Random(1)
    for _ in range(300):
        scene = random_scene(random)
        reading = read_image(draw(scene, random_jitter(random)))
        assert expected(scene).misses(reading) == (), (scene, reading)


@pytest.mark.parametrize("pixels", [128, 512])
def test_pictures_of_other_sizes_are_read_right(pixels: int) -> None:
    for shape in world.SHAPES:
        scene = replace(SCENE, shape=shape)
        assert expected(scene).misses(read_image(draw(scene, pixels=pixels))) == ()


def test_soft_and_noisy_pictures_are_read_right() -> None:
    noise = np.random.default_rng(1)
    for shape in world.SHAPES:
        scene = replace(SCENE, shape=shape)
        soft = np.asarray(draw(scene).filter(ImageFilter.GaussianBlur(2)), dtype=np.float64)
        noisy = np.clip(soft + noise.normal(0, 8, soft.shape), 0, 255).astype(np.uint8)
        assert expected(scene).misses(read_image(Image.fromarray(noisy))) == (), shape


def test_an_encoded_picture_is_read_like_an_open_one() -> None:
    picture = draw(SCENE)
    assert read_picture(png(picture)) == read_image(picture)


@pytest.mark.parametrize(
    ("attribute", "other"),
    [("shape", "heart"), ("colour", "green"), ("background", "pink"), ("size", "large"), ("position", "bottom")],
)
def test_a_wrong_picture_is_told_by_what_is_wrong(attribute: str, other: str) -> None:
    wrong = replace(SCENE, **{attribute: other})
    assert expected(SCENE).misses(read_image(draw(wrong))) == (attribute,)


def test_every_pair_of_shapes_is_told_apart() -> None:
    for drawn in world.SHAPES:
        reading = read_image(draw(replace(SCENE, shape=drawn, size="small")))
        agreeing = [shape for shape in world.SHAPES if not expected(Scene(shape=shape)).misses(reading)]
        assert reading.shape == drawn
        assert agreeing == []  # a small blue star at the top left is no medium black figure in the middle


def test_an_empty_picture_shows_only_its_ground() -> None:
    reading = read_image(Image.new("RGB", (256, 256), world.BACKGROUNDS["gray"]))
    assert (reading.background, reading.shape, reading.colour) == ("gray", None, None)


def test_noise_is_no_shape() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert read_image(Image.fromarray(noise)).shape is None


def test_two_figures_are_no_shape() -> None:
    both = draw(SCENE)  # at the top left
    both.paste(both.crop((0, 0, 128, 128)), (128, 128))
    assert read_image(both).shape is None


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        (
            "a large red circle on a white background",
            Expected(shape="circle", colour="red", background="white", size="large", position="center"),
        ),
        ("a heart", Expected(shape="heart", colour="black", background="white", size="medium", position="center")),
        (
            "On a grey background, a TINY golden crescent moon in the upper right corner",
            Expected(shape="moon", colour="yellow", background="gray", size="small", position="top right"),
        ),
        (
            "blue star on blue",
            Expected(shape="star", colour="blue", background="blue", size="medium", position="center"),
        ),
        ("an astronaut", Expected(shape=None, colour=None, background=None, size=None, position=None)),
    ],
)
def test_prompts_are_understood(prompt: str, wanted: Expected) -> None:
    assert describe(prompt) == wanted


def test_a_prompt_of_another_world_accepts_any_picture() -> None:
    assert describe("an astronaut").misses(read_image(draw(SCENE))) == ()
