"""The adapter of SQS where the queue does half of what it is asked for. Whole calls: `crash/test_queue_faults.py`."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from infra import aws
from infra.retry import Permanent, Retryable
from infra.sqs import Outgoing, SqsQueue
from tests import fault_actions as a
from tests.emulators import aws_environment, ministack
from tests.fault_cloud import FaultyCloud, Rule

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyCloud]:
    with ministack(tmp_path_factory.mktemp("emulator")) as url, FaultyCloud(int(url.rpartition(":")[2])) as each:
        yield each


@pytest.fixture(autouse=True)
def environment(cloud: FaultyCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.calls.clear()
    for name, value in aws_environment(cloud.url).items():
        monkeypatch.setenv(name, value)


async def test_an_entry_that_cannot_be_extended_holds_up_none_of_the_others(cloud: FaultyCloud) -> None:
    """Else the same entry, at every heartbeat, would let those behind it go to other workers."""
    async with aws.clients() as clients:
        queue = SqsQueue(clients.sqs, "half")
        await queue.ensure(visibility_s=30)
        assert all(await queue.send([Outgoing(body=b"%d" % number) for number in range(25)]))
        receipts: list[str] = []
        while len(receipts) < 25:
            receipts += [each.receipt for each in await queue.receive(limit=10, wait_s=1, visibility_s=30)]
        once = Rule("ChangeMessageVisibilityBatch", a.some_failed(1), times=1)
        with cloud.faulty(once), pytest.raises(Retryable, match="1 of 25 entries"):
            await queue.extend(receipts, 0)
        assert once.hits == 1
        depth = await queue.depth()
        assert (depth.visible, depth.in_flight) == (24, 1)


async def test_a_queue_that_does_not_wait_is_not_asked_again_at_once(cloud: FaultyCloud) -> None:
    """A proxy that ignores WaitTimeSeconds; 164 calls a second before."""
    loop = asyncio.get_running_loop()
    async with aws.clients() as clients:
        queue = SqsQueue(clients.sqs, "hasty")
        await queue.ensure(visibility_s=30)
        with cloud.faulty(Rule("ReceiveMessage", a.empty)):
            begun_s = loop.time()
            assert await queue.receive(limit=10, wait_s=1, visibility_s=30) == []
            assert loop.time() - begun_s >= 0.9, "no earlier than asked for"
            begun_s = loop.time()
            assert await queue.receive(limit=10, wait_s=20, visibility_s=30) == []
            assert loop.time() - begun_s >= 2.5
            assert await queue.receive(limit=10, wait_s=0, visibility_s=30) == []
        assert cloud.calls["ReceiveMessage"] == 3


async def test_messages_are_never_held_back(cloud: FaultyCloud) -> None:
    async with aws.clients() as clients:
        queue = SqsQueue(clients.sqs, "busy")
        await queue.ensure(visibility_s=30)
        assert all(await queue.send([Outgoing(body=b"%d" % number) for number in range(30)]))
        async with asyncio.timeout(5):
            got = 0
            while got < 30:
                got += len(await queue.receive(limit=10, wait_s=20, visibility_s=30))


@pytest.mark.parametrize("code", ["OverLimit", "Throttling", "RequestThrottled"])
async def test_a_throttled_queue_is_asked_once_by_all_together(cloud: FaultyCloud, code: str) -> None:
    """Each loop has a back-off of its own, and asked for the URL again besides."""

    async def ask(queue: SqsQueue) -> None:
        while True:
            with contextlib.suppress(Retryable):
                await queue.receive(limit=10, wait_s=1, visibility_s=30)

    async with aws.clients() as clients:
        queues = [SqsQueue(clients.sqs, f"throttled-{number}") for number in range(10)]
        for queue in queues:
            await queue.ensure(visibility_s=30)
        cloud.calls.clear()
        with cloud.faulty(Rule("ReceiveMessage", a.refused(403, code)), Rule("GetQueueUrl", a.refused(403, code))):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(4), asyncio.TaskGroup() as group:
                    for queue in queues:
                        group.create_task(ask(queue))
            assert cloud.calls["GetQueueUrl"] == 0
            assert len(queues) <= cloud.calls.total() <= len(queues) + 12
        async with asyncio.timeout(10):
            await queues[0].depth()


async def test_a_queue_that_cannot_be_looked_up_is_not_made(cloud: FaultyCloud) -> None:
    """Only one that is missing is: the rest would be refused as well."""
    async with aws.clients() as clients:
        queue = SqsQueue(clients.sqs, "unknown")
        with cloud.faulty(Rule("GetQueueUrl", a.refused(400, "AccessDeniedException"))), pytest.raises(Permanent):
            await queue.ensure(visibility_s=30)
        with cloud.faulty(Rule("GetQueueUrl", a.refused(403, "OverLimit"))), pytest.raises(Retryable):
            await queue.ensure(visibility_s=30)
        assert cloud.calls["CreateQueue"] == 0
