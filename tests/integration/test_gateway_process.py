"""The gateway as a real process, over a core in memory: traces, logs, signals, SIGKILL, and misconfiguration."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from grpclib import Status

from gateway.keys import KeyFile
from tests.eventually import eventually
from tests.otlp import Receiver
from tests.process import free_port
from tests.unit.gateway.fake_core import FakeCore, serving
from tests.unit.gateway.harness import MODELS

CANARY = "xq7canaryxq7"
ROOT = Path(__file__).parents[2]


def environment(folder: Path, **extra: str) -> dict[str, str]:
    """Everything under `folder`, nothing inherited but what Python needs."""
    (folder / "models.toml").write_text(MODELS)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "DARKROOM_DATA_DIR": str(folder / "var"),
        "DARKROOM_MODELS_FILE": str(folder / "models.toml"),
        "DARKROOM_GATEWAY_PORT": "0",
        "DARKROOM_GATEWAY_ADMIN_PORT": "0",
        "DARKROOM_CORE_TARGET": "127.0.0.1:1",
        **extra,
    }


async def command(env: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    """`python -m gateway …` to its end: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        env=dict(env),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@dataclass(slots=True, kw_only=True)
class Running:
    """A gateway process that listens."""

    process: asyncio.subprocess.Process
    log: Path
    port: int
    session: aiohttp.ClientSession
    key: str

    async def post(self, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        sent = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        async with self.session.post(f"{self.base}/v1/generations", json=body, headers=sent) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Mapping[str, str], bytes]:
        sent = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        async with self.session.get(self.base + path, headers=sent, allow_redirects=False) as answer:
            return answer.status, answer.headers, await answer.read()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def gateway(env: Mapping[str, str], folder: Path, key: str) -> AsyncIterator[Running]:
    """A process that listens; it is killed at the end if it still runs."""
    log = folder / "gateway.log"
    port = free_port()
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway"),
            env={**env, "DARKROOM_GATEWAY_PORT": str(port)},
            cwd=ROOT,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
        )
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        running = Running(process=process, log=log, port=port, session=session, key=key)

        async def ready() -> bool:
            assert process.returncode is None, log.read_text()
            with contextlib.suppress(aiohttp.ClientError):
                return (await running.get("/readyz"))[0] == 200
            return False

        try:
            condition: Any = ready
            await eventually(condition, 20, what="the gateway is ready")
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def key_for(env: Mapping[str, str]) -> str:
    """A new key."""
    return KeyFile(Path(env["DARKROOM_DATA_DIR"]) / "gateway" / "keys.json").create("acme", now_ms=1)


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
            status, headers, _ = await running.get(f"{path}/images/0")
            assert status == 302
            assert "X-Amz-Signature=" in headers["Location"]
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
    words = (CANARY, secret, "X-Amz-Signature", "inner-token")
    leaks = [(span.name, text) for span in spans for text in span.texts if any(word in text for word in words)]
    assert not leaks
    assert "request.broken" in logged, "the 500 must be told"
    assert not [line for line in logged.splitlines() if any(word in line for word in words)]


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


@pytest.mark.asyncio
async def test_keys_are_made_listed_and_revoked_at_the_command_line(tmp_path: Path) -> None:
    env = environment(tmp_path)
    key = (await command(env, "keys", "create", "acme"))[1].splitlines()[-1]
    key_id, secret = key.split("_")[1:]
    code, listed, _ = await command(env, "keys", "list")
    assert (code, secret in listed) == (0, False)
    assert key_id in listed
    assert "acme" in listed
    assert (await command(env, "keys", "revoke", key_id))[0] == 0
    assert "revoked" in (await command(env, "keys", "list"))[1]
    code, _, told = await command(env, "keys", "revoke", key_id)
    assert (code, len(told.splitlines())) == (2, 1)
    code, _, told = await command(env, "keys", "create", "two words")
    assert (code, len(told.splitlines())) == (2, 1)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ({"DARKROOM_GATEWAY_HOST": "0.0.0.0"}, "keys create TENANT"),
        ({"DARKROOM_GATEWAY_PORT": "TAKEN"}, "DARKROOM_GATEWAY_PORT"),
        ({"DARKROOM_GATEWAY_PORT": "x"}, "DARKROOM_GATEWAY_PORT"),
        ({"DARKROOM_MODELS_FILE": "/nowhere.toml"}, "/nowhere.toml"),
        ({"DARKROOM_GATEWAY_RULES_FILE": "/nowhere.toml"}, "/nowhere.toml"),
        ({"DARKROOM_GATEWAY_KEYS_FILE": "/"}, "DARKROOM_GATEWAY_KEYS_FILE"),
        ({"DARKROOM_CORE_TARGET": "nonsense"}, "DARKROOM_CORE_TARGET"),
        ({"DARKROOM_FAILPOINTS": "nonsense"}, "DARKROOM_FAILPOINTS"),
        ({"DARKROOM_GATEWAY_PUBLIC_URL": "ftp://x"}, "DARKROOM_GATEWAY_PUBLIC_URL"),
    ],
)
async def test_a_misconfiguration_is_one_line_that_says_what_to_do(
    tmp_path: Path, extra: dict[str, str], word: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = str(taken.getsockname()[1])
        env = environment(tmp_path, **{name: number if value == "TAKEN" else value for name, value in extra.items()})
        code, _, told = await command(env)
    lines = [line for line in told.splitlines() if line.startswith("darkroom:")]
    assert code == 2, told
    assert len(lines) == 1, told
    assert word in lines[0]
    assert "Traceback" not in told
