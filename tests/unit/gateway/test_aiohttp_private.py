"""Each private part of aiohttp that `gateway.server.aiohttp_private` uses is still there, and means what it meant."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from gateway.server import aiohttp_private
from gateway.server.aiohttp_private import ObservedHandler
from tests.eventually import eventually

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"


def test_the_installed_aiohttp_is_the_one_that_was_tested() -> None:
    assert aiohttp.__version__ == aiohttp_private.TESTED_AIOHTTP


@asynccontextmanager
async def connected(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> AsyncIterator[tuple[ObservedHandler, asyncio.StreamWriter, asyncio.StreamReader]]:
    """One client's connection to a server of aiohttp, from both sides."""
    loop, made = asyncio.get_running_loop(), list[ObservedHandler]()
    manager = web.Server(handler)

    def connection() -> ObservedHandler:
        made.append(ObservedHandler(manager, loop=loop))
        return made[0]

    server = await loop.create_server(connection, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        await eventually(lambda: made)
        yield made[0], writer, reader
    finally:
        writer.close()
        server.close()
        await manager.shutdown(1)


@pytest.mark.asyncio
async def test_a_connection_awaits_its_client_until_a_request_is_whole_and_after_its_answer() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.Response:
        entered.set()
        await request.read()
        await leave.wait()
        return web.Response(text="done")

    async with connected(handler) as (connection, writer, reader):
        assert connection.awaits_client, "nothing has come"
        writer.write(HEAD[:10])
        await writer.drain()
        assert connection.awaits_client, "half of a head"
        writer.write(HEAD[10:])
        await entered.wait()
        assert connection.awaits_client, "the body is missing"
        writer.write(b"{}")
        await eventually(lambda: not connection.awaits_client)
        leave.set()
        assert b"200" in await reader.readline()
        await eventually(lambda: connection.awaits_client)


@pytest.mark.asyncio
async def test_a_request_that_has_been_read_and_waits_for_its_handler_is_under_way() -> None:
    served = asyncio.Event()

    async def handler(_: web.BaseRequest) -> web.Response:
        served.set()
        return web.Response()

    async with connected(handler) as (connection, _, __):
        connection.data_received(HEAD + b"{}")
        assert not served.is_set(), "its task has yet to run"
        assert not connection.awaits_client
        await served.wait()


@pytest.mark.asyncio
async def test_a_client_that_does_not_read_has_to_act_next() -> None:
    leave = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.Response:
        await request.read()
        await leave.wait()
        return web.Response()

    async with connected(handler) as (connection, writer, _):
        writer.write(HEAD + b"{}")
        await eventually(lambda: not connection.awaits_client)
        connection.pause_writing()
        assert connection.awaits_client
        connection.resume_writing()
        assert not connection.awaits_client
        leave.set()
