"""The adapter of SQS where the queue does half of what it is asked for. Whole calls: `crash/test_queue_faults.py`."""

from collections.abc import Iterator

import pytest

from infra import aws
from infra.retry import Retryable
from infra.sqs import Outgoing, SqsQueue
from tests import fault_actions as a
from tests.emulators import aws_environment, ministack
from tests.fault_cloud import FaultyCloud, Rule

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyCloud]:
    with ministack(tmp_path_factory.mktemp("emulator")) as url, FaultyCloud(int(url.rpartition(":")[2])) as each:
        yield each


async def test_an_entry_that_cannot_be_extended_holds_up_none_of_the_others(
    cloud: FaultyCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the same entry, at every heartbeat, would let those behind it go to other workers."""
    for name, value in aws_environment(cloud.url).items():
        monkeypatch.setenv(name, value)
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
