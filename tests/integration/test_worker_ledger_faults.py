"""The worker's ledger when things go wrong or have yet to begin: those seconds have their causes, too."""

import asyncio
import time

import pytest

from loadtests.bench.rig import Request, Rig, gpu_seconds, serving
from worker.engines.base import Bounds
from worker.engines.contract import Report, Stepped
from worker.engines.emulated import EmulatedEngine

pytestmark = pytest.mark.asyncio
REQUEST = Request(model="m", side_px=64, steps=2)
PLANTED_S = 1.0
NEAR_S = 0.1


class Slow(EmulatedEngine):
    """Its first step takes PLANTED_S and raises; each reset takes as long."""

    def __init__(self) -> None:
        super().__init__(model="m", step_s=0.001, alpha=0.3, max_batch=4, bounds=Bounds.square(64))
        self.raised = False

    def step(self, report: Report) -> Stepped:
        if not self.raised:
            self.raised = True
            time.sleep(PLANTED_S)
            raise ZeroDivisionError
        return super().step(report)

    def reset(self) -> None:
        time.sleep(PLANTED_S)
        super().reset()


async def test_a_step_that_fails_and_the_reset_after_it_are_accounted_for() -> None:
    async with serving(Slow()) as rig:
        began_s = asyncio.get_running_loop().time()
        rig.feed(REQUEST, range(4))
        await rig.done(deadline_s=30)
        spent, wall_s = gpu_seconds(rig.worker.metrics), asyncio.get_running_loop().time() - began_s
    assert spent["rendering"] >= PLANTED_S
    assert spent["restarting"] >= PLANTED_S
    assert wall_s >= 2 * PLANTED_S
    assert spent["unattributed"] <= NEAR_S, spent


async def test_work_that_the_queue_withholds_before_the_first_model_is_loaded_is_not_no_work() -> None:
    engine = EmulatedEngine(model="m", step_s=0.001, alpha=0.3, max_batch=4, bounds=Bounds.square(64))
    async with serving(engine, preload=False) as rig:
        rig.jobs.withheld = True
        rig.feed(REQUEST, range(4))
        assert await _waits(rig)
        rig.jobs.release()
        await rig.done(deadline_s=30)
        spent = gpu_seconds(rig.worker.metrics)
    rig.verify()
    assert spent["work_not_here"] >= PLANTED_S - NEAR_S, spent
    assert spent["no_work"] <= NEAR_S, spent
    assert spent["unattributed"] <= NEAR_S, spent


async def _waits(rig: Rig) -> bool:
    """The wait that is planted."""
    await asyncio.sleep(PLANTED_S)
    return rig.engine.images == 0
