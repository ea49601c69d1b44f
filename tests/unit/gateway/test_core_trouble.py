"""Core that refuses, breaks off or is not there: what the client is told, and that a repeat is the same generation."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from grpclib import Status

from tests.eventually import eventually
from tests.unit.gateway.fake_core import FakeCore, serving
from tests.unit.gateway.harness import PROMPT, UNKNOWN, Rig, rig, running, settings_for


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, tenants=("alice", "bob")) as each:
        yield each


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [Status.INTERNAL, Status.UNKNOWN, Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED])
async def test_trouble_in_core_is_503_and_tells_nothing(gateway: Rig, status: Status) -> None:
    gateway.core.refuse_with = status
    for method, path, body in [
        ("POST", "/v1/generations", {"prompt": PROMPT}),
        ("GET", "/v1/generations", None),
        ("GET", f"/v1/generations/{UNKNOWN}", None),
        ("POST", f"/v1/generations/{UNKNOWN}/cancel", None),
        ("DELETE", f"/v1/generations/{UNKNOWN}", None),
    ]:
        answer = await gateway.call(method, path, body)
        answer.problem(503)
        assert int(answer.headers["Retry-After"]) >= 1
        assert b"secret" not in answer.raw


@pytest.mark.asyncio
async def test_core_s_refusal_of_the_gateway_itself_is_a_500_that_tells_nothing(gateway: Rig) -> None:
    gateway.core.refuse_with = Status.UNAUTHENTICATED
    for answer in (await gateway.submit(), await gateway.call("GET", "/v1/generations")):
        assert b"secret" not in answer.raw
        assert answer.problem(500)["detail"] == "Internal error"


@pytest.mark.asyncio
async def test_a_broken_call_is_repeated_and_the_generation_is_one(gateway: Rig) -> None:
    gateway.core.break_next = 2
    assert (await gateway.submit()).status == 202
    assert len(gateway.core.stored) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("key", ["", "k"])
async def test_an_answer_of_core_that_got_lost_is_no_repeat_of_the_client_s(gateway: Rig, key: str) -> None:
    headers = {"Idempotency-Key": key} if key else {}
    gateway.core.lose_answers = 1
    answer = await gateway.submit(headers)
    assert answer.status == 202
    assert "Idempotent-Replayed" not in answer.headers
    assert gateway.core.batches == [1, 1]
    async with gateway.session.get(f"http://127.0.0.1:{gateway.admin_port}/metrics") as shown:
        text = await shown.text()
    assert 'darkroom_gateway_submissions_total{outcome="accepted"} 1.0' in text
    assert 'outcome="replayed"' not in text
    if key:
        again = await gateway.submit(headers)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.body["id"] == answer.body["id"]


@pytest.mark.asyncio
async def test_core_that_is_not_there_is_503_and_not_ready_and_comes_back(tmp_path: Path) -> None:
    async with rig(tmp_path / "a", tenants=()) as other:
        free_port = other.port
    settings = settings_for(tmp_path, free_port)
    core = FakeCore()
    async with running(settings, core) as gateway:
        ready = await gateway.call("GET", "/readyz")
        assert ready.status == 503
        assert ready.body["reasons"] == ["core cannot be reached"] or ready.body["reasons"] == [
            "core has not answered yet"
        ]
        assert (await gateway.call("GET", "/healthz")).status == 200
        answer = await gateway.submit()
        answer.problem(503)
        assert "Retry-After" in answer.headers
        async with serving(core, port=free_port):
            await eventually(gateway.answers("/readyz", 200), what="ready again")
            assert (await gateway.submit()).status == 202


@asynccontextmanager
async def wire_to(core_port: int) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """A TCP proxy: its port, and a way to cut all that goes through it, as SIGKILL of core would."""
    writers: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", core_port)
        writers.extend((writer, far_writer))
        async with asyncio.TaskGroup() as group:
            group.create_task(carry(reader, far_writer))
            group.create_task(carry(far_reader, writer))

    def cut() -> None:
        while writers:
            writers.pop().transport.abort()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as proxy:
        yield proxy.sockets[0].getsockname()[1], cut
        cut()


@pytest.mark.asyncio
async def test_a_connection_cut_under_the_probe_and_under_calls_ends_nothing(tmp_path: Path) -> None:
    core = FakeCore()
    async with serving(core) as (_, core_port), wire_to(core_port) as (port, cut):
        async with running(settings_for(tmp_path, port), core) as gateway, asyncio.TaskGroup() as group:
            await eventually(gateway.answers("/readyz", 200), what="ready")
            core.hold_probes = core.hold = asyncio.Event()
            before = core.probes
            await eventually(lambda: core.probes > before, what="a probe is under way")
            asked = group.create_task(gateway.submit())
            await eventually(lambda: len(core.batches) == 1, what="a call is under way")
            cut()
            await eventually(gateway.answers("/readyz", 503), what="not ready")
            core.hold.set()
            assert (await asked).status == 202
            await eventually(gateway.answers("/readyz", 200), what="ready again")
    assert len(core.stored) == 1, "the repeated call is the same generation"
