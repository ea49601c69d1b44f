"""A message's copies, at the moments at which they are easily forgotten."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.eventually import eventually
from tests.fakes import FakeQueue
from tests.unit.worker.rig import Rig, job, running
from worker.service import Tuning, Worker

pytestmark = pytest.mark.asyncio


async def test_a_copy_that_comes_while_the_others_are_deleted_is_deleted_too() -> None:
    """The image is answered by then, so the copy is of no more use; left alone, it would stay hidden after a drain."""

    class Slow(FakeQueue):
        deletions = 0

        async def delete(self, receipts: Sequence[str]) -> list[bool]:
            self.deletions += 1
            if self.deletions == 1:
                await rig.send(job(1))
                await eventually(lambda: rig.metric("duplicates_total", kind="settled") == 1)
            return await super().delete(receipts)

    rig = Rig()
    rig.jobs = queue = Slow("jobs")
    rig.worker = Worker(replace(rig.ports, jobs=queue), Tuning(worker_id="w", receive_wait_s=1))
    async with running(rig):
        await rig.send(job(1))
        await rig.idle()
    assert queue.deletions == 2
    assert rig.rendered() == ["g1"]
