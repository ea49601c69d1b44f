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
