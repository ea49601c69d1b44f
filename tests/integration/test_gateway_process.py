"""The gateway as a real process, over a core in memory: traces, logs, signals, SIGKILL."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from grpclib import Status

from tests.eventually import eventually
from tests.integration.gateway_process import environment, gateway, key_for
from tests.otlp import Receiver
from tests.unit.gateway.fake_core import FakeCore, serving

CANARY = "xq7canaryxq7"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as each:
        yield each


@pytest.mark.asyncio
async def test_a_submission_is_one_trace_and_leaves_no_prompt_key_or_link_behind(
    tmp_path: Path, receiver: Receiver
) -> None:
    core = FakeCore()
    async with serving(core, token="inner-token") as (_, port):
        env = environment(
            tmp_path,
            DARKROOM_CORE_TARGET=f"127.0.0.1:{port}",
            DARKROOM_INTERNAL_TOKEN="inner-token",
            DARKROOM_LOG_LEVEL="debug",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_BSP_SCHEDULE_DELAY="50",
        )
        key = key_for(env)
        async with gateway(env, tmp_path, key) as running:
            mine = "4bf92f3577b34da6a3ce929d0e0e4736"
            status, body = await running.post(
                {"prompt": f"a tree {CANARY}"},
                {"traceparent": f"00-{mine}-00f067aa0ba902b7-01", "Idempotency-Key": CANARY, "tracestate": "a=b"},
            )
            assert status == 202
            (stored,) = core.stored.values()
            await core.move(body["id"], 3, 3)
            path = body["links"]["self"]
            assert (await running.get(f"{path}/images/0"))[0] == 503, "there is no store"
            image = json.loads((await running.get(path))[2])["images"][0]
            signature = image["signed_url"].rpartition("=")[2]
            query = image["signed_url"].partition("?")[2]
            asked = (f"{path}/images/0?", f"{path}/images/1?", f"{path}?", "/nowhere?", "/docs?", "/?")
            statuses = [
                (await running.get(place + query, {"Authorization": "", "Referer": image["signed_url"]}))[0]
                for place in asked
            ]
            assert statuses == [503, 403, 401, 404, 200, 200]
            assert b"400" in await malformed(running.port, f"GET {path}/images/0?{query} HTTP/1.1\r\nX: \0\r\n\r\n")
            assert (await running.post({"prompt": CANARY, CANARY: 1}))[0] == 422
            assert (await running.get(f"/v1/generations?cursor={CANARY}"))[0] == 422
            assert (await running.get("/v1/models", {"Authorization": f"Bearer {CANARY}"}))[0] == 401
            assert (await running.get(f"/{CANARY}"))[0] == 404
            assert (await running.get(f"/v1/generations/{CANARY}"))[0] == 404
            core.refuse_with = Status.UNAUTHENTICATED
            assert (await running.post({"prompt": CANARY}))[0] == 500
            running.process.send_signal(signal.SIGTERM)
            assert await running.process.wait() == 0
        logged = running.log.read_text()

    spans = receiver.spans()
    server = next(span for span in spans if span.name == "POST /v1/generations" and span.trace_id == mine)
    assert server.kind == "SERVER"
    assert server.parent_id == "00f067aa0ba902b7"
    assert server.attributes["http.response.status_code"] == 202
    assert server.attributes["http.route"] == "/v1/generations"
    assert server.attributes["darkroom.generation_id"] == body["id"]
    assert stored.item.trace.traceparent == f"00-{mine}-{server.span_id}-01"
    assert stored.item.trace.tracestate == "a=b"

    batch = next(span for span in spans if span.name == "submit batch" and (mine, server.span_id) in span.links)
    assert (batch.trace_id, batch.span_id) in server.links
    call = next(span for span in spans if span.parent_id == batch.span_id)
    assert call.attributes["rpc.method"] == "darkroom.v1.Core/Submit"

    secret = key.rpartition("_")[2]
    words = (CANARY, secret, "X-Amz-Signature", "inner-token", signature, "signature=")
    leaks = [(span.name, text) for span in spans for text in span.texts if any(word in text for word in words)]
    assert not leaks
    assert "request.broken" in logged, "the 500 must be told"
    assert not [line for line in logged.splitlines() if any(word in line for word in words)]


async def malformed(port: int, sent: str) -> bytes:
    """What is answered to bytes that are no HTTP."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent.encode())
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.asyncio
async def test_without_tracing_a_client_s_context_still_travels_on(tmp_path: Path) -> None:
    core = FakeCore()
    async with serving(core) as (_, port):
        env = environment(tmp_path, DARKROOM_CORE_TARGET=f"127.0.0.1:{port}")
        async with gateway(env, tmp_path, key_for(env)) as running:
            parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            await running.post({"prompt": "a"}, {"traceparent": parent, "tracestate": "x" * 600})
            await running.post({"prompt": "a"}, {"traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"})
    assert [stored.item.trace.traceparent for stored in core.stored.values()] == [parent, ""]
    assert {stored.item.trace.tracestate for stored in core.stored.values()} == {""}


