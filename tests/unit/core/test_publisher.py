"""From decision to public picture, with a crash between any two steps, and with objects lost."""

import hashlib

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from core import publisher
from core.parts import Core
from core.state import Ending
from infra.retry import Retryable
from schema import fast, pb
from tests import virtual_time
from tests.eventually import eventually
from tests.fakes import FakeBucket
from tests.unit.core.rig import VISIBILITY_S, Worker, World, rendered, working
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
            await eventually(lambda: world.types("g").count("image.dispatched") == 2)
            async with working(Worker(world)):
                await eventually(lambda: ending(core) is Ending.SUCCEEDED)
            assert not any(key.startswith(reply.sha256.hex()) for key in world.public.objects)
            assert len(world.public.objects) == 1

    virtual_time.run(main())


def test_the_third_loss_fails_the_image() -> None:
    async def main() -> None:
        world = World()
        async with world.core() as core, working(Worker(world, upload=False)):
            from tests.unit.core.rig import item

            await core.service.submit([item("g")])
            await eventually(lambda: ending(core) is Ending.FAILED, 60)
            shown = await core.service.get("ann", "g")
            assert int(shown.images[0].failure) == pb.AttemptFailure.OBJECT_LOST
            assert world.types("g").count("image.rendered") == 3

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
