"""From decision to public picture, with a crash between any two steps, and with objects lost."""

import asyncio
import hashlib
from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from core.assembly import Core
from core.domain.state import Ending
from core.results import publisher
from infra.retry import Missing, Permanent, Retryable
from schema import fast, pb
from tests import virtual_time
from tests.eventually import eventually
from tests.fakes import FakeBucket
from tests.unit.core.rig import VISIBILITY_S, Worker, World, item, rendered, working
from tests.unit.core.test_replies import DATA, ending, one_dispatched, put, say


async def decided(world: World, core: Core) -> fast.ImageRendered:
    [job] = await one_dispatched(world, core)
    reply = await put(world, rendered(job, "att_1", DATA))
    await say(world, reply)
    return reply


@pytest.mark.parametrize("point", ["core.after_rendered", "core.mid_copy", "core.after_copy"])
def test_a_crash_at_any_step_is_resumed_and_publishes_once(point: str) -> None:
    async def main() -> None:
        world = World()
        world.failpoints.stop_at = point
        async with world.core() as core:
            await decided(world, core)
            await eventually(lambda: point in world.failpoints.names)
            assert ending(core) is Ending.OPEN
        world.failpoints.stop_at = ""
        async with world.core() as core:
            await eventually(lambda: ending(core) is Ending.SUCCEEDED)
            await eventually(lambda: not world.temp.objects)
        assert world.types("g").count("image.published") == 1
        [(key, (data, stored))] = world.public.objects.items()
        assert data == DATA
        assert stored.content_type == "image/png"
        assert key.split("/")[1] == f"{hashlib.sha256(DATA).hexdigest()}.png"

    virtual_time.run(main())


def test_a_copy_whose_draft_expired_before_it_was_recorded_counts() -> None:
    async def main() -> None:
        world = World()
        world.failpoints.stop_at = "core.after_copy"
        async with world.core() as core:
            await decided(world, core)
            await eventually(lambda: "core.after_copy" in world.failpoints.names)
        world.failpoints.stop_at = ""
        world.temp.objects.clear()
        async with world.core() as core:
            await eventually(lambda: ending(core) is Ending.SUCCEEDED)
        assert "image.attempt_failed" not in world.types("g")

    virtual_time.run(main())


@pytest.mark.parametrize("fault", ["gone", "altered", "shorter"])
def test_a_lost_object_revokes_the_decision_and_the_image_is_rendered_again(fault: str) -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            [job] = await one_dispatched(world, core)
            reply = rendered(job, "att_1", DATA)
            if fault != "gone":
                data = b"changed" if fault == "altered" else b"x"
                digest = hashlib.sha256(data).digest()
                await world.temp.put(reply.temp_key, data, content_type="image/png", sha256=digest)
            await say(world, reply)
            if fault != "gone":  # what is wrong stays wrong: there is nothing to wait for
                await eventually(lambda: "image.attempt_failed" in world.types("g"), 1)
            await eventually(lambda: world.types("g").count("image.dispatched") == 2, 30)
            async with working(Worker(world)):
                await eventually(lambda: ending(core) is Ending.SUCCEEDED)
            assert not any(key.startswith(reply.sha256.hex()) for key in world.public.objects)
            assert len(world.public.objects) == 1

    virtual_time.run(main())


def test_the_third_loss_fails_the_image() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core, working(Worker(world, upload=False)):
            await core.service.submit([item("g")])
            begun = asyncio.get_running_loop().time()
            await eventually(lambda: ending(core) is Ending.FAILED, 120)
            waited = asyncio.get_running_loop().time() - begun
            assert waited > 3 * (1 + 2 + 4 + 8) + VISIBILITY_S / 4 + VISIBILITY_S, "trouble may last"
            shown = await core.service.get("ann", "g")
            assert int(shown.images[0].failure) == pb.AttemptFailure.OBJECT_LOST
            assert world.types("g").count("image.rendered") == 3

    virtual_time.run(main())


