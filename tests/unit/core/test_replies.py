"""Replies in every wrong order, twice, late, foreign and corrupt."""

import asyncio

import pytest

from core.assembly import Core
from core.domain.state import Ending
from infra import sqs
from schema import fast, messages
from schema.envelope import Envelope, seal
from tests import virtual_time
from tests.eventually import eventually
from tests.unit.core.rig import World, failed, item, rendered, started

DATA = b"picture"


async def one_dispatched(world: World, core: Core, generation_id: str = "g", *, n: int = 1) -> list[fast.ImageJob]:
    await core.service.submit([item(generation_id, n=n)])
    jobs: list[fast.ImageJob] = []
    while len(jobs) < n:
        for each in await world.jobs.receive(limit=10, wait_s=20, visibility_s=1_000):
            message = messages.decode(each.body)
            assert isinstance(message, fast.ImageJob)
            jobs.append(message)
    return sorted(jobs, key=lambda job: job.image.index)


async def say(world: World, *replies: messages.QueueMessage) -> None:
    await world.replies.send([sqs.Outgoing(body=messages.encode(each)) for each in replies])
    await quiet(world)


async def quiet(world: World) -> None:
    await eventually(lambda: not world.replies._messages, what="all replies are taken and deleted")


async def put(world: World, reply: fast.ImageRendered, data: bytes = DATA) -> fast.ImageRendered:
    await world.temp.put(reply.temp_key, data, content_type="image/png", sha256=reply.sha256)
    return reply


def ending(core: Core, generation_id: str = "g") -> Ending | None:
    state = core.writer.remembered(generation_id)
    return state.ending if state else None


def outcome(core: Core, kind: str, outcome: str) -> float:
    return float(core.metrics.replies.labels(kind, outcome)._value.get())


def test_rendered_before_started_and_both_twice() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [job] = await one_dispatched(world, core)
            done = await put(world, rendered(job, "att_1", DATA))
            begun = started(job, "att_1")
            await say(world, done, begun, done, begun)
            await eventually(lambda: ending(core) is Ending.SUCCEEDED)
            await say(world, done)
            assert world.types("g").count("image.rendered") == 1
            assert world.types("g").count("image.published") == 1
            assert len(world.public.objects) == 1

    virtual_time.run(main())


def test_the_first_picture_wins_and_the_losers_object_goes() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [job] = await one_dispatched(world, core)
            first, second = rendered(job, "att_1", DATA, "w1"), rendered(job, "att_2", b"other", "w2")
            await put(world, first)
            await put(world, second, b"other")
            await say(world, second, first)
            await eventually(lambda: ending(core) is Ending.SUCCEEDED)
            await eventually(lambda: not world.temp.objects, what="winner's and loser's drafts are deleted")
            [(key, (data, _))] = world.public.objects.items()
            assert data == b"other"
            assert key.endswith(f"/{second.sha256.hex()}.png")
            assert outcome(core, "rendered", "late") == 1

    virtual_time.run(main())


def test_replies_after_the_end_and_for_strangers_are_dropped() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [job] = await one_dispatched(world, core)
            await core.service.cancel("ann", "g")
            late = await put(world, rendered(job, "att_1", DATA))
            stranger = fast.ImageJob(image=fast.ImageRef(generation_id="nobody"), dispatch=1, spec=job.spec)
            await say(world, started(job, "att_1"), late, failed(job, "att_1", "w1", 1), started(stranger, "att_9"))
            assert ending(core) is Ending.CANCELLED
            assert world.types("g") == ["generation.requested", "image.dispatched", "generation.cancelled"]
            await eventually(lambda: not world.temp.objects, what="the late picture's draft is deleted")
            assert outcome(core, "started", "unknown") == 1
            assert outcome(core, "rendered", "late") == 1

    virtual_time.run(main())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        seal(Envelope(type="reply.started", version=9, payload=b"")),
        seal(Envelope(type="reply.started", version=1, payload=b"\xff\xff\xff")),
        seal(Envelope(type="reply.started", version=1, payload=b"")),
    ],
    ids=["empty", "garbage", "future", "undecodable", "invalid"],
)
def test_what_is_no_reply_is_quarantined_and_the_rest_goes_on(body: bytes) -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [job] = await one_dispatched(world, core)
            await put(world, rendered(job, "att_1", DATA))
            sealed = [body, messages.encode(job), messages.encode(rendered(job, "att_1", DATA))]
            await world.replies.send([sqs.Outgoing(body=each) for each in sealed])
            await eventually(lambda: ending(core) is Ending.SUCCEEDED)
            await quiet(world)
            assert core.metrics.quarantined._value.get() == 2
            # Of the dead letters core itself takes the job.
            await eventually(lambda: [each.body for each in world.dead._messages.values()] == [body], 60)

    virtual_time.run(main())


