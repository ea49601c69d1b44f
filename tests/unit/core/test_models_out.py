"""Models that some workers cannot use, on fakes and virtual time: who decides, and what waits."""

import asyncio

import pytest

from core.domain import commands as c
from core.domain.decide import MAX_UNCOUNTED_REFUSALS
from core.domain.events import Failure
from core.domain.state import Ending, Phase
from core.runtime.model_reports import SETTLE_S
from schema import pb
from tests import virtual_time
from tests.unit.core.journey import begun, running
from tests.unit.core.rig import VISIBILITY_S, Worker, World, working
from tests.unit.core.test_dispatcher import ended, submit
from worker.holding.types import ModelState

BROKEN = pb.AttemptFailure.MODEL_BROKEN
AWAY = pb.AttemptFailure.MODEL_AWAY


def broken(world: World, name: str = "w1") -> Worker:
    return Worker(world, name, render_s=0.0, fail_with=int(BROKEN), lists={"demo": ModelState.BROKEN})


def test_a_refusal_that_says_nothing_counts_for_nothing() -> None:
    journey = begun()
    journey.each_checked = False
    for number in range(MAX_UNCOUNTED_REFUSALS):
        journey.dispatch()
        events = journey.failed(f"att_{number}", Failure.MODEL_BROKEN, verdict=c.Verdict.ELSEWHERE)
        assert len(events) == 1
    journey.each_checked = True
    image = journey.image()
    assert (image.uncounted_refusals, image.refusals, image.suspect, image.phase) == (
        MAX_UNCOUNTED_REFUSALS,
        0,
        False,
        Phase.PENDING,
    )
    for number in range(3):
        journey.dispatch()
        journey.failed(f"more_{number}", Failure.MODEL_BROKEN, verdict=c.Verdict.ELSEWHERE)
    assert journey.image().phase is Phase.FAILED, "it ends"


def test_a_model_that_is_away_absolves_of_the_start() -> None:
    journey = running()
    journey.failed("att_1")
    journey.dispatch()
    journey.start("att_2")
    assert journey.image().solo_starts == 1
    journey.failed("att_2", Failure.MODEL_AWAY)
    assert (journey.image().solo_starts, journey.image().refusals) == (0, 0)


@pytest.mark.parametrize("failure", [Failure.REFUSED, Failure.MODEL_BROKEN])
def test_what_is_final_fails_at_once_with_its_reason(failure: Failure) -> None:
    journey = running()
    journey.failed("att_1", failure, verdict=c.Verdict.FINAL)
    assert (journey.image().phase, journey.image().failure, journey.image().detail) == (
        Phase.FAILED,
        failure,
        "it failed",
    )
    assert journey.open.ending is Ending.FAILED
    assert "it failed" in journey.open.detail


def test_broken_on_the_only_worker_fails_with_the_first_refusal() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core, working(broken(world), core=core):
            await asyncio.sleep(SETTLE_S)
            ids = await submit(core, 20)
            await ended(core, ids, Ending.FAILED, 5)
            assert {world.types(each).count("image.attempt_failed") for each in ids} == {1}

    virtual_time.run(main())


def test_soon_after_a_start_of_core_it_fails_once_the_workers_have_reported() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core, working(broken(world), core=core):
            ids = await submit(core, 3)
            await ended(core, ids, Ending.FAILED, SETTLE_S + VISIBILITY_S + 2)

    virtual_time.run(main())


def test_broken_on_one_of_two_all_are_made_by_the_other() -> None:
    async def main() -> None:
        world = World()
        good = Worker(world, "good", lists={"demo": ModelState.LOADED})
        async with world.core() as core, working(broken(world), good, core=core):
            await asyncio.sleep(SETTLE_S)
            ids = await submit(core, 40)
            await ended(core, ids, Ending.SUCCEEDED, 60)
            refused = sum(world.types(each).count("image.attempt_failed") for each in ids)
            assert refused, "the broken one got some"

    virtual_time.run(main())


def test_who_does_not_list_the_model_fails_nothing_while_another_does() -> None:
    async def main() -> None:
        world = World()
        foreign = [
            Worker(
                world,
                f"f{number}",
                render_s=0.0,
                fail_with=int(pb.AttemptFailure.UNSUPPORTED),
                lists={"another": ModelState.LOADED},
            )
            for number in range(3)
        ]
        good = Worker(world, "good", render_s=0.2, lists={"demo": ModelState.LOADED})
        async with world.core() as core, working(*foreign, good, core=core):
            await asyncio.sleep(SETTLE_S)
            ids = await submit(core, 40)
            await ended(core, ids, Ending.SUCCEEDED, 120)

    virtual_time.run(main())


def test_images_of_a_model_that_is_away_wait_at_core_and_go_out_when_it_is_back() -> None:
    async def main() -> None:
        world = World()
        worker = Worker(world, render_s=0.0, fail_with=int(AWAY), lists={"demo": ModelState.AWAY})
        async with world.core() as core, working(worker, core=core):
            await asyncio.sleep(SETTLE_S)
            ids = await submit(core, 20)
            await asyncio.sleep(300)
            assert not worker.seen
            assert {core.writer.open[each].images[0].phase for each in ids} == {Phase.PENDING}
            worker.fail_with, worker.lists = 0, {"demo": ModelState.UNLOADED}
            await ended(core, ids, Ending.SUCCEEDED, 5)

    virtual_time.run(main())


def test_what_was_refused_for_now_goes_out_as_soon_as_the_model_is_back() -> None:
    async def main() -> None:
        world = World()
        worker = Worker(world, render_s=0.0, fail_with=int(AWAY), lists={"demo": ModelState.LOADED})
        async with world.core() as core, working(worker, core=core):
            await asyncio.sleep(SETTLE_S)
            ids = await submit(core, 5)
            await asyncio.sleep(1)
            worker.lists = {"demo": ModelState.AWAY}
            await asyncio.sleep(100)
            assert len(worker.seen) <= 10
            worker.fail_with, worker.lists = 0, {"demo": ModelState.UNLOADED}
            await ended(core, ids, Ending.SUCCEEDED, 5)

    virtual_time.run(main())
