"""What the world promises to training, checker and prompts alike."""

import math
from collections import Counter
from random import Random

import pytest

from worker.demo_model import world
from worker.demo_model.captions import plain_caption, training_caption, varied_caption
from worker.demo_model.checker import describe, expected
from worker.demo_model.world import Scene, draw, is_held_out, random_jitter, random_scene, scenes


def test_a_tenth_of_the_combinations_is_held_out() -> None:
    held_out = [is_held_out(scene) for scene in scenes()]
    assert 0.09 < sum(held_out) / len(held_out) < 0.11


def test_training_never_draws_a_held_out_scene() -> None:
    random = Random(1)
    assert not any(is_held_out(random_scene(random)) for _ in range(3000))


def test_every_figure_stands_out_from_its_ground() -> None:
    nearest = min(math.dist(world.COLOURS[s.colour], world.BACKGROUNDS[s.background]) for s in scenes())
    assert nearest > 75


def test_every_figure_stays_inside_its_picture() -> None:
    for size, side in world.SIZES.items():
        reach = world.OFFSETS[size] + side * 1.03 / 2 + 0.008
        assert reach < 0.5, size


def test_the_same_chance_draws_the_same_picture() -> None:
    def drawn(seed: int) -> bytes:
        random = Random(seed)
        return draw(random_scene(random), random_jitter(random)).tobytes()

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="hexagon"):
        draw(Scene(shape="hexagon"))


def test_every_caption_means_its_scene() -> None:
    random = Random(2)
    for _ in range(1500):
        scene = random_scene(random)
        for caption in (plain_caption(scene), varied_caption(scene, random), training_caption(scene, random)):
            assert describe(caption) == expected(scene), caption


def test_captions_differ_in_wording() -> None:
    random, scene = Random(3), Scene(shape="star", colour="red", size="large", position="top")
    assert len({varied_caption(scene, random) for _ in range(200)}) > 150


def test_training_scenes_cover_all_names() -> None:
    random = Random(4)
    drawn = [random_scene(random) for _ in range(3000)]
    for attribute, names in (("shape", world.SHAPES), ("position", world.POSITIONS), ("colour", world.COLOURS)):
        counts = Counter(getattr(scene, attribute) for scene in drawn)
        assert set(counts) == set(names)