def test_a_truncated_reply_is_never_taken() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [job] = await one_dispatched(world, core)
            whole = messages.encode(rendered(job, "att_1", DATA))
            await world.replies.send([sqs.Outgoing(body=whole[:cut]) for cut in range(len(whole))])
            await quiet(world)
            assert core.metrics.quarantined._value.get() == len(whole)
            assert world.types("g") == ["generation.requested", "image.dispatched"]

    virtual_time.run(main())


def test_a_picture_of_another_size_is_a_failed_attempt() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [job] = await one_dispatched(world, core)
            wrong = rendered(job, "att_1", DATA)
            wrong.width = 512
            await say(world, started(job, "att_1"), wrong)
            await eventually(lambda: "image.attempt_failed" in world.types("g"))
            assert core.writer.open["g"].images[0].suspect

    virtual_time.run(main())


def test_a_full_disk_leaves_replies_on_the_queue() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [job] = await one_dispatched(world, core)
            await put(world, rendered(job, "att_1", DATA))
            world.log.full = True
            await world.replies.send([sqs.Outgoing(body=messages.encode(rendered(job, "att_1", DATA)))])
            await eventually(lambda: "log: disk full" in core.reasons(), 60)
            await asyncio.sleep(30)
            assert core.reasons() == ["log: disk full"], "the queue is well"
            depth = await world.replies.depth()
            assert depth.visible + depth.in_flight == 1
            world.log.full = False
            await eventually(lambda: ending(core) is Ending.SUCCEEDED, 60)
            await eventually(lambda: not core.reasons(), 60)

    virtual_time.run(main())


def test_a_crash_before_the_delete_repeats_harmlessly() -> None:
    async def main() -> None:
        world = World()
        world.failpoints.stop_at = "core.before_reply_delete"
        async with world.core() as core:
            [job] = await one_dispatched(world, core)
            await put(world, rendered(job, "att_1", DATA))
            await world.replies.send([sqs.Outgoing(body=messages.encode(rendered(job, "att_1", DATA)))])
            await eventually(lambda: ending(core) is Ending.SUCCEEDED)
        world.failpoints.stop_at = ""
        async with world.core() as core:
            await eventually(lambda: outcome(core, "rendered", "late") == 1, 60)
            await quiet(world)
            assert world.types("g").count("generation.succeeded") == 1

    virtual_time.run(main())


def test_a_dead_letter_queue_out_of_reach_holds_up_no_reply() -> None:
    async def main() -> None:
        world = World()
        world.dead.unreachable = True
        async with world.core() as core:
            [job] = await one_dispatched(world, core)
            done = await put(world, rendered(job, "att_1", DATA))
            await world.replies.send([sqs.Outgoing(body=b"garbage"), sqs.Outgoing(body=messages.encode(done))])
            await eventually(lambda: ending(core) is Ending.SUCCEEDED, 30)
            assert [each.body for each in world.replies._messages.values()] == [b"garbage"]
            assert core.metrics.quarantined._value.get() == 0

    virtual_time.run(main())


def test_a_foreign_message_stays_until_the_dead_letter_queue_has_it() -> None:
    async def main() -> None:
        world = World()
        world.dead.refuse = 1
        async with world.core() as core:
            await world.replies.send([sqs.Outgoing(body=b"garbage")])
            await eventually(lambda: world.dead._messages, 60)
            await quiet(world)
            assert [each.body for each in world.dead._messages.values()] == [b"garbage"]
            assert core.metrics.quarantined._value.get() == 1

    virtual_time.run(main())
