"""A jobs queue, a replies queue and a store in this process, for benchmarks of the worker.

They keep the ports' contract (long polls, visibility, verified digests); their latencies are arguments. Nothing here
grows with the number of images.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256 as sha256_of
from itertools import islice

from infra.clock import wall_ms
from infra.retry import Permanent
from infra.sqs import Received
from worker.ports import Reply

PREFETCH = 10
"""Messages taken from the supply at a time: each counts as sent when it is taken."""


class MemoryJobs:
    """`worker.ports.JobQueue` fed from an iterator; each call takes `call_s`. While `withheld` is set, receives find
    nothing.
    """

    def __init__(self, call_s: float) -> None:
        self._call_s = call_s
        self.withheld = False
        self._supply: Iterator[bytes] = iter(())
        self._visible: deque[Received] = deque()
        self._hidden: dict[str, tuple[Received, float]] = {}
        self._made = 0
        self._changed = asyncio.Event()

    def feed(self, bodies: Iterable[bytes]) -> None:
        """Appends messages to the supply. The queue is refilled from it at once, up to PREFETCH visible ones."""
        rest = self._supply
        self._supply = (body for part in (rest, bodies) for body in part)
        self._refill()
        self._wake()

    def release(self) -> None:
        """Withhold no longer."""
        self.withheld = False
        self._wake()

    def left(self) -> int:
        """Messages not deleted, of those that were taken from the supply."""
        return len(self._visible) + len(self._hidden)

    async def changed(self) -> None:
        """Returns at the next deletion or feeding."""
        await self._changed.wait()

    async def receive(self, *, limit: int, wait_s: int, visibility_s: int) -> Sequence[Received]:
        """As the port says."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        await asyncio.sleep(self._call_s)
        while self.withheld or not self._ready():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                return []
        taken = [self._visible.popleft() for _ in range(min(limit, PREFETCH, len(self._visible)))]
        received = [self._again(each) for each in taken]
        self._hidden.update((each.receipt, (each, loop.time() + visibility_s)) for each in received)
        self._refill()
        return received

    async def extend(self, receipts: Sequence[str], visibility_s: int) -> Sequence[bool]:
        """As the port says."""
        await asyncio.sleep(self._call_s)
        until_s = asyncio.get_running_loop().time() + visibility_s
        known = [receipt in self._hidden for receipt in receipts]
        for receipt in receipts:
            if receipt in self._hidden:
                self._hidden[receipt] = (self._hidden[receipt][0], until_s)
        self._wake()
        return known

    async def delete(self, receipts: Sequence[str]) -> Sequence[bool]:
        """As the port says."""
        await asyncio.sleep(self._call_s)
        for receipt in receipts:
            self._hidden.pop(receipt, None)
        self._wake()
        return [True] * len(receipts)

    def _ready(self) -> bool:
        now_s = asyncio.get_running_loop().time()
        for receipt in [receipt for receipt, (_, until_s) in self._hidden.items() if until_s <= now_s]:
            self._visible.append(self._hidden.pop(receipt)[0])
        return bool(self._visible)

    def _refill(self) -> None:
        for body in islice(self._supply, max(0, PREFETCH - len(self._visible))):
            self._made += 1
            name = f"m{self._made}"
            now_ms = wall_ms()
            self._visible.append(
                Received(message_id=name, receipt=name, body=body, attributes={}, receive_count=0, sent_at_ms=now_ms)
            )

    @staticmethod
    def _again(message: Received) -> Received:
        count = message.receive_count + 1
        return Received(
            message_id=message.message_id,
            receipt=f"{message.message_id}-{count}",
            body=message.body,
            attributes=message.attributes,
            receive_count=count,
            sent_at_ms=message.sent_at_ms,
        )

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class MemoryReplies:
    """`worker.ports.ReplyQueue`: hands every accepted message to `accept`; each call takes `call_s`."""

    def __init__(self, call_s: float, accept: Callable[[bytes], None]) -> None:
        self._call_s = call_s
        self._accept = accept

    async def send(self, messages: Sequence[Reply]) -> Sequence[bool]:
        """As the port says."""
        await asyncio.sleep(self._call_s)
        for message in messages:
            self._accept(message.body)
        return [True] * len(messages)


class MemoryStore:
    """`worker.ports.TempStore` that takes `latency_s` for each picture, any number at a time, and hands it to
    `accept(key, data)`. A stopped store takes nothing until it goes on.
    """

    def __init__(self, latency_s: float, accept: Callable[[str, bytes], None]) -> None:
        self._latency_s = latency_s
        self._accept = accept
        self._going = asyncio.Event()
        self._going.set()

    def stop(self) -> None:
        """Calls hang from now on."""
        self._going.clear()

    def go_on(self) -> None:
        """Calls that hang are answered."""
        self._going.set()

    async def put(self, key: str, data: bytes, *, content_type: str, sha256: bytes) -> None:  # noqa: ARG002
        """As the port says."""
        await self._going.wait()
        await asyncio.sleep(self._latency_s)
        if sha256_of(data).digest() != sha256:
            raise Permanent("put: BadDigest")
        self._accept(key, data)
