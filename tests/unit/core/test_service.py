"""What callers are told."""

import asyncio

import pytest

from core.api.errors import BadRequest, NotFound
from core.runtime.stall_detector import SLOW_S
from infra.retry import Retryable
from schema import fast, limits, pb
from tests import virtual_time
from tests.eventually import eventually
from tests.unit.core.rig import Worker, World, item, working

Outcome = pb.SubmitOutcome
Status = pb.GenerationStatus


def outcomes(results: "list[fast.SubmitResult]") -> list[int]:
    return [int(result.outcome) for result in results]


def test_each_item_is_decided_on_its_own() -> None:
    async def main() -> None:
        world = World()
        async with world.core(backlog_cap=4) as core:
            bad = item("bad")
            bad.spec.width = 100
            items = [item("g1", key="k"), bad, item("g2", key="k"), item("g3", key="k", body=b"z"), item("g4", n=4)]
            results = await core.service.submit(items)
            assert outcomes(results) == [
                Outcome.ACCEPTED,
                Outcome.INVALID,
                Outcome.REPLAYED,
                Outcome.KEY_CONFLICT,
                Outcome.BACKLOG_FULL,
            ]
            assert (results[1].field, results[2].generation.generation_id) == ("width", "g1")
            assert results[1].detail
            assert results[4].retry_after_s > 0
            assert await core.service.submit([]) == []

    virtual_time.run(main())


def test_an_accepted_item_is_shown_as_get_shows_it() -> None:
    async def main() -> None:
        world = World()
        async with world.core(runway=1) as core:
            results = await core.service.submit([item(f"g{number}", n=2, ttl_s=60, priority=1) for number in range(3)])
            for number, result in enumerate(results):
                shown = await core.service.get("ann", f"g{number}")
                assert shown.SerializeToString() or True
                for field in ("generation_id", "status", "version", "priority", "ttl_s", "requested_at_ms"):
                    if number:  # the first may have been dispatched meanwhile
                        assert getattr(shown, field) == getattr(result.generation, field), field
                assert (shown.spec, shown.prompts) == (result.generation.spec, result.generation.prompts)
                assert (
                    [each.seed for each in shown.images] == [each.seed for each in result.generation.images] == [7, 8]
                )
            await eventually(lambda: core._images.counts["queued"] == 1)
            assert (await core.service.get("ann", "g2")).backlog_position in {4, 5}

    virtual_time.run(main())


def test_foreign_and_unknown_are_the_same() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await core.service.submit([item("g")])
            for tenant, generation_id in (("bob", "g"), ("ann", "nothing")):
                with pytest.raises(NotFound):
                    await core.service.get(tenant, generation_id, 60_000)
                with pytest.raises(NotFound):
                    await core.service.cancel(tenant, generation_id)
            assert (await core.service.list("bob", page_size=10, cursor="", status=0))[0] == []

    virtual_time.run(main())


def test_get_waits_for_the_end_and_no_longer_than_asked() -> None:
    async def main() -> None:
        world = World()
        loop = asyncio.get_running_loop()
        async with world.core() as core:
            await core.service.submit([item("g"), item("h")])
            begun = loop.time()
            assert int((await core.service.get("ann", "g", 5_000)).status) == Status.QUEUED
            assert loop.time() - begun == pytest.approx(5, abs=0.1)
            async with asyncio.TaskGroup() as group, working(Worker(world, render_s=1.0)):
                calls = [group.create_task(core.service.get("ann", "h", 60_000), name="get") for _ in range(5)]
                shown = [await call for call in calls]
            assert {int(each.status) for each in shown} == {Status.SUCCEEDED}
            assert loop.time() - begun < 30
            assert not core.service._waiters
            with pytest.raises(BadRequest):
                await core.service.get("ann", "g", limits.MAX_WAIT_MS + 1)

    virtual_time.run(main())


def test_waiters_are_bounded() -> None:
    async def main() -> None:
        world = World()
        loop = asyncio.get_running_loop()
        async with world.core(max_waiters=2) as core, asyncio.TaskGroup() as group:
            await core.service.submit([item("g")])
            for number in range(2):
                group.create_task(core.service.get("ann", "g", 10_000), name=f"{number}")
            await asyncio.sleep(1)
            begun = loop.time()
            await core.service.get("ann", "g", 10_000)
            assert loop.time() == begun

    virtual_time.run(main())


def test_a_tenant_that_waits_on_all_places_is_answered_early_for_another_and_no_further_than_half() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with World().core(max_waiters=4) as core, asyncio.TaskGroup() as group:
            await core.service.submit([item("a"), item("b", tenant="bob")])
            begun = loop.time()
            ann = [group.create_task(core.service.get("ann", "a", 10_000), name=f"a{number}") for number in range(4)]
            await asyncio.sleep(1)
            bob = [group.create_task(core.service.get("bob", "b", 10_000), name=f"b{number}") for number in range(3)]
            await asyncio.sleep(1)
            assert sum(each.done() for each in ann) == 2
            assert sum(each.done() for each in bob) == 1
            await asyncio.wait({*ann, *bob})
            assert loop.time() == begun + 11

    virtual_time.run(main())


