"""The order of effects: started accepted, then admitted; stored, then rendered accepted, then deleted."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from infra.retry import Retryable
from infra.sqs import Outgoing, Received
from schema import fast, pb
from tests.eventually import eventually
from tests.unit.worker.rig import FaultyEngine, Rig, generation, job, quiet, running, some
from worker.engines.contract import RenderJob, Report, Stepped
from worker.ports import Holding, ListedModel, Reply

pytestmark = pytest.mark.asyncio


async def test_started_is_accepted_before_admission_and_everything_before_deletion() -> None:
    engine = FaultyEngine()
    rig = Rig(engine)
    unannounced: list[str] = []
    early: list[str] = []

    def on_admit(jobs: Sequence[RenderJob]) -> None:
        started = {each.image.generation_id for each in rig.of(fast.ImageStarted)}
        unannounced.extend(generation(each) for each in jobs if generation(each) not in started)

    engine.on_admit = on_admit
    delete = rig.jobs.delete

    async def checked_delete(receipts: Sequence[str]) -> list[bool]:
        held = {receipt: held for held, _, receipt in rig.worker.window.receipts()}
        early.extend(held[each].id for each in receipts if held[each].job.image.generation_id not in rig.rendered())
        return await delete(receipts)

    rig.jobs.delete = checked_delete  # type: ignore[method-assign]
    # The ports were bound to the queue's own method; bind the worker's deletions to the checking one.
    rig = _rebuilt(rig)
    async with running(rig):
        await rig.send(*some(range(20)))
        await rig.idle()
    assert len(rig.rendered()) == 20
    assert not unannounced
    assert not early
    for rendered in rig.of(fast.ImageRendered):
        assert rendered.temp_key in rig.bucket.objects


def _rebuilt(rig: Rig) -> Rig:
    from worker.assembly import Tuning, Worker

    rig.worker = Worker(rig.ports, Tuning(worker_id="w", receive_wait_s=1, drain_s=5.0))
    return rig


async def test_nothing_is_deleted_while_replies_are_refused() -> None:
    rig = Rig()
    rig.replies.queue.refuse = 3  # started and rendered are refused in turn, and sent again
    async with running(rig):
        await rig.send(*some(range(2)))
        await rig.idle()
    assert sorted(rig.rendered()) == ["g0", "g1"]
    assert len(rig.of(fast.ImageStarted)) == 2


async def test_an_unreachable_reply_queue_holds_the_gpu_and_loses_nothing() -> None:
    rig = Rig()
    rig.replies.queue.unreachable = True
    async with running(rig):
        await rig.send(*some(range(3)))
        await eventually(lambda: any("replies" in reason for reason in rig.worker.health.reasons()))
        assert not rig.engine.admitted
        rig.replies.queue.unreachable = False
        await rig.idle()
    assert len(rig.rendered()) == 3
    assert not rig.worker.health.reasons() or rig.worker.health.reasons() == ["draining"]


async def test_an_unreachable_store_presses_back_on_the_gpu_and_loses_nothing() -> None:
    rig = Rig(FaultyEngine(max_batch=2), line_images=2, uploads=2, encoders=1)
    rig.bucket.unreachable = True
    async with running(rig):
        await rig.send(*some(range(30)))
        await eventually(lambda: rig.metric("depth", part="encode") == 2 == rig.metric("depth", part="upload"))
        rendered_on_gpu = sum(map(len, rig.engine.admitted))
        # at most: two uploading, two queued for it, one encoding, two queued for that, a batch that waits, one ready
        assert rendered_on_gpu <= 2 + 2 + 1 + 2 + 2 + 2
        rig.bucket.unreachable = False
        await rig.idle()
    assert len(set(rig.rendered())) == 30
    reasons = {each.timings.wait_reason for each in rig.of(fast.ImageRendered)}
    assert "backpressure" in reasons


async def test_the_next_batch_is_announced_while_the_previous_one_renders() -> None:
    engine = FaultyEngine(max_batch=2)
    rig = Rig(engine)
    next_announced = threading.Event()
    whole_send, whole_step = rig.replies.send, engine.step
    overlapped: list[bool] = []

    async def send(sent: Sequence[Reply]) -> Sequence[bool]:
        answer = await whole_send(sent)
        if len(rig.of(fast.ImageStarted)) > 2:
            next_announced.set()
        return answer

    def step(report: Report) -> Stepped:
        stepped = whole_step(report)
        if stepped.finished and not overlapped:  # the first to finish is still on the thread
            overlapped.append(next_announced.wait(10))
        return stepped

    rig.ports = replace(rig.ports, replies=SimpleNamespace(send=send))
    engine.step = step  # type: ignore[method-assign]
    async with running(_rebuilt(rig)):
        await rig.send(*some(range(4)))
        await rig.idle()
    assert overlapped == [True]


async def test_a_solo_image_has_the_worker_to_itself() -> None:
    engine = FaultyEngine(max_batch=4)
    rig = Rig(engine)
    wrong: list[str] = []

    def on_admit(jobs: Sequence[RenderJob]) -> None:
        open_ids = {held.job.image.generation_id for held in rig.worker.window.busy()}
        mine = {generation(each) for each in jobs}
        if (mine & {"gs1", "gs2"} and open_ids != mine) or (open_ids & {"gs1", "gs2"} and len(open_ids) > 1):
            wrong.append(f"{mine} beside {open_ids}")

    engine.on_admit = on_admit
    async with running(rig):
        await rig.send(*some(range(6)), job("s1", solo=True), job("s2", solo=True), *some(range(6, 10)))
        await rig.idle()
    assert len(rig.rendered()) == 12
    assert not wrong
    assert ["gs1"] in engine.admitted
    assert {each.image.generation_id for each in rig.of(fast.ImageStarted) if each.solo} == {"gs1", "gs2"}
    assert all(each.batch_size == 1 for each in rig.of(fast.ImageStarted) if each.solo)


async def test_a_message_delivered_for_the_third_time_runs_alone() -> None:
    rig = Rig()
    await rig.send(job(1), job(2))
    for _ in range(2):
        received: list[Received] = await rig.jobs.receive(limit=1, wait_s=0, visibility_s=0)
        assert [each.receive_count for each in received]
    async with running(rig):
        await rig.idle()
    assert {each.image.generation_id: each.solo for each in rig.of(fast.ImageStarted)} == {"g1": True, "g2": False}


async def test_higher_priority_goes_first() -> None:
    engine = FaultyEngine(step_s=0.02, max_batch=1)
    async with running(Rig(engine)) as rig:
        await rig.send(job("first"), job("low", priority=-5), job("high", priority=5))
        await rig.idle()
    assert engine.admitted.index(["ghigh"]) < engine.admitted.index(["glow"])


async def test_an_unwanted_image_is_dropped_before_it_runs_and_its_message_deleted() -> None:
    rig = Rig()
    rig.wanted.unwanted = {"g1"}
    async with running(rig):
        await rig.send(job(1), job(2))
        await rig.idle()
    assert rig.rendered() == ["g2"]
    assert ["g2"] in rig.engine.admitted
    assert not [each for each in rig.of(fast.ImageStarted) if each.image.generation_id == "g1"]


async def test_an_unwanted_running_image_leaves_at_the_next_step() -> None:
    engine = FaultyEngine(step_s=0.01)
    async with running(Rig(engine)) as rig:
        await rig.send(job(1, steps=150), job(2, steps=150))
        await eventually(lambda: any(each.running and each.step > 2 for each in rig.wanted.heard))
        rig.wanted.unwanted = {"g1", "g2"}
        began = asyncio.get_running_loop().time()
        await rig.idle()
        assert asyncio.get_running_loop().time() - began < 1.0
    assert not rig.rendered()
    assert not rig.failed()


async def test_a_dead_inquiry_does_not_stop_the_work() -> None:
    rig = Rig()

    async def never(worker_id: str, held: object, models: object) -> Sequence[bool]:
        await asyncio.Event().wait()
        return []

    rig.wanted.ask = never  # type: ignore[method-assign]
    async with running(rig):
        await rig.send(*some(range(12)))
        await rig.idle()
    assert len(rig.rendered()) == 12


async def test_an_inquiry_that_is_answered_again_is_asked_again() -> None:
    """At once, and not when the time is over for which batches are formed without asking after a failed call."""
    rig = Rig(FaultyEngine(step_s=0.01), wanted_every_s=0.5)
    answers = rig.wanted.ask

    async def once_out_of_reach(
        worker_id: str, held: Sequence[Holding], models: Sequence[ListedModel]
    ) -> Sequence[bool]:
        rig.wanted.ask = answers  # type: ignore[method-assign]
        raise Retryable("planted")

    rig.wanted.ask = once_out_of_reach  # type: ignore[method-assign]
    async with running(rig):
        await rig.send(job(1, steps=150))
        await eventually(lambda: any(each.running for each in rig.wanted.heard))
        await rig.idle()
        rig.wanted.unwanted = {"g2"}
        await rig.send(job(2))
        await rig.idle()
    assert rig.rendered() == ["g1"]


async def test_the_window_is_bounded_and_the_rest_stays_on_the_queue() -> None:
    engine = FaultyEngine(step_s=0.05, max_batch=4)
    async with running(Rig(engine, window_images=8)) as rig:
        await rig.send(*some(range(40), steps=100))
        await eventually(lambda: rig.worker.window.waiting_count() == 8)
        assert len(rig.worker.window.held()) <= 8 + 4 + 4
        rig.engine.raises = {f"g{number}" for number in range(40)}
        rig.wanted.unwanted = {f"g{number}" for number in range(40)}
        await rig.idle()


async def test_a_drain_gives_back_what_waits_and_finishes_what_runs() -> None:
    engine = FaultyEngine(step_s=0.02, max_batch=4)
    rig = Rig(engine)
    async with running(rig):
        await rig.send(*some(range(20), steps=60))
        await eventually(lambda: engine.admitted)
        rig.draining.set()

        async def assert_the_rest_is_back() -> None:
            assert (await rig.jobs.depth()).visible >= 20 - 4 - 4

        await quiet(assert_the_rest_is_back, 1.0)
        assert not rig.rendered()
    started = {each.image.generation_id for each in rig.of(fast.ImageStarted)}
    assert set(rig.rendered()) | set(rig.failed()) == started
    assert set(engine.admitted[0]) <= set(rig.rendered())
    assert set(rig.failed().values()) <= {int(pb.AttemptFailure.DRAINED)}
    depth = await rig.jobs.depth()
    assert (depth.visible, depth.in_flight) == (20 - len(started), 0)


async def test_past_its_deadline_a_drain_reports_what_did_not_finish() -> None:
    engine = FaultyEngine(step_s=0.02, max_batch=4)
    rig = Rig(engine, drain_s=2.2)
    async with running(rig):
        await rig.send(*some(range(4), steps=150))
        await eventually(lambda: engine.admitted)
        rig.draining.set()
    started = {each.image.generation_id for each in rig.of(fast.ImageStarted)}
    assert started
    assert rig.failed() == dict.fromkeys(started, int(pb.AttemptFailure.DRAINED))
    depth = await rig.jobs.depth()
    assert (depth.visible, depth.in_flight) == (4 - len(started), 0)


async def test_copies_are_deleted_with_the_first_and_a_late_copy_of_a_settled_dispatch_at_once() -> None:
    engine = FaultyEngine(step_s=0.02)
    async with running(Rig(engine)) as rig:
        await rig.send(job(1, steps=10), job(1, steps=10), job(1, steps=10))
        await rig.idle()
        await rig.send(job(1, steps=10))
        await rig.idle()
        assert rig.rendered() == ["g1"]
        await rig.send(job(1, steps=10, dispatch=2))
        await rig.idle()
    assert rig.rendered() == ["g1", "g1"]
    assert rig.metric("duplicates_total", kind="attached") == 2
    assert rig.metric("duplicates_total", kind="settled") == 1


async def test_garbage_goes_to_the_dead_queue_and_stays_put_while_that_is_out_of_reach() -> None:
    rig = Rig(visibility_s=1)
    rig.dead.queue.unreachable = True
    await rig.jobs.send([Outgoing(body=b"garbage", attributes={"a": "b"})])
    async with running(rig):
        await rig.send(job(1))
        await eventually(lambda: rig.rendered() == ["g1"])
        await eventually(lambda: rig.metric("quarantined_total") >= 1)
        assert not rig.dead.accepted
        rig.dead.queue.unreachable = False
        await rig.idle()
    assert rig.dead.accepted == [b"garbage"]