@dataclass(slots=True, kw_only=True)
class Late(FakeBucket):
    """Shows an object only `late_s` after it was stored. `forbids`: says 403 where others say 404."""

    late_s: float = 10.0
    forbids: bool = False
    stored_at: dict[str, float] = field(default_factory=dict)

    async def put(self, key: str, data: bytes, *, content_type: str, sha256: bytes) -> None:
        self.stored_at[key] = asyncio.get_running_loop().time()
        await FakeBucket.put(self, key, data, content_type=content_type, sha256=sha256)

    def sees(self, key: str) -> bool:
        seen = key in self.objects and asyncio.get_running_loop().time() >= self.stored_at[key] + self.late_s
        if self.forbids and not seen:
            raise Permanent("head: 403")
        return seen


def test_objects_that_show_themselves_late_cost_no_rendering() -> None:
    async def main() -> None:
        world = World(temp=Late(name="temp"))
        async with world.core() as core, working(worker := Worker(world)):
            await core.service.submit([item("g", n=10)])
            await eventually(lambda: ending(core) is Ending.SUCCEEDED, 40)
            assert len(worker.seen) == 10
            assert "image.attempt_failed" not in world.types("g")
            assert not core.reasons()

    virtual_time.run(main())


def test_pictures_that_are_waited_for_hold_up_no_other() -> None:
    """There are many more of them than publishers."""

    async def main() -> None:
        late = Late(name="temp")
        world = World(temp=late)
        async with world.core() as core, working(Worker(world)):
            await core.service.submit([item(f"late{number}", n=10) for number in range(6)])
            await eventually(lambda: len(late.objects) == 60)
            late.late_s = 0.0
            begun = asyncio.get_running_loop().time()
            for key in late.stored_at:
                late.stored_at[key] += 10.0
            await core.service.submit([item("g")])
            await eventually(lambda: ending(core) is Ending.SUCCEEDED, 3)
            assert asyncio.get_running_loop().time() - begun < 3
            assert ending(core, "late0") is Ending.OPEN
            await eventually(lambda: all(ending(core, f"late{n}") is Ending.SUCCEEDED for n in range(6)), 40)

    virtual_time.run(main())


def test_a_copy_that_does_not_find_its_source_is_waited_for_too() -> None:
    until_s = 0.0

    class Blind(FakeBucket):
        async def copy_from(self, source: FakeBucket, source_key: str, key: str, *, content_type: str) -> bool:
            if asyncio.get_running_loop().time() < until_s:
                return False
            return await FakeBucket.copy_from(self, source, source_key, key, content_type=content_type)

    async def main() -> None:
        nonlocal until_s
        until_s = asyncio.get_running_loop().time() + 10
        world = World(public=Blind(name="public"))
        async with world.core() as core:
            await decided(world, core)
            await eventually(lambda: ending(core) is Ending.SUCCEEDED, 30)
            assert "image.attempt_failed" not in world.types("g")

    virtual_time.run(main())


def test_a_store_that_says_403_for_404_is_believed_once_it_has_shown_another_object() -> None:
    async def main() -> None:
        late = Late(name="temp", late_s=0.0, forbids=True)
        world = World(temp=late)
        async with world.core() as core:
            [job, other] = await one_dispatched(world, core, n=2)
            await say(world, rendered(job, "att_1", DATA))  # was never stored
            await eventually(lambda: any("403" in reason for reason in core.reasons()))
            await asyncio.sleep(60)
            assert "image.attempt_failed" not in world.types("g"), "it may be the right to read that is missing"
            await say(world, await put(world, rendered(other, "att_2", DATA)))
            await eventually(lambda: "image.attempt_failed" in world.types("g"), 40)
            async with working(Worker(world)):
                await eventually(lambda: ending(core) is Ending.SUCCEEDED, 40)

    virtual_time.run(main())


