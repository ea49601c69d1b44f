"""Core as `python -m core serve` composes it: real log, real gRPC, real queue and store; only the worker is ours."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel, UnaryUnaryMethod

from core.app import serve
from core.config import CoreSettings
from infra import aws, rpc
from infra.lifecycle import ConfigError, Shutdown
from infra.retry import Retryable
from infra.s3 import S3Bucket
from infra.sqs import Outgoing, SqsQueue
from schema import fast, messages, pb
from tests.begun_log import begin_log
from tests.emulators import aws_environment, free_port, ministack
from tests.eventually import eventually
from tests.unit.core.rig import item, rendered, started

VISIBILITY_S = 3
SUCCEEDED = int(pb.GenerationStatus.SUCCEEDED)
pytestmark = [pytest.mark.timeout(90), pytest.mark.asyncio]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The emulator's, whether it runs or not."""
    number = free_port()
    for name, value in aws_environment(f"http://127.0.0.1:{number}").items():
        monkeypatch.setenv(name, value)
    return number


@pytest.fixture
def emulator(port: int, tmp_path: Path) -> Iterator[None]:
    (tmp_path / "emulator").mkdir()
    with ministack(tmp_path / "emulator", port):
        yield


def settings(folder: Path, **values: Any) -> CoreSettings:
    ports = {"core_port": free_port(), "core_admin_port": free_port()}
    return CoreSettings(data_dir=folder, visibility_s=VISIBILITY_S, core_reply_wait_s=1, **(ports | values))


@asynccontextmanager
async def serving(of: CoreSettings) -> AsyncIterator[Channel]:
    shutdown = Shutdown()
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(of, shutdown), name="core")
        channel = rpc.open_channel(f"127.0.0.1:{of.core_port}", token="")
        try:
            yield channel
        finally:
            channel.close()
            shutdown.trigger()


async def holds(condition: Callable[[], Awaitable[bool]], deadline_s: float = 10.0, **named: Any) -> None:
    result: bool = await eventually(condition, deadline_s, **named)
    assert result


async def call(on: Channel, name: str, request: Any) -> Any:
    method = UnaryUnaryMethod(on, f"/darkroom.v1.Core/{name}", type(request), getattr(fast, f"{name}Reply"))
    return await method(request, timeout=10)


async def submit(on: Channel, *ids: str) -> None:
    async def accepted() -> bool:
        try:
            answer = await call(on, "Submit", fast.SubmitRequest(items=[item(each) for each in ids]))
        except OSError:
            return False  # it is still starting
        return all(each.outcome in {1, 2} for each in answer.results)

    await holds(accepted, 20, what="core accepts")


async def succeeded(on: Channel, *ids: str) -> None:
    async def all_there() -> bool:
        views = [await call(on, "Get", fast.GetRequest(tenant="ann", generation_id=each)) for each in ids]
        return all(each.generation.status == SUCCEEDED for each in views)

    await holds(all_there, 2 * VISIBILITY_S + 12, what=f"{ids} succeed", every_s=0.1)


async def queues(of: CoreSettings) -> None:
    """Returns once core has made them."""
    async with aws.clients() as clients:
        jobs, replies = SqsQueue(clients.sqs, of.jobs_queue), SqsQueue(clients.sqs, of.replies_queue)

        async def made() -> bool:
            try:
                await jobs.depth()
                await replies.depth()
            except Retryable:
                return False
            return True

        await holds(made, 20, what="core makes the queues")


@asynccontextmanager
async def worker(of: CoreSettings) -> AsyncIterator[None]:
    await queues(of)
    async with aws.clients() as clients:
        jobs, replies = SqsQueue(clients.sqs, of.jobs_queue), SqsQueue(clients.sqs, of.replies_queue)
        temp = S3Bucket(clients.s3, of.temp_bucket)

        async def work() -> None:
            number = 0
            while True:
                for received in await jobs.receive(limit=10, wait_s=1, visibility_s=30):
                    number += 1
                    job = messages.decode(received.body)
                    assert isinstance(job, fast.ImageJob)
                    data = f"{job.image.generation_id}".encode()
                    reply = rendered(job, f"att_{number}", data)
                    digest = hashlib.sha256(data).digest()
                    await temp.put(reply.temp_key, data, content_type="image/png", sha256=digest)
                    both = [messages.encode(each) for each in (started(job, f"att_{number}"), reply)]
                    assert all(await replies.send([Outgoing(body=each) for each in both]))
                    await jobs.delete([received.receipt])

        async with asyncio.TaskGroup() as group:
            task = group.create_task(work(), name="worker")
            yield
            task.cancel()


@pytest.mark.usefixtures("emulator")
async def test_from_submission_to_public_object_and_again_after_a_restart(tmp_path: Path) -> None:
    of = settings(tmp_path / "core")
    async with serving(of) as on:
        await submit(on, "g1", "g2")
        async with worker(of):
            await succeeded(on, "g1", "g2")
        await submit(on, "g3")
    async with serving(of) as on, worker(of):
        await holds(lambda: _answers(on), 20)
        await succeeded(on, "g1", "g2", "g3")
        shown = (await call(on, "Get", fast.GetRequest(tenant="ann", generation_id="g3"))).generation
        async with aws.clients() as clients:
            public, temp = S3Bucket(clients.s3, of.public_bucket), S3Bucket(clients.s3, of.temp_bucket)
            stored = await public.head(shown.images[0].public_key)
            assert stored is not None
            assert (stored.sha256, stored.size_bytes) == (shown.images[0].sha256, shown.images[0].size_bytes)
            assert stored.content_type == "image/png"

            async def no_drafts() -> bool:
                return [key async for key in temp.keys("temp/")] == []

            await holds(no_drafts)


@pytest.mark.usefixtures("emulator")
async def test_a_purge_of_the_jobs_queue_costs_time_only(tmp_path: Path) -> None:
    of = settings(tmp_path / "core")
    async with serving(of) as on, aws.clients() as clients:
        ids = [f"g{number}" for number in range(20)]
        await submit(on, *ids)
        await queues(of)
        jobs = SqsQueue(clients.sqs, of.jobs_queue)

        async def all_out() -> bool:
            return (await jobs.depth()).visible == 20

        await holds(all_out)
        url = (await clients.sqs.get_queue_url(QueueName=of.jobs_queue))["QueueUrl"]
        await clients.sqs.purge_queue(QueueUrl=url)
        async with worker(of):
            await succeeded(on, *ids)


async def test_it_starts_without_queue_and_store_accepts_and_goes_on_when_they_come(port: int, tmp_path: Path) -> None:
    of = settings(tmp_path / "core")
    await begin_log(of.data_dir)
    (tmp_path / "emulator").mkdir()
    async with serving(of) as on:
        await submit(on, "g1")
        with ministack(tmp_path / "emulator", port):
            async with worker(of):
                await succeeded(on, "g1")


@pytest.mark.usefixtures("port")
async def test_a_second_core_on_one_log_and_a_taken_port_are_told(tmp_path: Path) -> None:
    of = settings(tmp_path / "core")
    await begin_log(of.data_dir)
    async with serving(of) as on:
        await submit(on, "g1")
        with pytest.raises(ConfigError, match="log"):
            await serve(of, Shutdown())
        other = settings(tmp_path / "other", core_port=of.core_port)
        await begin_log(other.data_dir)
        with pytest.raises(ConfigError, match="DARKROOM_CORE_PORT"):
            await serve(other, Shutdown())


async def _answers(on: Channel) -> bool:
    try:
        await call(on, "List", fast.ListRequest(tenant="ann"))
    except OSError:
        return False
    return True
