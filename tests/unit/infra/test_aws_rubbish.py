"""Answers with 200 that are none: a proxy's page, half a document, a member too few. All of it may pass by itself."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from infra import aws
from infra.retry import Retryable
from infra.s3 import S3Bucket
from infra.sqs import Outgoing, SqsQueue
from tests.emulators import aws_environment

pytestmark = pytest.mark.asyncio
PAGE = ("text/html", "<html><body>Please sign in to the network, canary</body></html>")
HALF = ("application/xml", '<?xml version="1.0"?><CopyObjectResult><ETag>canary')
NO_DATE = ("application/xml", "<CopyObjectResult><LastModified>canary</LastModified></CopyObjectResult>")
JSON = "application/x-amz-json-1.0"
NOTHING = (JSON, "{}")
WRONG = (JSON, '{"QueueUrl": 5, "Messages": 7, "Attributes": [], "Successful": 3, "Failed": "no"}')
LIST = (JSON, "[1, 2]")
MEMBERLESS = (
    JSON,
    '{"Messages": [{"Body": "x"}], "Attributes": {"QueueArn": "a"}, "Failed": [{}], "Successful": [{}]}',
)


@dataclass(slots=True)
class Service:
    """A real HTTP server in the place of SQS and S3, which answers each action with what a test put there."""

    rubbish: dict[str, tuple[str, str]] = field(default_factory=dict)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        action = request.headers.get("X-Amz-Target", "").rpartition(".")[2] or request.method
        if action in self.rubbish:
            kind, text = self.rubbish[action]
            return web.Response(text=text, content_type=kind)
        if action == "GetQueueUrl":
            return web.Response(text=f'{{"QueueUrl": "{self.url}/1/q"}}', content_type=JSON)
        return web.Response(headers={"ETag": '"1"'})


@asynccontextmanager
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Service, SqsQueue, S3Bucket]]:
    stand_in = Service()
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", stand_in.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        for name, value in aws_environment(stand_in.url).items():
            monkeypatch.setenv(name, value)
        async with aws.clients() as clients:
            yield stand_in, SqsQueue(clients.sqs, "q"), S3Bucket(clients.s3, "b")
    finally:
        await runner.cleanup()


async def is_retryable(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(Retryable) as caught:
        await call()
    assert "canary" not in str(caught.value)


async def test_a_queue_that_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(monkeypatch) as (stand_in, queue, _):
        for rubbish in (PAGE, NOTHING, LIST):
            stand_in.rubbish = {"GetQueueUrl": rubbish, "CreateQueue": rubbish, "GetQueueAttributes": rubbish}
            await is_retryable(lambda: queue.receive(limit=1, wait_s=0, visibility_s=30))
            await is_retryable(lambda: queue.send([Outgoing(body=b"x")]))
            await is_retryable(queue.depth)
            await is_retryable(lambda: queue.ensure(visibility_s=30, dead_letter="dead"))


async def test_a_queue_that_answers_rubbish(monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(monkeypatch) as (stand_in, queue, _):
        for rubbish in (PAGE, LIST, WRONG, MEMBERLESS):
            stand_in.rubbish = {"ReceiveMessage": rubbish, "GetQueueAttributes": rubbish}
            await is_retryable(lambda: queue.receive(limit=1, wait_s=0, visibility_s=30))
            await is_retryable(queue.depth)


async def test_entries_without_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(monkeypatch) as (stand_in, queue, _):
        batches = ("SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch")
        stand_in.rubbish = dict.fromkeys(batches, MEMBERLESS)
        await is_retryable(lambda: queue.send([Outgoing(body=b"x")]))
        await is_retryable(lambda: queue.delete(["r"]))
        await is_retryable(lambda: queue.extend(["r"], 30))


async def test_a_page_is_no_word_that_something_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(monkeypatch) as (stand_in, queue, _):
        stand_in.rubbish = dict.fromkeys(("DeleteMessageBatch", "ChangeMessageVisibilityBatch"), PAGE)
        await is_retryable(lambda: queue.delete(["r"]))
        await is_retryable(lambda: queue.extend(["r"], 30))


async def test_a_copy_with_half_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(monkeypatch) as (stand_in, _, bucket):
        for rubbish in (HALF, NO_DATE, PAGE):
            stand_in.rubbish = {"PUT": rubbish}
            await is_retryable(lambda: bucket.copy_from(bucket, "from", "to", content_type="image/png"))


async def test_a_list_with_half_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def listed(bucket: S3Bucket) -> list[str]:
        return [key async for key in bucket.keys("")]

    async with service(monkeypatch) as (stand_in, _, bucket):
        kind = "application/xml"
        for text in (
            "<ListBucketResult><Contents><Key>k</Key></Con",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
            "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
        ):
            stand_in.rubbish = {"GET": (kind, text)}
            await is_retryable(lambda: listed(bucket))
