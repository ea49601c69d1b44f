"""A message's copies, at the moments at which they are easily forgotten."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from schema import fast, pb
from tests.eventually import eventually
from tests.fakes import FakeQueue
from tests.unit.worker.rig import FaultyEngine, Rig, job, running, some
from worker.assembly import Tuning, Worker
from worker.ports import Holding, ListedModel

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


async def test_an_image_that_is_to_run_alone_leaves_the_batch_it_was_chosen_for() -> None:
    """Its sender says so while the worker asks whether the batch is still wanted."""
    rig = Rig(FaultyEngine(step_s=0.01), wanted_every_s=60.0, receive_wait_s=0)
    answers = rig.wanted.ask
    batches: list[list[str]] = []

    async def ask(worker_id: str, held: Sequence[Holding], models: Sequence[ListedModel]) -> Sequence[bool]:
        if len(held) > 1 and not batches:
            batches.append([each.generation_id for each in held])
            await rig.send(job(batches[0][0][1:], dispatch=2, solo=True))
            await eventually(lambda: rig.metric("duplicates_total", kind="attached") == 1)
        return await answers(worker_id, held, models)

    rig.wanted.ask = ask  # type: ignore[method-assign]
    await rig.send(*some(range(12)))
    async with running(rig):
        await rig.idle()
    (first, *mates) = batches[0]
    started = {each.image.generation_id: each for each in rig.of(fast.ImageStarted)}
    assert (started[first].solo, started[first].batch_size, started[first].dispatch) == (True, 1, 2)
    assert not any(started[mate].solo for mate in mates)


async def test_a_suspicion_outlives_a_newer_dispatch() -> None:
    rig = Rig(wanted_every_s=60.0, receive_wait_s=0)
    answers = rig.wanted.ask

    async def ask(worker_id: str, held: Sequence[Holding], models: Sequence[ListedModel]) -> Sequence[bool]:
        rig.wanted.ask = answers  # type: ignore[method-assign]
        await rig.send(job(1, dispatch=2))
        await eventually(lambda: rig.metric("duplicates_total", kind="attached") == 1)
        return await answers(worker_id, held, models)

    rig.wanted.ask = ask  # type: ignore[method-assign]
    await rig.send(job(1))
    for _ in range(2):
        assert await rig.jobs.receive(limit=1, wait_s=0, visibility_s=0)
    async with running(rig):
        await rig.idle()
    assert [(each.dispatch, each.solo) for each in rig.of(fast.ImageStarted)] == [(2, True)]


async def test_a_newer_dispatch_that_says_something_else_replaces_one_that_waits() -> None:
    """Also when it is one that this worker refuses: a sender's mistake ends no worker."""
    rig = Rig(wanted_every_s=60.0, receive_wait_s=0)
    answers = rig.wanted.ask

    async def ask(worker_id: str, held: Sequence[Holding], models: Sequence[ListedModel]) -> Sequence[bool]:
        rig.wanted.ask = answers  # type: ignore[method-assign]
        await rig.send(job(1, dispatch=2, model="elsewhere"), job(2, dispatch=2, size=128))
        await eventually(lambda: rig.metric("duplicates_total", kind="attached") == 2)
        return await answers(worker_id, held, models)

    rig.wanted.ask = ask  # type: ignore[method-assign]
    await rig.send(*some(range(4)))
    async with running(rig):
        await rig.idle()
    assert rig.failed() == {"g1": pb.AttemptFailure.UNSUPPORTED}
    rendered = {each.image.generation_id: (each.dispatch, each.width) for each in rig.of(fast.ImageRendered)}
    assert rendered == {"g0": (1, 64), "g2": (2, 128), "g3": (1, 64)}


async def test_an_answer_about_an_older_dispatch_does_not_drop_a_newer_one() -> None:
    """Core has sent the image again while it answered: no other worker has the newer job."""
    rig = Rig(wanted_every_s=60.0, receive_wait_s=0)
    answers = rig.wanted.ask

    async def ask(worker_id: str, held: Sequence[Holding], models: Sequence[ListedModel]) -> Sequence[bool]:
        rig.wanted.ask = answers  # type: ignore[method-assign]
        assert [each.dispatch for each in held] == [1]
        await rig.send(job(1, dispatch=2))
        await eventually(lambda: rig.metric("duplicates_total", kind="attached") == 1)
        return [False]

    rig.wanted.ask = ask  # type: ignore[method-assign]
    await rig.send(job(1))
    async with running(rig):
        await eventually(lambda: rig.rendered() == ["g1"])
        await rig.idle()
    assert [each.dispatch for each in rig.of(fast.ImageRendered)] == [2]


async def test_a_failure_answers_for_its_own_dispatch_alone() -> None:
    """The sender may know the newer one by now, and take the report for one that comes too late."""
    rig = Rig(FaultyEngine(step_s=0.05), receive_wait_s=0)
    async with running(rig):
        await rig.send(job(1, steps=40))
        await eventually(lambda: rig.engine.running == 1)
        await rig.send(job(1, steps=40, dispatch=2))
        await eventually(lambda: rig.metric("duplicates_total", kind="attached") == 1)
        rig.engine.raises = {"g1"}
        await rig.idle()
    assert [each.dispatch for each in rig.of(fast.ImageAttemptFailed)] == [1, 2]
    assert [each.dispatch for each in rig.of(fast.ImageStarted)] == [1, 2]


async def test_a_picture_answers_for_every_dispatch() -> None:
    rig = Rig(FaultyEngine(step_s=0.05), receive_wait_s=0)
    async with running(rig):
        await rig.send(job(1, steps=20))
        await eventually(lambda: rig.engine.running == 1)
        await rig.send(job(1, steps=20, dispatch=2))
        await eventually(lambda: rig.metric("duplicates_total", kind="attached") == 1)
        await rig.idle()
    assert rig.rendered() == ["g1"]
    assert len(rig.of(fast.ImageStarted)) == 1
