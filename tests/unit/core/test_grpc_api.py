"""Core's API over real grpclib connections on loopback: token, size, errors as statuses, health, deadlines."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.health.service import Health
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest

from core.api.grpc_api import CoreApi
from core.assembly import Core
from infra import rpc
from schema import fast, limits, pb
from tests.eventually import eventually
from tests.unit.core.rig import World, item

TOKEN = "a-shared-secret"


@asynccontextmanager
async def served(world: World) -> AsyncIterator[tuple[Core, int]]:
    async with world.core() as core:
        server = rpc.BoundedServer([CoreApi(core.service), Health()], connections=100)
        rpc.guard(server, token=TOKEN, max_bytes=limits.MAX_RPC_BYTES)
        port = await server.listen("127.0.0.1", 0)
        try:
            yield core, port
        finally:
            server.close()
            await server.wait_closed()


@asynccontextmanager
async def channel(port: int, token: str = TOKEN) -> AsyncIterator[Channel]:
    opened = rpc.open_channel(f"127.0.0.1:{port}", token=token)
    try:
        yield opened
    finally:
        opened.close()


async def call(on: Channel, name: str, request: Any, **kwargs: Any) -> Any:
    reply = getattr(fast, f"{name}Reply")
    return await UnaryUnaryMethod(on, f"/darkroom.v1.Core/{name}", type(request), reply)(request, **kwargs)


@pytest.mark.asyncio
async def test_all_five_calls() -> None:
    async with served(World()) as (_, port), channel(port) as on:
        answer = await call(on, "Submit", fast.SubmitRequest(items=[item("g"), item("h")]))
        assert [each.outcome for each in answer.results] == [pb.SubmitOutcome.ACCEPTED] * 2
        shown = await call(on, "Get", fast.GetRequest(tenant="ann", generation_id="g", wait_ms=10))
        assert shown.generation.prompts.prompt == "a red circle"
        page = await call(on, "List", fast.ListRequest(tenant="ann", page_size=1))
        assert [each.generation_id for each in page.generations] == ["h"]
        assert page.next_cursor
        done = await call(on, "Cancel", fast.CancelRequest(tenant="ann", generation_id="g"))
        assert done.cancelled
        held = [fast.HeldImage(image=fast.ImageRef(generation_id=each)) for each in ("g", "h")]
        wanted = await call(on, "StillWanted", fast.StillWantedRequest(worker_id="w1", held=held))
        assert list(wanted.wanted) == [False, True]


@pytest.mark.asyncio
async def test_betterproto_clients_are_understood() -> None:
    async with served(World()) as (_, port), channel(port) as on:
        stub = pb.CoreStub(on)
        answer = await stub.submit(pb.SubmitRequest(items=[pb.SubmitItem().parse(item("g").SerializeToString())]))
        assert int(answer.results[0].outcome) == pb.SubmitOutcome.ACCEPTED
        assert (await stub.get(pb.GetRequest(tenant="ann", generation_id="g"))).generation.spec.width == 256


@pytest.mark.asyncio
@pytest.mark.parametrize("token", ["", "another", TOKEN + "x"])
async def test_without_the_token_nothing_but_health(token: str) -> None:
    async with served(World()) as (core, port), channel(port, token) as on:
        with pytest.raises(GRPCError) as raised:
            await call(on, "Submit", fast.SubmitRequest(items=[item("g")]))
        assert raised.value.status is Status.UNAUTHENTICATED
        assert not core.writer.open
        assert (await HealthStub(on).Check(HealthCheckRequest())).status == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "request_", "status"),
    [
        ("Get", fast.GetRequest(tenant="ann", generation_id="none"), Status.NOT_FOUND),
        ("Cancel", fast.CancelRequest(tenant="ann", generation_id="none"), Status.NOT_FOUND),
        ("Get", fast.GetRequest(tenant="ann", generation_id="g", wait_ms=10**6), Status.INVALID_ARGUMENT),
        ("List", fast.ListRequest(tenant="ann", cursor="?"), Status.INVALID_ARGUMENT),
        ("Submit", fast.SubmitRequest(items=[item(f"g{n}") for n in range(101)]), Status.INVALID_ARGUMENT),
        ("StillWanted", fast.StillWantedRequest(worker_id=""), Status.INVALID_ARGUMENT),
    ],
)
async def test_errors_are_statuses(name: str, request_: Any, status: Status) -> None:
    async with served(World()) as (_, port), channel(port) as on:
        with pytest.raises(GRPCError) as raised:
            await call(on, name, request_)
        assert raised.value.status is status


@pytest.mark.asyncio
async def test_a_message_over_the_limit_is_refused_before_it_is_read() -> None:
    async with served(World()) as (core, port), channel(port) as on:
        huge = item("g")
        huge.prompts.prompt = "x" * (limits.MAX_RPC_BYTES + 1)
        with pytest.raises(GRPCError) as raised:
            await call(on, "Submit", fast.SubmitRequest(items=[huge]))
        assert raised.value.status is Status.INVALID_ARGUMENT
        assert not core.writer.open


@pytest.mark.asyncio
async def test_a_full_disk_is_unavailable_and_a_deadline_does_not_undo_an_append() -> None:
    world = World()
    async with served(world) as (core, port), channel(port) as on:
        world.log.full = True
        with pytest.raises(GRPCError) as raised:
            await call(on, "Submit", fast.SubmitRequest(items=[item("g")]))
        assert raised.value.status is Status.UNAVAILABLE
        world.log.full, world.log.gate = False, asyncio.Event()
        with pytest.raises(asyncio.TimeoutError):
            await call(on, "Submit", fast.SubmitRequest(items=[item("g")]), timeout=0.2)
        world.log.gate.set()
        await eventually(lambda: "g" in core.writer.open)
        again = await call(on, "Submit", fast.SubmitRequest(items=[item("g")]))
        assert again.results[0].outcome == pb.SubmitOutcome.REPLAYED
