"""Dispatch and re-dispatch, on fakes and virtual time: whatever the queue loses, every image comes to an end."""

import asyncio

from core.assembly import Core
from core.domain.shares import UsageByTenant
from core.domain.state import Ending
from schema import fast, pb
from tests import virtual_time
from tests.eventually import eventually
from tests.unit.core.rig import VISIBILITY_S, Worker, World, item, working

SUCCEEDED, FAILED = Ending.SUCCEEDED, Ending.FAILED


async def submit(core: Core, count: int, *, n: int = 1, prefix: str = "gen") -> list[str]:
    ids = [f"{prefix}_{number}" for number in range(count)]
    for start in range(0, count, 100):
        results = await core.service.submit([item(each, n=n) for each in ids[start : start + 100]])
        assert all(int(result.outcome) == pb.SubmitOutcome.ACCEPTED for result in results)
    return ids


async def ended(core: Core, ids: list[str], ending: Ending, deadline_s: float) -> None:
    def endings() -> set[Ending | None]:
        states = [core.writer.remembered(each) for each in ids]
        return {state.ending if state else None for state in states}

    await eventually(lambda: endings() == {ending}, deadline_s, what=f"{len(ids)} end as {ending.name}", every_s=0.25)


def test_everything_submitted_succeeds_once() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core, working(Worker(world), Worker(world, "w2")):
            ids = await submit(core, 40, n=3)
            await ended(core, ids, SUCCEEDED, 60)
            assert all(world.types(each).count("image.published") == 3 for each in ids)
            assert len(world.public.objects) == 120
            await eventually(lambda: not world.temp.objects, what="drafts are deleted")
            assert core.writer.usage == UsageByTenant()

    virtual_time.run(main())


def test_the_runway_bounds_what_is_on_the_queue() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await submit(core, 300)
            await eventually(lambda: core._images.counts["queued"] == 64)
            await asyncio.sleep(1)
            assert (await world.jobs.depth()).visible == 64
            assert core._images.counts == {"pending": 236, "queued": 64, "started": 0}

    virtual_time.run(main())


def test_a_purged_queue_costs_twice_the_visibility_at_most() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            ids = await submit(core, 50)
            await eventually(lambda: core._images.counts["queued"] == 50)
            world.jobs.purge()
            async with working(Worker(world)):
                await ended(core, ids, SUCCEEDED, 2 * VISIBILITY_S + 10)

    virtual_time.run(main())


def test_a_burst_lost_after_a_quiet_time_is_noticed_as_soon_as_any_other() -> None:
    """A picture every few seconds says nothing of how fast the workers are."""

    async def main() -> None:
        world = World()
        async with world.core() as core:
            async with working(Worker(world)):
                for number in range(12):
                    await ended(core, await submit(core, 1, prefix=f"quiet{number}"), SUCCEEDED, 10)
                    await asyncio.sleep(5)
            ids = await submit(core, 50)
            await eventually(lambda: core._images.counts["queued"] == 50)
            world.jobs.purge()
            async with working(Worker(world)):
                await ended(core, ids, SUCCEEDED, 2 * VISIBILITY_S + 10)

    virtual_time.run(main())


def test_an_image_that_was_started_and_not_heard_of_runs_alone() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [one] = await submit(core, 1)
            silent = Worker(world, "w1", start_only=True)
            async with working(silent):
                await eventually(lambda: world.types(one)[-1] == "image.started")
            world.jobs.purge()
            second = Worker(world, "w2")
            async with working(second):
                await ended(core, [one], SUCCEEDED, 2 * VISIBILITY_S + 10)
            assert [job.solo for job in silent.seen] == [False]
            assert [(job.solo, job.dispatch) for job in second.seen] == [(True, 2)]

    virtual_time.run(main())


