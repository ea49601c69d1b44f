"""Erasure: prompt, objects and views; whatever fails or comes late meanwhile."""

import asyncio
from hashlib import sha256

import pytest

from core.api.errors import NotFound
from core.assembly import Core
from core.domain import commands as c
from core.domain import events as e
from core.domain.decide import NotEnded
from core.domain.state import Ending
from core.domain.transaction import Order
from core.erasure.object_deletions import LOOKS_S
from infra.retry import Retryable
from infra.s3 import StoredObject
from schema import fast, messages, pb
from tests import virtual_time
from tests.eventually import eventually
from tests.unit.core.rig import Worker, World, item, rendered, working
from tests.unit.core.test_replies import ending


async def made(world: World, core: Core, *ids: str, n: int = 1, key: str = "") -> None:
    """Submitted, rendered and published."""
    await core.service.submit([item(each, n=n, key=key and f"{key}-{each}") for each in ids])
    async with working(Worker(world)):
        await eventually(lambda: all(ending(core, each) is Ending.SUCCEEDED for each in ids), 60)


def nothing_left(world: World, generation_id: str) -> bool:
    """Neither an object, nor a prompt."""
    keys = [*world.public.objects, *world.temp.objects]
    events = [each for each, _ in world.log.events if each.generation_id == generation_id]
    own = {
        f"{each.event.public_token}/{each.event.sha256.hex()}.png"
        for each in events
        if isinstance(each.event, e.ImageRendered)
    }
    return (
        not [key for key in keys if key in own or key.startswith(f"temp/{generation_id}/")]
        and generation_id not in world.log._prompts
    )


def test_what_is_erased_shows_its_story_and_no_content_and_leaves_no_object() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await made(world, core, "g", "other", n=2)
            before = await core.service.get("ann", "g")
            erased, shown = await core.service.erase("ann", "g", operator=False)
            assert erased
            assert shown == await core.service.get("ann", "g")
            [other, listed] = (await core.service.list("ann", page_size=10, cursor="", status=0))[0]
            assert listed == shown
            assert (int(shown.status), shown.erased, shown.version) == (3, True, before.version + 1)
            assert (shown.prompts.prompt, shown.prompts.negative_prompt, shown.spec.seed) == ("", "", 0)
            for image in shown.images:
                assert int(image.status) == pb.ImageStatus.ERASED
                assert (image.seed, image.public_key, image.sha256, image.size_bytes) == (0, "", b"", 0)
            assert (shown.spec.model, shown.spec.n, shown.finished_at_ms) == ("demo", 2, before.finished_at_ms)
            await eventually(lambda: nothing_left(world, "g"))
            assert world.erasures.ids == ["g"]
            assert other.prompts.prompt == "a red circle"
            assert [each.public_key for each in other.images] == [*world.public.objects]
            assert world.types("g")[-1] == "generation.erased"

    virtual_time.run(main())


def test_it_is_erased_once_and_only_by_its_tenant_or_an_operator_and_only_after_its_end() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await core.service.submit([item("g")])
            erased, shown = await core.service.erase("ann", "g", operator=False)
            assert (erased, int(shown.status), shown.erased) == (False, 1, False)
            for tenant, generation_id, operator in (
                ("bob", "g", False),
                ("bob", "g", True),
                ("", "g", False),
                ("ann", "x", False),
            ):
                with pytest.raises(NotFound):
                    await core.service.erase(tenant, generation_id, operator=operator)
            await core.service.cancel("ann", "g")
            first = await core.service.erase("", "g", operator=True)
            second = await core.service.erase("ann", "g", operator=False)
            assert first == second
            assert first[0]
            causes = [each.event.cause for each, _ in world.log.events if isinstance(each.event, e.GenerationErased)]
            assert causes == [e.Cause.OPERATOR]

    virtual_time.run(main())


