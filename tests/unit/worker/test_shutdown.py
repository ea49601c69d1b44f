"""A worker that is asked to stop while its queues do not answer stops in time for its supervisor."""

import asyncio

import pytest

from tests.eventually import eventually
from tests.unit.worker.rig import FaultyEngine, Rig, job, running

pytestmark = pytest.mark.asyncio

SUPERVISOR_S = 10.0
"""Above the drain's deadline by as much as supervisord waits; each call of the drain may take as long again."""


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
            asked_s = loop.time()
            rig.draining.set()
        assert loop.time() - asked_s < SUPERVISOR_S


async def test_what_a_drain_gives_back_does_not_come_back_by_its_own_last_poll() -> None:
    """Each time would count as a delivery, and an image is a suspect at its third."""
    rig = Rig(FaultyEngine(step_s=0.02, max_batch=4))
    async with running(rig):
        await rig.send(*[job(number, steps=60) for number in range(7)])
        await eventually(lambda: len(rig.worker.window.busy()) == 4 and rig.worker.window.waiting_count() == 3)
    given_back = await rig.jobs.receive(limit=10, wait_s=0, visibility_s=30)
    assert len(given_back) == 3
    assert {each.receive_count for each in given_back} == {2}
