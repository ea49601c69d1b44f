"""Today's families on the engine `pipeline`: steps and signs of life, schedulers, and what a folder says of its model
before it is loaded.
"""

from dataclasses import replace

import pytest

from tests.unit.worker.families import QUIET, STEPS, Family, job, render
from worker.engines.base import WeightSource
from worker.engines.contract import Progress
from worker.engines.devices import Device
from worker.engines.errors import Incapable
from worker.engines.pipeline import capabilities
from worker.engines.pipeline.engine import PipelineEngine

pytestmark = QUIET


def test_every_step_is_reported_and_a_cancel_is_heard_at_one(family: Family) -> None:
    steps_seen: list[int] = []

    def heard(progress: Progress) -> None:
        steps_seen.extend(progress.steps.values())
        if steps_seen and max(steps_seen) == 3:
            family.engine.evict("g/0")

    family.engine.admit([job(num_inference_steps=4)])
    stepped = family.engine.step(heard)
    assert (list(stepped.evicted), list(stepped.finished)) == (["g/0"], [])
    assert steps_seen == [1, 2, 3]
    steps_seen.clear()
    family.engine.admit([job(id="g/1", num_inference_steps=2)])
    assert [done.job_id for done in family.engine.step(heard).finished] == ["g/1"]
    assert steps_seen[-1] == 2


def test_there_are_signs_of_life_before_the_first_step_and_after_the_last(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engines.signs._EVERY_S", 0.0)
    steps_seen: list[int] = []
    family.engine.admit([job()])
    family.engine.step(lambda progress: steps_seen.append(max(progress.steps.values(), default=0)))
    at_steps = [place for place, step in enumerate(steps_seen) if step]
    assert at_steps[0] > 0, "none while texts are encoded and within the first step"
    assert at_steps[-1] < len(steps_seen) - 1, "none while the picture is decoded"
    assert len(steps_seen) > 2 * STEPS + 2
    steps_seen.clear()
    family.engine.admit([job()])

    def unwanted(progress: Progress) -> None:
        steps_seen.append(len(progress.steps))
        family.engine.evict("g/0")

    assert list(family.engine.step(unwanted).evicted) == ["g/0"]
    assert steps_seen == [0], "it is left at the first sign, before any step"


def test_each_scheduler_that_it_names_makes_a_picture_of_its_own(family: Family) -> None:
    names = capabilities.of_pipeline(family.stock).schedulers
    assert all(name.startswith("flow_") for name in names) == (
        family.name not in ("sd", "sdxl", "pixart-alpha", "pixart-sigma")
    )
    used = set()
    for name in names:
        (picture,) = render(family, job(scheduler=name, num_inference_steps=3))
        used.add(picture.scheduler)
        assert picture.rgb != bytes(len(picture.rgb))
    assert len(used) == len(names)
    with pytest.raises(Incapable, match="scheduler") as refused:
        family.engine.key(job(scheduler="ddim" if "ddim" not in names else "flow_euler"))
    assert all(name in str(refused.value) for name in names)


def test_the_folder_tells_the_same_as_the_loaded_model(family: Family) -> None:
    seen = capabilities.inspect(str(family.folder))
    assert seen == capabilities.of_pipeline(family.stock)
    assert seen is not None
    assert family.engine.facts.abilities == seen.abilities()
    looked = PipelineEngine(WeightSource(model="m", source=str(family.folder)), Device())
    looked.look()
    assert looked.facts.abilities == family.engine.facts.abilities
    assert not looked.loaded


@pytest.mark.parametrize("family", ["lcm"], indirect=True)
def test_a_consistency_model_takes_no_more_steps_than_its_scheduler_has(family: Family) -> None:
    render(family, job(num_inference_steps=50))
    with pytest.raises(Incapable, match="at most 50"):
        family.engine.key(job(num_inference_steps=51))


@pytest.mark.parametrize("family", ["sdxl"], indirect=True)
def test_what_its_own_checks_refuse_is_refused_once_and_before_any_step(family: Family) -> None:
    known = family.engine._asked
    assert known is not None
    family.engine._asked = replace(known, size_factor=1)  # as a rule that does not know this model would have it
    family.passes = 0
    try:
        family.engine.admit([job(width=68)])
        with pytest.raises(Incapable, match="divisible by 8"):
            family.engine.step(lambda _: None)
    finally:
        family.engine.reset()
        family.engine._asked = known
    assert family.passes == 0
