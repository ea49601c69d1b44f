"""Behind the upload: replies that wait hold no pictures, and messages that cannot be deleted hold up no reply."""

import asyncio
import gc
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from infra.retry import Permanent
from schema import fast
from tests.eventually import eventually
from tests.fakes import FakeQueue
from tests.unit.worker.rig import FaultyEngine, Rig, decoded, job, running, some
from worker.assembly import Tuning, Worker
from worker.engines.contract import Picture
from worker.holding.types import Encoded
from worker.ports import Reply

pytestmark = pytest.mark.asyncio
TUNING = Tuning(worker_id="w", receive_wait_s=0, drain_s=3.0)


def pictures() -> int:
    return sum(type(each) in (Picture, Encoded) for each in gc.get_objects())  # isinstance wakes lazy modules of torch


async def test_what_waits_for_its_reply_holds_no_picture() -> None:
    rig = Rig()
    accepts = False

    async def send(sent: Sequence[Reply]) -> Sequence[bool]:
        now = [each for each in sent if accepts or not isinstance(decoded(each.body), fast.ImageRendered)]
        if now:
            await rig.replies.send(now)
        return [each in now for each in sent]

    rig.ports = replace(rig.ports, replies=SimpleNamespace(send=send))
    rig.worker = Worker(rig.ports, replace(TUNING, encoders=1, uploads=1, line_images=32))
    rig.bucket.unreachable = True  # until all have started: one queue takes both kinds of replies
    before = pictures()
    async with running(rig):
        await rig.send(*some(range(20)))
        await eventually(lambda: len(rig.of(fast.ImageStarted)) == 20)
        rig.bucket.unreachable = False
        await eventually(lambda: len(rig.bucket.objects) == 20)
        assert not rig.rendered()
        assert pictures() - before <= 2 * 2  # the last one of each task
        accepts = True
        await rig.idle()
    assert len(rig.rendered()) == 20


class Keeping(FakeQueue):
    """Refuses deletions for as long as `keeps`."""

    keeps = True

    async def delete(self, receipts: Sequence[str]) -> list[bool]:
        if self.keeps:
            raise Permanent("AccessDenied")
        return await super().delete(receipts)


def keeping(**tuning: Any) -> tuple[Rig, Keeping]:
    rig = Rig()
    rig.jobs = queue = Keeping("jobs")
    rig.ports = replace(rig.ports, jobs=queue)
    rig.worker = Worker(rig.ports, replace(TUNING, **tuning))
    return rig, queue


async def test_a_queue_that_refuses_deletions_holds_up_no_reply_and_in_the_end_the_receiver() -> None:
    rig, queue = keeping(undeleted=50, uploads=1, encoders=1, line_images=4, window_images=10)
    bound = 50 + 2 * 4 + 2
    before_it = 10 + 10 + 3 * 8 + 2 * 8 + 4  # waiting, in one poll, on the GPU and aside, undecoded, on their way
    async with running(rig):
        await rig.send(*some(range(150)))
        await eventually(lambda: any("answered or deleted" in each for each in rig.worker.health.reasons()), 20)
        await eventually(lambda: not rig.worker.window.upcoming())
        before = rig.metric("gpu_seconds_total", cause="backpressure")
        await eventually(lambda: rig.metric("gpu_seconds_total", cause="backpressure") > before + 1.0)
        assert rig.metric("gpu_overlapping_seconds") < 0.1
        received = len(rig.rendered())
        assert len(rig.worker.window.held()) == received
        assert bound <= received <= bound + before_it
        assert (await queue.depth()).visible == 150 - received
        queue.keeps = False
        await rig.idle()
        await eventually(lambda: not rig.worker.health.reasons())
    assert sorted(rig.rendered()) == sorted(f"g{number}" for number in range(150))
    assert rig.metric("redelivered_total") == 0


async def test_a_newer_dispatch_is_rendered_although_the_answered_one_is_not_deleted() -> None:
    rig, queue = keeping()
    failing = FaultyEngine()
    rig.ports = replace(rig.ports, engines={"m": failing})
    rig.worker = Worker(rig.ports, replace(TUNING, visibility_s=1))
    failing.raises = {"g1"}
    async with running(rig):
        await rig.send(job(1))
        await eventually(lambda: "g1" in rig.failed())
        failing.raises = set()
        await rig.send(job(1), job(1, dispatch=2))
        await eventually(lambda: rig.rendered() == ["g1"])
        await eventually(lambda: rig.metric("duplicates_total", kind="settled") >= 1)  # the copy of the first
        queue.keeps = False
        await rig.idle()
    assert rig.rendered() == ["g1"]


async def test_what_is_answered_keeps_nobody_from_running_alone_and_gets_its_chance_in_a_drain() -> None:
    rig, queue = keeping(drain_s=20.0)
    async with running(rig):
        await rig.send(job(1))
        await eventually(lambda: rig.rendered() == ["g1"])
        await rig.send(job(2, solo=True))
        await eventually(lambda: rig.rendered() == ["g1", "g2"])
        rig.draining.set()
        await asyncio.sleep(0)
        await eventually(lambda: any("draining" in each for each in rig.worker.health.reasons()))
        queue.keeps = False
    depth = await queue.depth()
    assert (depth.visible, depth.in_flight) == (0, 0)
    assert not rig.failed()