def test_lists_are_paged_newest_first_by_tenant_and_status() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            for number in range(7):
                await core.service.submit([item(f"g{number}"), item(f"h{number}", tenant="bob")])
            await core.service.cancel("ann", "g3")
            seen: list[str] = []
            cursor = ""
            while True:
                page, cursor = await core.service.list("ann", page_size=3, cursor=cursor, status=0)
                seen += [each.generation_id for each in page]
                assert all(each.prompts.prompt for each in page)
                if not cursor:
                    break
            assert seen == [f"g{number}" for number in reversed(range(7))]
            page, _ = await core.service.list("ann", page_size=0, cursor="", status=int(Status.CANCELLED))
            assert [each.generation_id for each in page] == ["g3"]
            for wrong in ("x", "cDA", "cC0x", "ü", "cDEy!"):
                with pytest.raises(BadRequest):
                    await core.service.list("ann", page_size=3, cursor=wrong, status=0)
            with pytest.raises(BadRequest):
                await core.service.list("ann", page_size=101, cursor="", status=0)

    virtual_time.run(main())


def test_cancel_wins_while_something_is_undecided_and_then_is_refused() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await core.service.submit([item("g"), item("h")])
            for _ in range(2):
                cancelled, shown = await core.service.cancel("ann", "g")
                assert (cancelled, int(shown.status)) == (True, Status.CANCELLED)
            async with working(Worker(world)):
                await core.service.get("ann", "h", 60_000)
            cancelled, shown = await core.service.cancel("ann", "h")
            assert (cancelled, int(shown.status)) == (False, Status.SUCCEEDED)

    virtual_time.run(main())


def test_still_wanted_shows_progress_and_bounds_the_list() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await core.service.submit([item("g", n=2), item("gone")])
            await core.service.cancel("ann", "gone")
            held = [
                fast.HeldImage(image=fast.ImageRef(generation_id="g", index=1), running=True, step=4),
                fast.HeldImage(image=fast.ImageRef(generation_id="g", index=9)),
                fast.HeldImage(image=fast.ImageRef(generation_id="gone")),
                fast.HeldImage(image=fast.ImageRef(generation_id="unknown")),
            ]
            assert core.service.still_wanted("w1", held) == [True, False, False, False]
            shown = await core.service.get("ann", "g")
            assert [each.progress_step for each in shown.images] == [0, 4]
            assert shown.progress_revision == 1
            core.service.still_wanted("w1", held)
            assert (await core.service.get("ann", "g")).progress_revision == 1
            with pytest.raises(BadRequest):
                core.service.still_wanted("w1", held * 1_000)
            with pytest.raises(BadRequest):
                core.service.still_wanted("no such name", [])

    virtual_time.run(main())


def test_after_a_restart_repeats_and_old_ends_are_answered_from_the_log() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core, working(Worker(world)):
            await core.service.submit([item("g", key="k")])
            await core.service.get("ann", "g", 60_000)
        async with world.core() as core:
            again, by_key = await core.service.submit([item("g"), item("other", key="k")])
            assert outcomes([again, by_key]) == [Outcome.REPLAYED] * 2
            assert int(again.generation.status) == int(by_key.generation.status) == Status.SUCCEEDED
            assert again.generation.prompts.prompt == "a red circle"
            shown = await core.service.get("ann", "g")
            assert shown == again.generation
            assert shown.images[0].public_key in world.public.objects

    virtual_time.run(main())


def test_a_stopping_core_refuses_and_lets_nobody_wait() -> None:
    async def main() -> None:
        world = World()
        loop = asyncio.get_running_loop()
        async with world.core() as core, asyncio.TaskGroup() as group:
            await core.service.submit([item("g")])
            waiting = group.create_task(core.service.get("ann", "g", 60_000), name="get")
            await asyncio.sleep(1)
            begun = loop.time()
            await core.drain(10)
            await waiting
            assert loop.time() - begun < 1
            with pytest.raises(Retryable):
                await core.service.submit([item("h")])

    virtual_time.run(main())


def test_a_disk_that_hangs_shows_until_it_goes_on() -> None:
    """An append that neither returns nor raises; and on a core that has nothing to do, a saving of the time."""

    async def main() -> None:
        world = World()
        async with world.core() as core, asyncio.TaskGroup() as group:
            await eventually(lambda: not core.reasons())
            world.log.gate = asyncio.Event()
            submission = group.create_task(core.service.submit([item("g")]), name="submit")
            await asyncio.sleep(SLOW_S - 1)
            assert not core.reasons()
            await eventually(lambda: core.reasons() == ["log: slow"], 2)
            world.log.gate.set()
            await submission
            assert not core.reasons()
            world.log.saving_gate = asyncio.Event()
            await eventually(lambda: core.reasons() == ["log: slow"], SLOW_S + 3)
            world.log.saving_gate.set()
            await eventually(lambda: not core.reasons(), 3)

    virtual_time.run(main())
