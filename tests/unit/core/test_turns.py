"""One tenant beside another, through the whole of core, on fakes and virtual time: who is rendered when."""

import asyncio
from collections.abc import Sequence

from core.assembly import Core
from schema import fast, messages
from tests import virtual_time
from tests.eventually import eventually
from tests.unit.core.rig import Worker, World, item, working


async def submit(core: Core, tenant: str, count: int, *, side: int = 256, steps: int = 8, priority: int = 0) -> None:
    for start in range(0, count, 100):
        items = [
            item(f"{tenant}_{number}", tenant=tenant, priority=priority, n=10)
            for number in range(start, min(count, start + 100))
        ]
        for each in items:
            each.spec.width = each.spec.height = side
            each.spec.num_inference_steps = steps
        assert all(int(result.outcome) == 1 for result in await core.service.submit(items))


def tenants(worker: Worker) -> Sequence[str]:
    """Of the images, in the order in which they were first seen."""
    seen = dict.fromkeys((job.image.generation_id, job.image.index) for job in worker.seen)
    return [generation_id.partition("_")[0] for generation_id, _ in seen]


def test_a_flood_of_the_highest_priority_leaves_another_tenant_its_share() -> None:
    async def main() -> None:
        world = World()
        async with world.core(runway=20) as core:
            await submit(core, "flood", 100, priority=10)
            await eventually(lambda: core._images.counts["queued"] == 20)
            await submit(core, "quiet", 5, priority=-10)
            worker = Worker(world)
            async with working(worker):
                await eventually(lambda: len(worker.seen) >= 130, 120)
            assert 40 <= tenants(worker)[20:130].count("quiet") <= 50
            assert {job.priority for job in worker.seen} == {0}, "a worker knows no tenants: it must not order by it"

    virtual_time.run(main())


def test_a_flood_of_the_largest_images_is_no_hour_of_work_before_a_newcomer() -> None:
    """2048 squared at 150 steps, of which 64 would be on the queue before anything of another tenant."""

    async def main() -> None:
        world = World()
        async with world.core() as core:
            await submit(core, "flood", 20, side=2048, steps=150)
            await eventually(lambda: core._images.counts["queued"] > 0)
            await asyncio.sleep(10)
            assert core._images.counts["queued"] == 16
            await submit(core, "quiet", 1)
            worker = Worker(world, render_s=40.0)
            async with working(worker):
                await eventually(lambda: "quiet" in tenants(worker), 3600)
            assert tenants(worker).index("quiet") <= 16 + 10

    virtual_time.run(main())


def test_jobs_that_were_cancelled_take_up_room_on_the_queue_until_a_worker_drops_them() -> None:
    """Else asking and cancelling without pause would put them on the queue without end, and others' jobs behind."""

    async def main() -> None:
        world = World()
        async with world.core() as core:
            for number in range(20):
                tenant = f"storm{number}"
                await submit(core, tenant, 10)
                await asyncio.sleep(0.01)
                for generation in range(10):
                    await core.service.cancel(tenant, f"{tenant}_{generation}")
            unwanted = (await world.jobs.depth()).visible
            assert 0 < unwanted <= 64
            await submit(core, "quiet", 1)
            received = await world.jobs.receive(limit=unwanted, wait_s=0, visibility_s=30)
            jobs = [messages.decode(each.body) for each in received]
            held = [fast.HeldImage(image=job.image) for job in jobs if isinstance(job, fast.ImageJob)]
            assert not any(core.service.still_wanted("w1", held))
            await eventually(lambda: core._images.counts["queued"] == 10, 1)

    virtual_time.run(main())
