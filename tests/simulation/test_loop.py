"""The virtual loop: time, order, frozen actors, and what it does with programs that hang."""

import asyncio

import pytest

from tests.simulation.loop import Actor, Deadlock, Livelock, VirtualLoop


def test_time_passes_only_by_waiting() -> None:
    loop = VirtualLoop()

    async def main() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []
        begun = loop.time()

        async def wait(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, loop.time() - begun))

        await asyncio.gather(wait("late", 3_600), wait("soon", 1), wait("next", 1))
        return seen

    assert loop.run(main()) == [("soon", 1), ("next", 1), ("late", 3_600)]


def test_a_frozen_actor_runs_nothing_until_it_is_thawed() -> None:
    loop = VirtualLoop()
    actor = Actor("a")
    beats: list[float] = []

    async def beat() -> None:
        while True:
            await asyncio.sleep(1)
            beats.append(loop.time() - 1_000)

    async def main() -> None:
        loop.spawn(actor, beat(), "beat")
        await asyncio.sleep(2.5)
        loop.freeze(actor)
        await asyncio.sleep(10)
        assert beats == [1, 2]
        loop.thaw(actor)
        await asyncio.sleep(1.7)

    loop.run(main())
    assert beats == [1, 2, 12.5, 13.5]


def test_tasks_that_wait_for_each_other_are_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        VirtualLoop().run(main())


def test_a_program_that_goes_on_without_time_passing_is_a_livelock() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110  (that is the point)
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        VirtualLoop().run(main())
