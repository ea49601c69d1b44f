"""Clients that keep the gateway waiting: how many may, who goes first, and who is never cut (faults.md 4, 5)."""

import asyncio
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.server.connections import BACKLOG, Connection, ConnectionTable, connection_limit
from schema import pb
from tests.eventually import eventually
from tests.unit.gateway.harness import Rig, rig
from tests.unit.gateway.test_metrics import metrics

HALF_HEAD = b"POST /v1/generations HTTP/1.1\r\nHost: x\r\nX-Slow: "
HALF_BODY = (
    b'POST /v1/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"'
)
BIG = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
LIMIT = 6


async def dial(gateway: Rig, sent: bytes, *, read_buffer: int = 0) -> socket.socket:
    """A connection on which `sent` was sent, and nothing is read by itself."""
    client = socket.socket()
    if read_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", gateway.port))
    await loop.sock_sendall(client, sent)
    return client


async def cut(client: socket.socket) -> bool:
    """Read to the end: that the gateway has closed it."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(10):
            while await loop.sock_recv(client, 65_536):
                pass
    except ConnectionError:
        pass
    return True


async def counted(gateway: Rig, line: str) -> None:
    """Returns once the metrics say so."""

    async def shown() -> bool:
        lines = (await metrics(gateway)).splitlines()
        assert line in lines, [each for each in lines if "connections" in each]
        return True

    condition: Callable[[], Any] = shown
    await eventually(condition)


@pytest.mark.asyncio
@pytest.mark.parametrize("half", [HALF_HEAD, HALF_BODY], ids=["head", "body"])
async def test_when_the_room_is_full_the_slowest_client_goes(tmp_path: Path, half: bytes) -> None:
    async with rig(tmp_path, gateway_max_connections=LIMIT) as gateway:
        slow = [await dial(gateway, half) for _ in range(3 * LIMIT)]
        try:
            assert (await gateway.submit()).status == 202
            assert await cut(slow[0])
            await counted(gateway, f"darkroom_gateway_connections {LIMIT}.0")
            for _ in range(2 * LIMIT):
                assert (await gateway.call("GET", "/v1/models", headers={"Connection": "close"})).status == 200
        finally:
            for each in slow:
                each.close()


@pytest.mark.asyncio
async def test_a_request_under_way_is_never_cut_for_a_newcomer(tmp_path: Path) -> None:
    async with rig(tmp_path, gateway_max_connections=LIMIT) as gateway:
        made = (await gateway.submit(headers={"Connection": "close"})).body["id"]
        wait = {"Prefer": "wait=20"}
        async with asyncio.TaskGroup() as group:
            waiting = [
                group.create_task(gateway.call("GET", f"/v1/generations/{made}", headers=wait))
                for _ in range(LIMIT - 1)
            ]
            await counted(gateway, f"darkroom_gateway_connections {LIMIT - 1}.0")
            newcomers = [await dial(gateway, b"") for _ in range(4)]
            for each in newcomers[:-1]:
                assert await cut(each)
            for each in newcomers:
                each.close()
            await gateway.core.move(made, pb.GenerationStatus.CANCELLED, pb.ImageStatus.DROPPED)
        assert [task.result().status for task in waiting] == [200] * (LIMIT - 1)


@pytest.mark.asyncio
async def test_a_tenant_that_waits_on_every_connection_it_gets_leaves_room_for_another(tmp_path: Path) -> None:
    """Its newest wait is answered early, with what is, for the sake of a tenant that has fewer requests under way."""
    async with rig(tmp_path, tenants=("alice", "bob"), gateway_max_connections=10) as gateway:
        made = (await gateway.submit(headers={"Connection": "close"})).body["id"]
        headers = {"Prefer": "wait=50", "Connection": "close"}

        async def wait() -> int:
            return (await gateway.call("GET", f"/v1/generations/{made}", headers=headers)).status

        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(wait()) for _ in range(9)]
            await eventually(lambda: len(gateway.core.gets) == 9)
            assert await wait() == 503, "one tenant has as many under way as there may be"
            body = {"prompt": "bob's"}
            for _ in range(20):
                answer = await gateway.call(
                    "POST", "/v1/generations", body, {"Connection": "close"}, key=gateway.keys["bob"]
                )
                assert answer.status == 202
            assert sum(each.done() for each in waits) == 1, "which is not asked again for each request of the other"
            await gateway.core.move(made, pb.GenerationStatus.CANCELLED, pb.ImageStatus.DROPPED)
        assert [each.result() for each in waits] == [200] * 9


@pytest.mark.asyncio
async def test_who_holds_more_than_its_share_of_the_connections_loses_them_first(tmp_path: Path) -> None:
    """A tenant that keeps one connection, idle for longest, keeps it while an address opens one after another."""
    async with rig(tmp_path, gateway_max_connections=LIMIT) as gateway:
        assert (await gateway.call("GET", "/v1/models")).status == 200
        slow = [await dial(gateway, HALF_HEAD) for _ in range(3 * LIMIT)]
        try:
            for each in slow[: 2 * LIMIT]:
                assert await cut(each)
            (kept,) = gateway.session.connector._conns.values()  # type: ignore[union-attr]
            assert len(kept) == 1
            assert kept[0][0].is_connected()
            assert (await gateway.call("GET", "/v1/models")).status == 200
        finally:
            for each in slow:
                each.close()


@pytest.mark.asyncio
async def test_an_answer_that_nobody_reads_is_given_up(tmp_path: Path) -> None:
    async with rig(tmp_path, gateway_send_timeout_s=0.3) as gateway:
        client = await dial(gateway, BIG * 500, read_buffer=4096)
        try:
            await counted(gateway, 'darkroom_gateway_connections_cut_total{reason="unread"} 1.0')
            assert await cut(client)
            answer = await gateway.call("GET", "/docs/swagger-ui-bundle.js")
            assert len(answer.raw) == int(answer.headers["Content-Length"])
        finally:
            client.close()


def test_no_more_connections_than_files_may_be_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert connection_limit(1) == 1
        if hard != resource.RLIM_INFINITY:
            assert connection_limit(hard * 2) == hard - BACKLOG - 128
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Unread(asyncio.Transport):
    """A transport whose client takes bytes as told."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True


@pytest.mark.asyncio
async def test_a_client_is_given_up_once_it_takes_nothing_and_not_while_it_takes_little() -> None:
    cut: list[str] = []
    loop, table = asyncio.get_running_loop(), ConnectionTable(5, send_timeout_s=0.01, on_cut=cut.append)
    transport = Unread(100, 99, 98, 97, 97)
    connection = Connection(web.Server(lambda _: None), table, loop=loop)  # type: ignore[arg-type,return-value]
    connection.connection_made(transport)
    try:
        connection.pause_writing()
        await eventually(lambda: transport.aborted)
        assert (transport.sizes, cut) == ([97], ["unread"]), "three looks found it reading"
    finally:
        connection.connection_lost(None)
