"""Core's port: so many connections and no more, and nobody who is not there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from grpclib.client import Channel
from grpclib.health.service import Health
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest

from infra import rpc
from tests.eventually import eventually

pytestmark = pytest.mark.asyncio
Idle = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def served(connections: int, ping_s: float = 60.0) -> AsyncIterator[int]:
    server = rpc.BoundedServer([Health()], connections=connections, ping_s=ping_s)
    port = await server.listen("127.0.0.1", 0)
    try:
        yield port
    finally:
        server.close()
        await server.wait_closed()


async def connected(port: int) -> Idle:
    return await asyncio.open_connection("127.0.0.1", port)


async def is_let_in(connection: Idle) -> bool:
    """A server that serves speaks first: it sends its settings."""
    try:
        return bool(await asyncio.wait_for(connection[0].read(9), 10))
    except ConnectionError:
        return False


async def answers(channel: Channel) -> bool:
    await asyncio.wait_for(HealthStub(channel).Check(HealthCheckRequest()), 10)
    return True


async def test_one_connection_too_many_is_closed_and_the_others_are_served() -> None:
    async with served(4) as port:
        channel = rpc.open_channel(f"127.0.0.1:{port}", token="")
        idle: list[Idle] = []
        try:
            assert await answers(channel)
            idle += [await connected(port) for _ in range(3)]
            assert [await is_let_in(each) for each in idle] == [True] * 3
            for _ in range(3):
                idle.append(await connected(port))
                assert not await is_let_in(idle[-1])
            assert await answers(channel)

            async def next_is_taken() -> bool:
                idle.append(await connected(port))
                return await is_let_in(idle[-1])

            idle[0][1].close()
            taken: Callable[[], bool | Awaitable[bool]] = next_is_taken
            await eventually(taken)
            assert await answers(channel)
        finally:
            channel.close()
            for _, writer in idle:
                writer.close()


async def test_a_peer_that_answers_no_ping_is_closed_and_one_that_does_stays() -> None:
    async with served(4, ping_s=0.3) as port:
        channel = rpc.open_channel(f"127.0.0.1:{port}", token="")
        try:
            assert await answers(channel)
            protocol = channel._protocol
            reader, writer = await connected(port)
            await asyncio.wait_for(reader.read(), 20)  # until it is closed
            assert await answers(channel)
            assert channel._protocol is protocol  # on the connection it had
            writer.close()
        finally:
            channel.close()
