"""The worker's ledger against planted waits: each shows as that long, under its own cause.

The production worker, real threads and real time, an emulated GPU. Times are compared with what the GPU thread itself
saw, not with what was planned, so a busy machine makes the waits longer and the comparison no worse.
"""

import asyncio
from collections.abc import Mapping

import pytest

from loadtests.bench.rig import Request, Rig, gpu_seconds, serving
from tests.eventually import eventually
from worker.engines.base import Bounds
from worker.engines.emulated import EmulatedEngine

REQUEST = Request(model="m", side_px=64, steps=4)
PLANTED_S = 2.0
NEAR = 0.02
UNATTRIBUTED = 0.005
WAITS = ("no_work", "work_not_here", "backpressure")


class Account:
    """The ledger between two moments, and the time that passed."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._before = dict(gpu_seconds(rig.worker.metrics))
        self._began_s = asyncio.get_running_loop().time()

    def close(self) -> tuple[Mapping[str, float], float]:
        after = gpu_seconds(self._rig.worker.metrics)
        return {name: after[name] - self._before[name] for name in after}, (
            asyncio.get_running_loop().time() - self._began_s
        )


def gpu() -> EmulatedEngine:
    return EmulatedEngine(model="m", step_s=0.02, alpha=0.3, max_batch=4, bounds=Bounds.square(64))


class Gaps:
    """The GPU thread's own account: its longest pause, and when it last ended something."""

    def __init__(self, rig: Rig) -> None:
        self.longest_s = 0.0
        self._last_s: float | None = None
        rig.engine.on_span = self._seen

    def _seen(self, name: str, ids: object, began_s: float, ended_s: float) -> None:
        if self._last_s is not None:
            self.longest_s = max(self.longest_s, began_s - self._last_s)
        self._last_s = ended_s


async def warm(rig: Rig) -> None:
    """The model is loaded, the curve learned, everything settled."""
    rig.feed(REQUEST, range(8))
    await rig.done(deadline_s=30)


def assert_only(spent: Mapping[str, float], cause: str, longest_s: float, wall_s: float) -> None:
    assert longest_s >= PLANTED_S * (1 - NEAR)
    assert spent[cause] == pytest.approx(longest_s, rel=NEAR), (spent, longest_s)
    others = {name: spent[name] for name in WAITS if name != cause}
    assert all(seconds <= NEAR * PLANTED_S for seconds in others.values()), others
    assert spent["unattributed"] <= UNATTRIBUTED * wall_s, spent
    assert spent["overlapping"] <= UNATTRIBUTED * wall_s, spent


@pytest.mark.asyncio
async def test_a_wait_for_work_that_does_not_exist_is_no_work() -> None:
    async with serving(gpu()) as rig:
        await warm(rig)
        gaps, account = Gaps(rig), Account(rig)
        rig.feed(REQUEST, range(8, 16))
        await rig.done(deadline_s=30)
        await asyncio.sleep(PLANTED_S)
        rig.feed(REQUEST, range(16, 24))
        await rig.done(deadline_s=30)
        spent, wall_s = account.close()
    rig.verify()
    assert_only(spent, "no_work", gaps.longest_s, wall_s)


@pytest.mark.asyncio
async def test_a_wait_for_work_that_the_queue_withholds_is_work_not_here() -> None:
    async with serving(gpu()) as rig:
        await warm(rig)
        gaps, account = Gaps(rig), Account(rig)
        rig.feed(REQUEST, range(8, 16))
        await rig.done(deadline_s=30)
        rig.jobs.withheld = True
        rig.feed(REQUEST, range(16, 24))
        await asyncio.sleep(PLANTED_S)
        rig.jobs.release()
        await rig.done(deadline_s=30)
        spent, wall_s = account.close()
    rig.verify()
    assert_only(spent, "work_not_here", gaps.longest_s, wall_s)


@pytest.mark.asyncio
async def test_a_wait_for_the_store_is_backpressure() -> None:
    async with serving(gpu(), uploads=2, line_images=2) as rig:
        await warm(rig)
        gaps, account = Gaps(rig), Account(rig)
        rig.store.stop()
        rig.feed(REQUEST, range(8, 48))

        def blocked() -> bool:
            """Nothing has gone on on the GPU thread for a while, with messages left."""
            return rig.engine.last_s < asyncio.get_running_loop().time() - PLANTED_S and rig.jobs.left() > 0

        await eventually(blocked, 30)
        rig.store.go_on()
        await rig.done(deadline_s=30)
        spent, wall_s = account.close()
    rig.verify()
    assert_only(spent, "backpressure", gaps.longest_s, wall_s)
