"""What every queue must do, whoever stands behind it: the fake, and the adapter over two emulators of SQS.

Where the emulators and AWS differ, the adapter evens it out or the suite leaves the point open and says so:
- A second delete: ministack refuses the receipt, moto and AWS accept; the adapter says "gone" for all.
- extend() after the visibility timeout ran out, before another delivery: ministack lets it through, AWS and moto
  say MessageNotInflight. Both answers are right for a consumer: nobody else holds the message when it is True.
- extend() with the receipt of an earlier delivery: moto honours it, AWS promises it for the latest receipt only.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from infra.retry import Missing
from infra.sqs import Depth, Outgoing, Received, SqsQueue
from tests.conformance.conftest import Backend
from tests.fakes import FakeQueue

Queue = SqsQueue | FakeQueue
MakeQueue = Callable[..., Awaitable[Queue]]
pytestmark = pytest.mark.asyncio


async def drain(queue: Queue, *, expect: int, visibility_s: int = 30) -> list[Received]:
    """Receives until `expect` messages came; a receive may bring fewer than it could."""
    got: list[Received] = []
    async with asyncio.timeout(10):
        while len(got) < expect:
            got.extend(await queue.receive(limit=10, wait_s=1, visibility_s=visibility_s))
    return got


async def test_a_message_arrives_as_it_was_sent(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    body = bytes(range(256)) * 3 + os.urandom(10)
    assert await queue.send([Outgoing(body=body, attributes={"traceparent": "00-ab-cd-01", "tracestate": ""})]) == [
        True
    ]
    (got,) = await drain(queue, expect=1)
    assert got.body == body
    assert dict(got.attributes) == {"traceparent": "00-ab-cd-01"}
    assert got.receive_count == 1
    assert got.sent_at_ms >= 0
    assert got.message_id


async def test_an_empty_send_sends_nothing(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    assert await queue.send([]) == []
    assert await queue.delete([]) == []
    assert await queue.extend([], 5) == []
    assert await queue.receive(limit=10, wait_s=0, visibility_s=5) == []


async def test_more_than_a_batch_is_split_and_all_arrive(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    bodies = {str(number).encode() for number in range(1, 24)}
    assert await queue.send([Outgoing(body=body) for body in sorted(bodies)]) == [True] * 23
    got = await drain(queue, expect=23)
    assert {message.body for message in got} == bodies
    assert await queue.delete([message.receipt for message in got]) == [True] * 23
    assert await queue.depth() == Depth(visible=0, in_flight=0)


async def test_large_messages_are_split_by_size(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    messages = [Outgoing(body=bytes([number]) * 240_000) for number in range(1, 6)]  # 320,000 each as base64
    assert await queue.send(messages) == [True] * 5
    got = await drain(queue, expect=5)
    assert sorted(message.body[0] for message in got) == [1, 2, 3, 4, 5]


async def test_receive_brings_at_most_what_was_asked_for(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    await queue.send([Outgoing(body=b"%d" % number) for number in range(5)])
    assert len(await queue.receive(limit=2, wait_s=1, visibility_s=30)) <= 2


async def test_a_received_message_is_hidden_and_comes_back_counted(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    await queue.send([Outgoing(body=b"x")])
    (first,) = await drain(queue, expect=1, visibility_s=2)
    assert await queue.receive(limit=10, wait_s=0, visibility_s=2) == []
    (second,) = await drain(queue, expect=1, visibility_s=30)
    assert second.message_id == first.message_id
    assert second.receive_count == 2
    assert second.receipt != first.receipt


async def test_extend_keeps_it_hidden_and_zero_shows_it_at_once(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    await queue.send([Outgoing(body=b"x")])
    (first,) = await drain(queue, expect=1, visibility_s=1)
    assert await queue.extend([first.receipt], 30) == [True]
    assert await queue.receive(limit=10, wait_s=2, visibility_s=1) == []
    assert await queue.extend([first.receipt], 0) == [True]
    (second,) = await drain(queue, expect=1)
    assert second.message_id == first.message_id


async def test_a_receipt_goes_stale_with_the_next_delivery(backend: Backend, make_queue: MakeQueue) -> None:
    queue = await make_queue()
    await queue.send([Outgoing(body=b"x")])
    (first,) = await drain(queue, expect=1, visibility_s=30)
    await queue.extend([first.receipt], 0)
    (second,) = await drain(queue, expect=1)
    honoured = backend.name == "moto"
    assert await queue.extend([first.receipt], 30) == [honoured]
    assert await queue.extend([second.receipt, first.receipt], 30) == [True, honoured]


async def test_a_second_delete_counts_as_gone(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    await queue.send([Outgoing(body=b"x"), Outgoing(body=b"y")])
    first, second = await drain(queue, expect=2)
    assert await queue.delete([first.receipt]) == [True]
    assert await queue.delete([first.receipt, second.receipt]) == [True, True]
    assert await queue.depth() == Depth(visible=0, in_flight=0)


async def test_extend_after_delete_says_no(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    await queue.send([Outgoing(body=b"x")])
    (got,) = await drain(queue, expect=1)
    await queue.delete([got.receipt])
    assert await queue.extend([got.receipt], 30) == [False]


async def test_depth_counts_waiting_and_in_flight(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    await queue.send([Outgoing(body=b"x"), Outgoing(body=b"y"), Outgoing(body=b"z")])
    await queue.receive(limit=1, wait_s=1, visibility_s=30)
    assert await queue.depth() == Depth(visible=2, in_flight=1)


async def test_a_long_poll_wakes_for_a_message(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    loop = asyncio.get_running_loop()
    waiting = asyncio.create_task(queue.receive(limit=1, wait_s=20, visibility_s=30), name="long-poll")
    await asyncio.sleep(0)
    begun = loop.time()
    await queue.send([Outgoing(body=b"x")])
    assert [message.body for message in await waiting] == [b"x"]
    assert loop.time() - begun < 10


async def test_too_many_deliveries_go_to_the_dead_letter_queue(backend: Backend, make_queue: MakeQueue) -> None:
    dead_name = f"dead-{os.urandom(8).hex()}"
    queue = await make_queue(dead_letter=dead_name, max_receives=2)
    dead = queue.dead if isinstance(queue, FakeQueue) else backend.queue(dead_name)
    assert dead is not None
    await queue.send([Outgoing(body=b"poison")])
    for _ in range(2):
        (got,) = await drain(queue, expect=1)
        await queue.extend([got.receipt], 0)
    assert await queue.receive(limit=1, wait_s=1, visibility_s=30) == []
    (letter,) = await drain(dead, expect=1)
    assert letter.body == b"poison"


async def test_ensure_twice_keeps_what_is_there(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    await queue.send([Outgoing(body=b"x")])
    await queue.ensure(visibility_s=7, dead_letter="other", max_receives=3)
    assert (await queue.depth()).visible == 1


async def test_a_missing_queue_is_retryable_and_used_again_once_it_is_made(backend: Backend) -> None:
    queue = backend.queue(f"queue-{os.urandom(8).hex()}")
    if not isinstance(queue, FakeQueue):
        with pytest.raises(Missing):
            await queue.depth()
    await queue.ensure(visibility_s=30)
    assert await queue.send([Outgoing(body=b"x")]) == [True]
    if not isinstance(queue, FakeQueue):
        await queue._client.delete_queue(QueueUrl=queue._url or "")
        with pytest.raises(Missing):
            await queue.send([Outgoing(body=b"y")])
        await queue.ensure(visibility_s=30)
        assert await queue.send([Outgoing(body=b"z")]) == [True]


async def test_a_foreign_body_is_handed_on_as_it_is(make_queue: MakeQueue) -> None:
    queue = await make_queue()
    if isinstance(queue, SqsQueue):
        await queue.depth()
        await queue._client.send_message(QueueUrl=queue._url or "", MessageBody="not base64 at all: {}")
        (got,) = await drain(queue, expect=1)
        assert got.body == b"not base64 at all: {}"
