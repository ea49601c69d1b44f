"""A worker that is told to go while nobody answers it: it goes all the same, and in time for its supervisor."""

import asyncio

import pytest

from tests.eventually import eventually
from tests.unit.worker.rig import FaultyEngine, Rig, job, running

pytestmark = pytest.mark.asyncio

SUPERVISOR_S = 10.0
"""As far above the drain's deadline as supervisord's patience is; each call of its own may take as long again."""


@pytest.mark.parametrize("steps", [1, 150], ids=["all rendered", "rendering"])
async def test_a_drain_ends_in_time_though_the_queues_hang(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    rig = Rig(FaultyEngine(step_s=0.02, max_batch=2), drain_s=2.5)

    async def never() -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(20):
        async with running(rig):
            await rig.send(*[job(number, steps=steps) for number in range(12)])
            await eventually(lambda: rig.engine.admitted)
            for fake in (rig.jobs, rig.replies.queue):
                monkeypatch.setattr(fake, "_arrive", never)
            loop = asyncio.get_running_loop()
            told_s = loop.time()
            rig.draining.set()
        assert loop.time() - told_s < SUPERVISOR_S


async def test_what_a_drain_gives_back_does_not_come_back_by_its_own_last_poll() -> None:
    """Each time it did so, it would count as a delivery, and the third delivery of an image is a suspicion."""
    rig = Rig(FaultyEngine(step_s=0.02, max_batch=4))
    async with running(rig):
        await rig.send(*[job(number, steps=60) for number in range(7)])
        await eventually(lambda: len(rig.worker.window.busy()) == 4 and rig.worker.window.waiting_count() == 3)
    given_back = await rig.jobs.receive(limit=10, wait_s=0, visibility_s=30)
    assert len(given_back) == 3
    assert {each.receive_count for each in given_back} == {2}
