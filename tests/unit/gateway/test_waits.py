"""A generation that is waited for: until it ends, time runs out, the client hangs up or the gateway stops."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from gateway.routes import generations
from tests.eventually import eventually
from tests.unit.gateway.harness import Rig, rig
from tests.unit.gateway.test_connections import counted


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, tenants=("alice", "bob")) as each:
        yield each


@pytest.mark.asyncio
async def test_a_wait_ends_with_the_generation(gateway: Rig) -> None:
    path = (await gateway.submit()).headers["Location"]
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(gateway.call("GET", path, headers={"Prefer": "respond-async, wait=99"}))
        await eventually(lambda: len(gateway.core.gets) == 1)
        await gateway.core.move(path.rpartition("/")[2], 3, 3)
    answer = waiting.result()
    assert answer.body["status"] == "succeeded"
    assert answer.headers["Preference-Applied"] == "wait=60"


@pytest.mark.asyncio
async def test_a_wait_that_runs_out_answers_with_what_is(gateway: Rig) -> None:
    path = (await gateway.submit()).headers["Location"]
    answer = await gateway.call("GET", path, headers={"Prefer": "wait=1"})
    assert (answer.status, answer.body["status"]) == (200, "queued")
    assert answer.headers["Preference-Applied"] == "wait=1"


@pytest.mark.asyncio
@pytest.mark.parametrize("prefer", ["wait=-1", "wait=x", "wait=1e9", "awaits=5", "wait"])
async def test_a_preference_that_is_none_is_ignored(gateway: Rig, prefer: str) -> None:
    path = (await gateway.submit()).headers["Location"]
    answer = await gateway.call("GET", path, headers={"Prefer": prefer})
    assert "Preference-Applied" not in answer.headers


@pytest.mark.asyncio
async def test_a_client_that_hangs_up_does_not_wait_on(gateway: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever opens waits and leaves takes the room of those who stay."""
    monkeypatch.setattr(generations, "_WAIT_SLICE_S", 0.1)
    path = (await gateway.submit()).headers["Location"]
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    key = f"Authorization: Bearer {gateway.key}"
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\n{key}\r\nPrefer: respond-async\r\nPrefer: wait=60\r\n\r\n".encode()
    )
    await eventually(lambda: len(gateway.core.gets) == 2)
    writer.close()
    await writer.wait_closed()

    async def answered() -> bool:
        async with gateway.session.get(f"http://127.0.0.1:{gateway.admin_port}/metrics") as metrics:
            text = await metrics.text()
        return 'darkroom_gateway_requests_total{operation="getGeneration",status="200"} 1.0' in text

    look: Callable[[], bool | Awaitable[bool]] = answered
    await eventually(look, 10)


@pytest.mark.asyncio
async def test_a_stopping_gateway_ends_waits_and_finishes_what_is_under_way(gateway: Rig) -> None:
    path = (await gateway.submit()).headers["Location"]
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(gateway.call("GET", path, headers={"Prefer": "wait=60"}))
        await eventually(lambda: len(gateway.core.gets) == 1)
        gateway.shutdown.trigger()
        async with asyncio.timeout(8):
            answer = await waiting
    assert answer.body["status"] == "queued"


@pytest.mark.asyncio
async def test_many_waits_hold_up_neither_submissions_nor_looks(gateway: Rig) -> None:
    """HTTP/2 allows 100 streams at once per connection; waits have connections of their own, and a bound."""
    path = (await gateway.submit()).headers["Location"]
    gateway.core.hold_waits = asyncio.Event()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:

        async def wait() -> int:
            headers = {"Authorization": f"Bearer {gateway.key}", "Prefer": "wait=60"}
            async with session.get(gateway.base + path, headers=headers) as answer:
                return answer.status

        waiting = [group.create_task(wait()) for _ in range(380)]
        await eventually(lambda: len(gateway.core.gets) >= 100, 30, what="many wait")
        assert (await gateway.submit()).status == 202
        assert (await gateway.call("GET", path)).status == 200
        await gateway.core.move(path.rpartition("/")[2], 3, 3)
        gateway.core.hold_waits.set()
        assert {await each for each in waiting} == {200}


@pytest.mark.asyncio
async def test_calls_of_a_crowd_take_turns_with_those_of_others(gateway: Rig) -> None:
    """Beyond its streams grpclib lets calls queue as they come, a tenant's crowd before everybody else."""
    gateway.core.hold_lists = asyncio.Event()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:

        async def look(tenant: str) -> int:
            headers = {"Authorization": f"Bearer {gateway.keys[tenant]}"}
            async with session.get(f"{gateway.base}/v1/generations", headers=headers) as answer:
                return answer.status

        crowd = [group.create_task(look("alice")) for _ in range(200)]
        await eventually(lambda: len(gateway.core.lists) == 90, 30, what="as many calls as may be under way")
        other = [group.create_task(look("bob")) for _ in range(3)]
        await counted(gateway, "darkroom_gateway_requests_under_way 203.0")
        gateway.core.hold_lists.set()
    assert {each.result() for each in (*crowd, *other)} == {200}
    assert gateway.core.lists[90:100].count("bob") == 3, gateway.core.lists[90:100]