def test_a_job_that_is_sent_again_is_wanted_before_its_dispatch_is_recorded() -> None:
    """Whoever receives it by then would delete it, and the image would wait for its next recheck."""

    async def main() -> None:
        world = World()
        async with world.core() as core:
            [one] = await submit(core, 1)

            def wanted(dispatch: int, worker_id: str = "w2") -> bool:
                held = fast.HeldImage(image=fast.ImageRef(generation_id=one), dispatch=dispatch)
                return core.service.still_wanted(worker_id, [held])[0]

            async with working(Worker(world, "w1", start_only=True)):
                await eventually(lambda: world.types(one)[-1] == "image.started")
            assert (wanted(1), wanted(0), wanted(1, "w1")) == (False, False, True), "w1 has started it"
            world.jobs.purge()
            world.failpoints.names.clear()
            world.failpoints.stop_at = "core.after_send"
            await eventually(lambda: "core.after_send" in world.failpoints.names, 3 * VISIBILITY_S)
            assert world.types(one)[-1] == "image.started", "sent, and not recorded"
            assert (wanted(1), wanted(0), wanted(2)) == (False, True, True)
            world.failpoints.go_on.set()
            await eventually(lambda: world.types(one)[-1] == "image.dispatched")
            assert (wanted(0), wanted(2)) == (True, True)
            async with working(Worker(world, "w2")):
                await ended(core, [one], SUCCEEDED, 10)
            assert (wanted(2), wanted(3), wanted(0)) == (False, False, False), "it is decided"

    virtual_time.run(main())


def test_three_silent_starts_alone_are_enough() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [one] = await submit(core, 1)
            copy = [fast.HeldImage(image=fast.ImageRef(generation_id=one))]
            for number in range(1, 5):
                async with working(Worker(world, "w1", start_only=True)):
                    await eventually(lambda n=number: world.types(one).count("image.started") == n, 200)  # type: ignore[misc]
                    assert core.service.still_wanted("w1", copy) == [True]
                world.jobs.purge()
            await asyncio.sleep(VISIBILITY_S)
            assert core.service.still_wanted("w1", copy) == [False], "the queue may deliver it again; nobody runs it"
            await ended(core, [one], FAILED, 200)
            shown = await core.service.get("ann", one)
            assert int(shown.images[0].failure) == pb.AttemptFailure.WORKER_LOST

    virtual_time.run(main())


def test_an_unreachable_queue_is_told_and_waited_for() -> None:
    async def main() -> None:
        world = World()
        world.jobs.unreachable = True
        async with world.core() as core:
            ids = await submit(core, 20)
            await eventually(lambda: any("jobs queue" in reason for reason in core.reasons()))
            await asyncio.sleep(60)
            world.jobs.unreachable = False
            async with working(Worker(world)):
                await ended(core, ids, SUCCEEDED, 2 * VISIBILITY_S + 10)
            await eventually(lambda: not core.reasons(), 10)
            assert all(world.types(each).count("image.dispatched") == 1 for each in ids)

    virtual_time.run(main())


def test_only_refused_entries_are_sent_again() -> None:
    async def main() -> None:
        world = World()
        world.jobs.refuse = 3
        async with world.core() as core:
            ids = await submit(core, 10)
            await eventually(lambda: core._images.counts["queued"] == 10)
            assert (await world.jobs.depth()).visible == 10
            assert all(world.types(each).count("image.dispatched") == 1 for each in ids)

    virtual_time.run(main())


def test_a_crash_between_send_and_record_sends_again() -> None:
    async def main() -> None:
        world = World()
        world.failpoints.stop_at = "core.after_send"
        async with world.core() as core:
            ids = await submit(core, 5)
            await eventually(lambda: "core.after_send" in world.failpoints.names)
        assert (await world.jobs.depth()).visible == 5
        world.failpoints.stop_at = ""
        async with world.core() as core, working(worker := Worker(world)):
            await ended(core, ids, SUCCEEDED, 30)
            await eventually(lambda: len(worker.seen) == 10)
            assert all(world.types(each).count("image.published") == 1 for each in ids)

    virtual_time.run(main())


def test_reports_of_workers_put_off_the_recheck_and_a_silence_brings_it_back() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [one] = await submit(core, 1)
            holder = Worker(world, "w1", start_only=True)
            async with working(holder):
                await eventually(lambda: world.types(one)[-1] == "image.started")
            world.jobs.purge()
            held = [fast.HeldImage(image=fast.ImageRef(generation_id=one), running=True, step=3)]
            for _ in range(30):
                await asyncio.sleep(VISIBILITY_S / 2)
                assert core.service.still_wanted("w1", held) == [True]
            assert world.types(one).count("image.dispatched") == 1
            await eventually(lambda: world.types(one).count("image.dispatched") == 2, 2 * VISIBILITY_S + 1)

    virtual_time.run(main())


