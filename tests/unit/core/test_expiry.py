"""Time to live counts while core runs, and only then."""

import asyncio

from core.domain.state import Ending
from tests import virtual_time
from tests.eventually import eventually
from tests.unit.core.rig import Worker, World, item, working
from tests.unit.core.test_replies import ending


def test_it_expires_when_its_time_has_run_out_and_not_before() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await core.service.submit([item("g", ttl_s=100), item("h", ttl_s=50), item("never")])
            await asyncio.sleep(49)
            assert ending(core, "h") is Ending.OPEN
            await eventually(lambda: ending(core, "h") is Ending.EXPIRED, 2)
            await asyncio.sleep(47)
            assert ending(core) is Ending.OPEN
            await eventually(lambda: ending(core) is Ending.EXPIRED, 3)
            await asyncio.sleep(1_000)
            assert ending(core, "never") is Ending.OPEN

    virtual_time.run(main())


def test_an_outage_expires_nothing() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await core.service.submit([item("g", ttl_s=100)])
            await asyncio.sleep(60)
        await asyncio.sleep(100_000)
        async with world.core() as core:
            await asyncio.sleep(38)
            assert ending(core) is Ending.OPEN
            await eventually(lambda: ending(core) is Ending.EXPIRED, 4)

    virtual_time.run(main())


def test_running_time_never_goes_back_behind_an_event() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await asyncio.sleep(10.5)
            await core.service.submit([item("g")])
        world.log.running_ms = 0  # as if it had never been saved
        async with world.core() as core:
            assert core.clock.now_ms() >= 10_500

    virtual_time.run(main())


def test_a_full_disk_only_delays_it() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await core.service.submit([item("g", ttl_s=10)])
            world.log.full = True
            await asyncio.sleep(100)
            assert ending(core) is Ending.OPEN
            world.log.full = False
            await eventually(lambda: ending(core) is Ending.EXPIRED, 3)

    virtual_time.run(main())


def test_what_is_decided_does_not_expire() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            world.public.unreachable = True
            async with working(Worker(world)):
                await core.service.submit([item("g", ttl_s=10)])
                await eventually(lambda: "image.rendered" in world.types("g"))
            await asyncio.sleep(30)
            assert ending(core) is Ending.OPEN
            world.public.unreachable = False
            await eventually(lambda: ending(core) is Ending.SUCCEEDED)

    virtual_time.run(main())