def test_a_bucket_that_is_gone_is_made_again() -> None:
    """HEAD says 404 for its objects, as for missing ones; GET and copies tell."""
    world = World()

    class Removed(FakeBucket):
        async def get(self, key: str) -> bytes | None:
            if not made():
                raise Missing("get temp: NoSuchBucket")
            return await FakeBucket.get(self, key)

    async def main() -> None:
        nonlocal world
        world = World(temp=Removed(name="temp"))
        async with world.core() as core:
            [job] = await one_dispatched(world, core)
            world.made = 0
            await say(world, rendered(job, "att_1", DATA))
            await eventually(lambda: world.made == 1, 30)
            await eventually(lambda: world.types("g").count("image.dispatched") == 2, 30)

    def made() -> bool:
        return world.made > 0

    virtual_time.run(main())


def test_an_unreachable_store_is_told_and_waited_for() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            world.public.unreachable = True
            await decided(world, core)
            await eventually(lambda: any("store" in reason for reason in core.reasons()))
            await eventually(lambda: len(core.reasons()) > 0, 300)
            world.public.unreachable = False
            await eventually(lambda: ending(core) is Ending.SUCCEEDED, 2 * VISIBILITY_S + 10)
            await eventually(lambda: not core.reasons())

    virtual_time.run(main())


def test_a_cancellation_while_copying_leaves_no_object() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            first, _ = await one_dispatched(world, core, n=2)
            world.public.unreachable = True
            await say(world, await put(world, rendered(first, "att_1", DATA)))
            await eventually(lambda: any("store" in reason for reason in core.reasons()))
            cancelled, _ = await core.service.cancel("ann", "g")
            assert cancelled
            world.public.unreachable = False
            await eventually(lambda: not world.temp.objects and not world.public.objects)
            assert world.types("g")[-1] == "generation.cancelled"

    virtual_time.run(main())


def test_trouble_with_a_picture_ends_when_nobody_wants_the_picture_any_more() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core:
            first, _ = await one_dispatched(world, core, n=2)
            world.public.unreachable = True
            await say(world, await put(world, rendered(first, "att_1", DATA)))
            await eventually(lambda: any("store" in reason for reason in core.reasons()))
            await core.service.cancel("ann", "g")
            await eventually(lambda: not core.reasons(), 30)

    virtual_time.run(main())


class CutOff(FakeBucket):
    """Fails as botocore does, whose errors tell the whole address."""

    async def copy_from(self, source: FakeBucket, source_key: str, key: str, *, content_type: str) -> bool:
        try:
            raise ConnectionError(f'Could not connect to the endpoint URL: "http://store/public/{key}"')
        except ConnectionError as error:
            raise Retryable("copy to public: EndpointConnectionError") from error


def test_the_span_of_a_copy_that_fails_does_not_tell_the_secret_address(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(publisher, "_tracer", provider.get_tracer("test"))

    async def main() -> None:
        world = World(public=CutOff(name="public"))
        async with world.core() as core:
            won = await decided(world, core)
            await eventually(exporter.get_finished_spans)
            [image] = core.writer.open["g"].images
            assert image.rendered is not None
            span = exporter.get_finished_spans()[0]
            assert image.rendered.public_token not in span.to_json()
            assert won.sha256.hex() not in span.to_json()
            assert not span.status.is_ok
            assert span.attributes is not None
            assert span.attributes["error.type"] == "Retryable"

    virtual_time.run(main())


def test_a_copy_that_comes_too_late_is_deleted() -> None:
    async def main() -> None:
        world = World()
        world.failpoints.stop_at = "core.after_copy"
        async with world.core() as core:
            first, _ = await one_dispatched(world, core, n=2)
            await say(world, await put(world, rendered(first, "att_1", DATA)))
            await eventually(lambda: len(world.public.objects) == 1)
            cancelled, _ = await core.service.cancel("ann", "g")
            assert cancelled
            world.failpoints.go_on.set()
            await eventually(lambda: not world.public.objects and not world.temp.objects)
            assert world.types("g")[-1] == "generation.cancelled"

    virtual_time.run(main())