async def report(core: Core, held: fast.HeldImage, rounds: int) -> None:
    for _ in range(rounds):
        await asyncio.sleep(VISIBILITY_S / 2)
        assert core.service.still_wanted("w1", [held]) == [True]


def test_a_new_life_of_core_waits_for_reports_before_it_sends_again_what_is_well_in_hand() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [one] = await submit(core, 1)
            async with working(Worker(world, "w1", start_only=True)):
                await eventually(lambda: world.types(one)[-1] == "image.started")
            world.jobs.purge()
            held = fast.HeldImage(image=fast.ImageRef(generation_id=one), running=True)
            await report(core, held, 10)
        async with world.core() as core:
            await report(core, held, 10)
            assert world.types(one).count("image.dispatched") == 1
        async with world.core() as core:
            await asyncio.sleep(VISIBILITY_S - 1)
            assert world.types(one).count("image.dispatched") == 1
            await eventually(lambda: world.types(one).count("image.dispatched") == 2, 2)

    virtual_time.run(main())


def test_a_new_life_of_core_gives_up_nothing_that_is_well_in_hand() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [one] = await submit(core, 1)
            held = fast.HeldImage(image=fast.ImageRef(generation_id=one), running=True)
            for number in range(1, 5):
                async with working(Worker(world, "w1", start_only=True)):
                    await eventually(lambda n=number: world.types(one).count("image.started") == n, 200)  # type: ignore[misc]
                world.jobs.purge()
            await report(core, held, 40)  # past the recheck that is stored
        async with world.core() as core:
            await report(core, held, 10)
            assert core.writer.open[one].images[0].solo_starts == 3
            await ended(core, [one], FAILED, 2 * VISIBILITY_S + 1)

    virtual_time.run(main())


def test_a_waiting_copy_of_what_another_worker_started_is_dropped() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [one] = await submit(core, 1)
            async with working(Worker(world, "w1", start_only=True)):
                await eventually(lambda: world.types(one)[-1] == "image.started")
            waiting = [fast.HeldImage(image=fast.ImageRef(generation_id=one), running=False)]
            assert core.service.still_wanted("w1", waiting) == [True]
            assert core.service.still_wanted("w2", waiting) == [False]
            await eventually(lambda: world.types(one).count("image.dispatched") == 2, 3 * VISIBILITY_S)
            assert core.service.still_wanted("w2", waiting) == [True]

    virtual_time.run(main())


def test_a_healthy_long_backlog_is_not_sent_twice() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core, working(worker := Worker(world, render_s=1.0)):
            warm = await submit(core, 9, prefix="warm")
            await ended(core, warm, SUCCEEDED, 60)
            ids = await submit(core, 60)
            await ended(core, ids, SUCCEEDED, 100)
            assert len(worker.seen) == 69

    virtual_time.run(main())


def test_prompts_that_cannot_be_read_for_a_moment_are_waited_for() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            ids = await submit(core, 3)
        world.jobs.purge()
        async with world.core() as core:  # a new life, which has no prompt in memory
            world.log.unreadable = True
            await eventually(lambda: core._dispatcher.trouble != "", 3 * VISIBILITY_S)
            world.log.unreadable = False
            async with working(Worker(world)):
                await ended(core, ids, SUCCEEDED, 2 * VISIBILITY_S + 10)

    virtual_time.run(main())


def test_a_rolling_change_of_models_can_pass() -> None:
    """A worker that does not serve the model refuses at once; three refusals fail the image, so they are spread."""

    async def main() -> None:
        world = World()
        async with world.core() as core:
            ids = await submit(core, 3)
            old = Worker(world, "old", render_s=0.0, fail_with=pb.AttemptFailure.UNSUPPORTED)
            async with working(old):
                await asyncio.sleep(VISIBILITY_S)
            assert [world.types(each).count("image.attempt_failed") for each in ids] == [2, 2, 2]
            async with working(Worker(world, "new")):
                await ended(core, ids, SUCCEEDED, 2 * VISIBILITY_S + 10)

    virtual_time.run(main())


def test_what_nobody_serves_fails_after_three_refusals() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            ids = await submit(core, 3)
            async with working(Worker(world, fail_with=pb.AttemptFailure.UNSUPPORTED)):
                await ended(core, ids, FAILED, 2 * VISIBILITY_S + 10)
            assert [world.types(each).count("image.attempt_failed") for each in ids] == [3, 3, 3]

    virtual_time.run(main())