@pytest.mark.asyncio
@pytest.mark.parametrize(("place", "stored"), [("gateway.before_submit", 0), ("gateway.after_submit", 1)])
async def test_killed_around_a_submission_a_repeat_is_the_same_generation(
    tmp_path: Path, place: str, stored: int
) -> None:
    """faults.md 1 and 2."""
    core = FakeCore()
    async with serving(core) as (_, port):
        env = environment(tmp_path, DARKROOM_CORE_TARGET=f"127.0.0.1:{port}")
        key = key_for(env)
        headers = {"Idempotency-Key": "once"}
        async with gateway({**env, "DARKROOM_FAILPOINTS": f"{place}=kill"}, tmp_path, key) as doomed:
            with pytest.raises(aiohttp.ClientError):
                await doomed.post({"prompt": "a"}, headers)
            assert await doomed.process.wait() == -signal.SIGKILL
        assert len(core.stored) == stored
        before = list(core.stored)
        async with gateway(env, tmp_path, key) as running:
            status, body = await running.post({"prompt": "a"}, headers)
    assert status == 202
    assert list(core.stored) == (before or [body["id"]])
    assert body["id"] in core.stored


@pytest.mark.asyncio
async def test_a_client_that_hangs_up_does_not_take_its_submission_back(tmp_path: Path) -> None:
    core = FakeCore(hold=asyncio.Event())
    async with serving(core) as (_, port):
        env = environment(tmp_path, DARKROOM_CORE_TARGET=f"127.0.0.1:{port}")
        async with gateway(env, tmp_path, key_for(env)) as running:
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(running.post({"prompt": "a"}))
                await eventually(lambda: core.batches == [1])
                asked.cancel()
            assert core.hold is not None
            core.hold.set()
            await eventually(lambda: len(core.stored) == 1)
            assert (await running.post({"prompt": "b"}))[0] == 202


@pytest.mark.asyncio
async def test_sigterm_lets_a_submission_under_way_end_and_takes_no_new_connection(tmp_path: Path) -> None:
    core = FakeCore(hold=asyncio.Event())
    async with serving(core) as (_, port):
        env = environment(tmp_path, DARKROOM_CORE_TARGET=f"127.0.0.1:{port}")
        async with gateway(env, tmp_path, key_for(env)) as running, asyncio.TaskGroup() as group:
            asked = group.create_task(running.post({"prompt": "a"}))
            await eventually(lambda: core.batches == [1])
            running.process.send_signal(signal.SIGTERM)

            async def refused() -> bool:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
                except ConnectionError:
                    return True
                writer.close()
                return False

            condition: Any = refused
            await eventually(condition)
            assert core.hold is not None
            core.hold.set()
            assert (await asked)[0] == 202
            assert await running.process.wait() == 0
