"""Dead letters become events: what core takes off the queue by itself, what it leaves, and what a fault costs."""

from contextlib import AbstractAsyncContextManager

import pytest

from core.assembly import Core
from core.domain.events import Failure, ImageAttemptFailed
from core.domain.state import Ending
from infra.sqs import Outgoing
from schema import messages
from tests import virtual_time
from tests.eventually import eventually
from tests.unit.core.rig import TUNING, VISIBILITY_S, Worker, World, item, working
from tests.unit.schema.test_messages import job, rendered

LOOK_S = TUNING.dead_letters_s
FAR_S = 100_000.0
REPLY, FOREIGN = messages.encode(rendered()), messages.encode(job())


async def given_up(world: World, core: Core, generation_id: str = "gen_1", *, n: int = 1) -> None:
    """A generation is submitted, and the queue itself moves its jobs away, for they were received too often."""
    await core.service.submit([item(generation_id, n=n)])
    await eventually(lambda: world.types(generation_id)[-1] == "image.dispatched")
    world.jobs.dead, world.jobs.max_receives = world.dead, 0
    assert await world.jobs.receive(limit=10, wait_s=0, visibility_s=VISIBILITY_S) == []
    world.jobs.max_receives = 30


def core_that_rechecks_late(world: World) -> AbstractAsyncContextManager[Core]:
    """So late that only a dead letter brings an image back."""
    return world.core(visibility_s=FAR_S)


def failures(world: World, generation_id: str = "gen_1") -> list[ImageAttemptFailed]:
    stream = [each.event for each, _ in world.log.events if each.generation_id == generation_id]
    return [event for event in stream if isinstance(event, ImageAttemptFailed)]


async def succeeded(core: Core, generation_id: str, deadline_s: float) -> None:
    def is_so() -> bool:
        state = core.writer.remembered(generation_id)
        return state is not None and state.ending is Ending.SUCCEEDED

    await eventually(is_so, deadline_s, every_s=0.25)


def test_what_the_queue_gave_up_is_told_by_an_event_and_sent_again() -> None:
    async def main() -> None:
        world = World()
        async with core_that_rechecks_late(world) as core:
            await given_up(world, core, n=3)
            assert (await world.dead.depth()).visible == 3
            second = Worker(world)
            async with working(second):
                await succeeded(core, "gen_1", LOOK_S + 10)
            assert [event.failure for event in failures(world)] == [Failure.DEAD_LETTERED] * 3
            assert [(each.dispatch, each.solo) for each in second.seen] == [(2, False)] * 3
            assert await depth(world) == 0
            assert count(core, "dead_letters_total", outcome="recorded") == 3

    virtual_time.run(main())


def test_letters_about_which_nothing_is_to_be_done_are_taken_off_and_others_stay() -> None:
    async def main() -> None:
        world = World()
        async with core_that_rechecks_late(world) as core:
            await given_up(world, core)
            copy = await world.dead.receive(limit=1, wait_s=0, visibility_s=0)
            async with working(Worker(world)):
                await succeeded(core, "gen_1", LOOK_S + 10)
            before = world.types("gen_1")
            bodies = [copy[0].body, copy[0].body, FOREIGN, REPLY, b"rubbish"]
            await world.dead.send([Outgoing(body=body) for body in bodies])
            await eventually(lambda: count(core, "dead_letters_total", outcome="moot") == 3, LOOK_S + 10)
            await eventually(lambda: count(core, "dead_letters_kept") == 2)
            left = await world.dead.receive(limit=10, wait_s=0, visibility_s=0)
            assert {each.body for each in left} == {REPLY, b"rubbish"}, "and they can be seen at once"
            assert world.types("gen_1") == before

    virtual_time.run(main())


def test_what_a_worker_has_begun_is_left_to_its_recheck() -> None:
    async def main() -> None:
        world = World()
        async with core_that_rechecks_late(world) as core:
            await core.service.submit([item("gen_1")])
            slow = Worker(world, render_s=3 * LOOK_S)
            async with working(slow):
                await eventually(lambda: world.types("gen_1")[-1] == "image.started")
                body = messages.encode(slow.seen[0])
                await world.dead.send([Outgoing(body=body)])
                await succeeded(core, "gen_1", 4 * LOOK_S)
            assert failures(world) == []
            assert len(slow.seen) == 1
            assert await depth(world) == 0

    virtual_time.run(main())


@pytest.mark.parametrize("fault", ["log", "queue"])
def test_no_letter_is_lost_while_the_log_or_the_queue_refuses_and_core_stays_ready(fault: str) -> None:
    async def main() -> None:
        world = World()
        async with core_that_rechecks_late(world) as core:
            await given_up(world, core)
            await eventually(lambda: core.reasons() == [])
            world.log.full, world.dead.unreachable = fault == "log", fault == "queue"
            await eventually(lambda: count(core, "dead_letter_looks_total", outcome="failed") >= 2, 5 * LOOK_S)
            assert fault == "log" or core.reasons() == []
            world.log.full = world.dead.unreachable = False
            async with working(Worker(world)):
                await succeeded(core, "gen_1", 200)
            assert len(failures(world)) == 1

    virtual_time.run(main())


def test_a_crash_before_the_letters_are_deleted_repeats_without_effect() -> None:
    async def main() -> None:
        world = World()
        world.failpoints.stop_at = "core.before_dead_letter_delete"
        async with core_that_rechecks_late(world) as core:
            await given_up(world, core)
            await eventually(lambda: "core.before_dead_letter_delete" in world.failpoints.names, LOOK_S + 10)
            assert len(failures(world)) == 1
            assert (await world.dead.depth()).in_flight == 1
        world.failpoints.stop_at = ""
        async with core_that_rechecks_late(world) as core, working(Worker(world)):
            await succeeded(core, "gen_1", 10)
            await emptied(world, 4 * LOOK_S)
            assert len(failures(world)) == 1

    virtual_time.run(main())


def test_more_letters_than_fit_in_one_look_are_taken_one_after_the_other() -> None:
    async def main() -> None:
        world = World()
        await world.dead.send([Outgoing(body=FOREIGN) for _ in range(1_200)])
        async with world.core() as core:
            await eventually(lambda: count(core, "dead_letters_total", outcome="moot") == 1_200, LOOK_S - 1)
            await emptied(world)

    virtual_time.run(main())


async def depth(world: World) -> int:
    found = await world.dead.depth()
    return found.visible + found.in_flight


async def emptied(world: World, deadline_s: float = 10) -> None:
    async def is_so() -> bool:
        return await depth(world) == 0

    gone: bool = await eventually(is_so, deadline_s)
    assert gone


def count(core: Core, name: str, **labels: str) -> float:
    return core.metrics.registry.get_sample_value(f"darkroom_core_{name}", labels) or 0.0