def test_a_repeated_request_is_the_erased_generation_and_no_new_one() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await made(world, core, "g", key="k")
            _, shown = await core.service.erase("ann", "g", operator=False)
            for repeated in await core.service.submit([item("new", key="k-g"), item("g")]):
                assert int(repeated.outcome) == pb.SubmitOutcome.REPLAYED
                assert repeated.generation == shown
            assert world.types("new") == []
            assert "g" not in world.log._prompts

    virtual_time.run(main())


@pytest.mark.parametrize("bucket", ["temp", "public"])
def test_a_store_that_is_away_is_tried_until_it_confirms_across_restarts(bucket: str) -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await made(world, core, "g", n=2)
            await world.temp.put("temp/g/0/zombie", b"z", content_type="image/png", sha256=digest(b"z"))
            getattr(world, bucket).unreachable = True
            assert (await core.service.erase("ann", "g", operator=False))[0]
            await asyncio.sleep(300)
            assert not nothing_left(world, "g")
        async with world.core() as core:
            await asyncio.sleep(100)
            assert not nothing_left(world, "g")
            getattr(world, bucket).unreachable = False
            await eventually(lambda: nothing_left(world, "g"), 400)
            assert core.metrics.deletions.labels("failed")._value.get() >= 1

    virtual_time.run(main())


def test_one_that_the_store_refuses_holds_up_no_other() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await made(world, core, *(f"g{number}" for number in range(8)))
            world.public.stubborn = {key for key in world.public.objects if refused_key(world, key)}
            for number in range(8):
                assert (await core.service.erase("ann", f"g{number}", operator=False))[0]
            free = [f"g{number}" for number in range(8) if f"g{number}" not in REFUSED]
            await eventually(lambda: all(nothing_left(world, each) for each in free), 60)
            assert set(world.public.objects) == world.public.stubborn
            assert core.reasons() == []

    virtual_time.run(main())


REFUSED = ("g0", "g1", "g2", "g3")


def refused_key(world: World, key: str) -> bool:
    return any(
        isinstance(each.event, e.ImagePublished) and each.event.public_key == key and each.generation_id in REFUSED
        for each, _ in world.log.events
    )


def test_what_comes_late_is_deleted_too() -> None:
    """A draft with its reply; one whose reply never comes; a copy that was under way."""

    async def main() -> None:
        world = World()
        async with world.core() as core:
            await core.service.submit([item("g")])
            job = await taken(world)
            async with working(Worker(world)):
                await world.jobs.send([])  # the worker finds nothing: the job is in other hands
                await core.service.cancel("ann", "g")
            assert (await core.service.erase("ann", "g", operator=False))[0]
            await eventually(lambda: len(world.log.to_delete) == 1 and world.log.to_delete["g"].looks == 1)
            late = rendered(job, "att_late", b"late")
            world.temp.unreachable = True  # its reply is faster than anything that deletes
            world.temp.objects[late.temp_key] = (b"late", stored(late))
            await Worker(world).say(late)
            await eventually(lambda: world.log.to_delete["g"].looks == 0)
        async with world.core() as core:
            world.temp.unreachable = False
            await eventually(lambda: nothing_left(world, "g"), 120)
            await eventually(lambda: world.log.to_delete["g"].looks == 1)
            world.temp.objects["temp/g/0/att_mute"] = (b"mute", stored(late))
            await eventually(lambda: nothing_left(world, "g"), LOOKS_S[0] + 30)
            await asyncio.sleep(sum(LOOKS_S) + 60)
            assert world.log.to_delete == {}

    virtual_time.run(main())


def test_a_copy_that_lands_behind_the_erasure_does_not_stay() -> None:
    async def main() -> None:
        world = World()
        world.failpoints.stop_at = "core.after_copy"
        async with world.core() as core:
            await core.service.submit([item("g", n=2)])
            job = await taken(world)
            data = b"g 0"
            won = rendered(job, "att_1", data)
            await world.temp.put(won.temp_key, data, content_type="image/png", sha256=won.sha256)
            await Worker(world).say(won)
            await eventually(lambda: "core.after_copy" in world.failpoints.names)
            await core.service.cancel("ann", "g")
            assert (await core.service.erase("ann", "g", operator=False))[0]
            await eventually(lambda: nothing_left(world, "g"))
            [key] = [
                f"{each.event.public_token}/{each.event.sha256.hex()}.png"
                for each, _ in world.log.events
                if isinstance(each.event, e.ImageRendered)
            ]
            world.public.objects[key] = (data, stored(won))  # the store was slow
        async with world.core():  # and core died before it could take it back
            await eventually(lambda: nothing_left(world, "g"), LOOKS_S[0] + 60)

    virtual_time.run(main())


