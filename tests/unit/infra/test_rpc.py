"""Tokens, size cap, trace context and errors between a real grpclib server and client."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpclib import GRPCError, Status
from grpclib.health.service import Health
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.server import Server
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infra import rpc
from infra.lifecycle import ConfigError
from infra.retry import Permanent, Retryable
from schema import pb
from tests.emulators import free_port
from tests.eventually import eventually

METHOD = "darkroom.v1.Core/Get"


class Core(pb.CoreBase):
    """Answers with the trace it is in, or as `status` says."""

    def __init__(self) -> None:
        self.calls = 0
        self.status: Status | None = None
        self.hang = False
        self.waiting = False

    async def get(self, get_request: pb.GetRequest) -> pb.GetReply:
        self.calls += 1
        if self.hang or get_request.generation_id == "waits":
            self.waiting = True
            await asyncio.Event().wait()
        if self.status is not None:
            raise GRPCError(self.status, "no")
        trace_id = trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
        return pb.GetReply(generation=pb.GenerationView(generation_id=trace_id))


@asynccontextmanager
async def served(core: Core, *, token: str = "right", max_bytes: int = 10_000) -> AsyncIterator[str]:
    server = Server([core, Health()])
    rpc.guard(server, token=token, max_bytes=max_bytes)
    port = free_port()
    await server.start("127.0.0.1", port)
    yield f"127.0.0.1:{port}"
    server.close()
    await server.wait_closed()


async def get(target: str, *, token: str = "right", size: int = 10, deadline_s: float = 5.0) -> str:
    channel = rpc.open_channel(target, token=token)
    try:
        async with rpc.calling(METHOD, deadline_s=deadline_s):
            reply = await pb.CoreStub(channel).get(pb.GetRequest(generation_id="x" * size))
    finally:
        channel.close()
    return reply.generation.generation_id


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(rpc, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


@pytest.mark.asyncio
async def test_a_call_with_the_token_is_served() -> None:
    core = Core()
    async with served(core) as target:
        await get(target)
    assert core.calls == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("token", ["", "wrong", "right "])
async def test_without_the_token_nothing_is_served(token: str) -> None:
    core = Core()
    async with served(core) as target:
        with pytest.raises(Permanent, match="UNAUTHENTICATED"):
            await get(target, token=token)
    assert core.calls == 0


@pytest.mark.asyncio
async def test_a_message_above_the_cap_is_refused_and_the_next_call_served() -> None:
    core = Core()
    async with served(core) as target:
        with pytest.raises(Permanent, match="INVALID_ARGUMENT"):
            await get(target, size=20_000)
        await get(target)
    assert core.calls == 1


@pytest.mark.asyncio
async def test_a_health_check_needs_no_token_and_is_capped_too() -> None:
    async with served(Core()) as target:
        channel = rpc.open_channel(target, token="")
        try:
            check = HealthStub(channel).Check
            assert (await check(HealthCheckRequest())).status == HealthCheckResponse.SERVING
            with pytest.raises(GRPCError) as caught:
                await check(HealthCheckRequest(service="x" * 20_000))
        finally:
            channel.close()
    assert caught.value.status is Status.INVALID_ARGUMENT


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.UNAVAILABLE, Retryable),
        (Status.RESOURCE_EXHAUSTED, Retryable),
        (Status.ABORTED, Retryable),
        (Status.NOT_FOUND, Permanent),
        (Status.INVALID_ARGUMENT, Permanent),
        (Status.UNIMPLEMENTED, Permanent),
    ],
)
async def test_statuses_become_retryable_or_permanent(status: Status, kind: type[Exception]) -> None:
    core = Core()
    core.status = status
    async with served(core) as target:
        with pytest.raises(kind, match=status.name) as caught:
            await get(target)
    assert isinstance(caught.value.__cause__, GRPCError)


@pytest.mark.asyncio
async def test_the_deadline_and_a_missing_server_are_retryable() -> None:
    core = Core()
    core.hang = True
    async with served(core) as target:
        with pytest.raises(Retryable, match="DEADLINE_EXCEEDED"):
            await get(target, deadline_s=0.05)
    with pytest.raises(Retryable):
        await get(target)


@pytest.mark.asyncio
async def test_a_connection_lost_under_a_call_is_retryable_and_the_next_call_connects_again() -> None:
    """A server that goes away says so; grpclib then has a connection without a transport until the socket closes."""
    core = Core()
    async with served(core) as target:
        channel = rpc.open_channel(target, token="right")
        stub = pb.CoreStub(channel)
        try:
            async with rpc.calling(METHOD, deadline_s=5):
                await stub.get(pb.GetRequest(generation_id="x"))
            protocol: Any = channel._protocol
            protocol.processor.connection.close()
            with pytest.raises(Retryable):
                async with rpc.calling(METHOD, deadline_s=5):
                    await stub.get(pb.GetRequest(generation_id="x"))

            async def answered() -> bool:
                try:
                    async with rpc.calling(METHOD, deadline_s=5):
                        await stub.get(pb.GetRequest(generation_id="x"))
                except Retryable:
                    return False
                return True

            again: Callable[[], Any] = answered
            await eventually(again, 5)
        finally:
            channel.close()


@pytest.mark.asyncio
async def test_a_connection_lost_under_a_call_leaves_its_task_as_it_was() -> None:
    """grpclib cancels the task and never takes it back: its next time-out would look like a cancellation."""
    core = Core()
    async with served(core) as target:
        channel = rpc.open_channel(target, token="right")
        stub = pb.CoreStub(channel)
        try:
            async with rpc.calling(METHOD, deadline_s=5):
                await stub.get(pb.GetRequest(generation_id="x"))
            waiting = asyncio.create_task(lost(stub))
            await eventually(lambda: core.waiting)
            protocol: Any = channel._protocol
            protocol.connection._transport.abort()
            assert await waiting == 0
        finally:
            channel.close()


async def lost(stub: pb.CoreStub) -> int:
    """How often the task has been cancelled, in its own view, after a call that lost its connection."""
    with pytest.raises(Retryable):
        async with rpc.calling(METHOD, deadline_s=5):
            await stub.get(pb.GetRequest(generation_id="waits"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    task = asyncio.current_task()
    return task.cancelling() if task else -1


@pytest.mark.asyncio
async def test_client_and_server_spans_are_one_trace(spans: InMemorySpanExporter) -> None:
    async with served(Core()) as target:
        seen = await get(target)
    by_kind = {span.kind.name: span for span in spans.get_finished_spans()}
    client, server = by_kind["CLIENT"], by_kind["SERVER"]
    assert client.context is not None
    assert server.parent is not None
    assert server.parent.span_id == client.context.span_id
    assert seen == trace.format_trace_id(client.context.trace_id)
    for span in (client, server):
        assert span.name == METHOD
        assert dict(span.attributes or {}) == {
            "rpc.system.name": "grpc",
            "rpc.method": METHOD,
            "rpc.response.status_code": "OK",
        }


def test_an_open_host_needs_a_token() -> None:
    rpc.require_token("127.0.0.1", "")
    rpc.require_token("0.0.0.0", "secret")
    with pytest.raises(ConfigError, match="DARKROOM_INTERNAL_TOKEN"):
        rpc.require_token("0.0.0.0", "")


@pytest.mark.asyncio
async def test_a_malformed_target_is_a_configuration_error() -> None:
    for target in ("", "localhost", "host:port", ":1"):
        with pytest.raises(ConfigError, match="DARKROOM_CORE_TARGET"):
            rpc.open_channel(target, token="")