def test_without_its_list_nothing_is_erased_and_with_it_what_got_stuck_is_carried_on() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await made(world, core, "g", "h")
            world.erasures.unreachable = True
            with pytest.raises(Retryable):
                await core.service.erase("ann", "g", operator=False)
            assert not (await core.service.get("ann", "g")).erased
            world.erasures.unreachable = False
            world.log.full = True
            with pytest.raises(Retryable):
                await core.service.erase("ann", "h", operator=False)
            assert world.erasures.ids[-1:] == ["h"]
            world.log.full = False
            await eventually(lambda: world.types("h")[-1] == "generation.erased", 60)

    virtual_time.run(main())


def test_an_older_log_is_erased_again_before_anything_is_served() -> None:
    """Ended, running, decided but unpublished, and never heard of."""

    async def main() -> None:
        world = World()
        world.failpoints.stop_at = "core.mid_copy"
        async with world.core() as core:
            await core.service.submit([item("decided"), item("running", n=2), item("stays")])
            job = await taken(world, "decided")
            won = rendered(job, "att_1", b"decided 0")
            await world.temp.put(won.temp_key, b"decided 0", content_type="image/png", sha256=won.sha256)
            await Worker(world).say(won)
            await eventually(lambda: "image.rendered" in world.types("decided"))
        world.failpoints.stop_at = ""
        world.erasures.ids += ["decided", "running", "unknown", "running"]
        world.jobs.purge()
        async with world.core() as core:
            assert sorted(core.writer.open) == ["stays"]
            for each in ("decided", "running"):
                shown = await core.service.get("ann", each)
                assert (shown.erased, int(shown.status), shown.prompts.prompt) == (True, 5, "")
                assert each not in world.log._prompts
                await eventually(lambda each=each: nothing_left(world, each))  # type: ignore[misc]
            assert (await core.service.get("ann", "stays")).prompts.prompt == "a red circle"
            assert (await taken(world, "stays")).image.generation_id == "stays"

    virtual_time.run(main())


def test_a_list_that_cannot_be_read_is_waited_for() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await made(world, core, "g")
        world.erasures.ids.append("g")
        world.erasures.unreachable = True
        core = Core(world.ports(), world.tuning)
        loading = asyncio.ensure_future(core.load())
        await asyncio.sleep(100)
        assert not loading.done()
        assert any("list of erasures" in reason for reason in core.reasons())
        world.erasures.unreachable = False
        await eventually(loading.done)
        assert world.types("g")[-1] == "generation.erased"

    virtual_time.run(main())


def test_decided_for_one_that_has_not_ended_it_is_refused() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            await core.service.submit([item("g")])
            [result] = await core.writer.carry_out([Order("g", c.Erase())])
            assert isinstance(result.refusal, NotEnded)

    virtual_time.run(main())


def digest(data: bytes) -> bytes:
    return sha256(data).digest()


def stored(reply: fast.ImageRendered) -> StoredObject:
    return StoredObject(key=reply.temp_key, size_bytes=reply.size_bytes, sha256=reply.sha256, content_type="image/png")


async def taken(world: World, of: str = "") -> fast.ImageJob:
    """A job from the queue, of that generation."""
    while True:
        for received in await world.jobs.receive(limit=1, wait_s=5, visibility_s=3_600):
            job = messages.decode(received.body)
            assert isinstance(job, fast.ImageJob)
            if job.image.generation_id == of or not of:
                return job
