"""A queue and a bucket in memory, with the interfaces of `infra.sqs.SqsQueue` and `infra.s3.S3Bucket`.

Both pass the conformance suites in tests/conformance. Time is the running loop's, so they work under a virtual-time
loop. They are bounded and refuse what exceeds the bound, as a full service would. Attributes switch faults on and off.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256 as sha256_of

from infra.retry import Permanent, Retryable
from infra.s3 import StoredObject, StoredPiece
from infra.sqs import Depth, Outgoing, Received


@dataclass(slots=True, kw_only=True)
class _Message:
    message_id: str
    body: bytes
    attributes: dict[str, str]
    sent_at: float
    visible_at: float
    receive_count: int = 0
    receipt: str = ""


class FakeQueue:
    """At-least-once, first in first out among visible messages; receipts go stale with the next delivery.

    Faults: `unreachable` makes every call raise Retryable; `refuse` answers False to that many sends.
    """

    def __init__(self, name: str = "queue", *, capacity: int = 100_000) -> None:
        self.name = name
        self.capacity = capacity
        self.unreachable = False
        self.refuse = 0
        self.dead: FakeQueue | None = None
        self.max_receives = 30
        self._messages: dict[str, _Message] = {}
        self._made = 0
        self._changed = asyncio.Event()

    async def send(self, messages: Sequence[Outgoing]) -> list[bool]:
        await self._arrive()
        accepted = [self._accept(message) for message in messages]
        self._changed.set()
        return accepted

    async def receive(self, *, limit: int, wait_s: int, visibility_s: int) -> list[Received]:
        await self._arrive()
        deadline = _now() + wait_s
        while not (visible := self._visible()):
            self._changed.clear()
            hidden = [message.visible_at for message in self._messages.values()]
            wake_at = min([deadline, *hidden])
            if _now() >= deadline:
                return []
            try:
                async with asyncio.timeout_at(wake_at):
                    await self._changed.wait()
            except TimeoutError:
                pass
            await self._arrive()
        return [self._deliver(message, visibility_s) for message in visible[: min(limit, 10)]]

    async def delete(self, receipts: Sequence[str]) -> list[bool]:
        await self._arrive()
        for message in self._of(receipts):
            if message is not None:
                del self._messages[message.message_id]
        return [True] * len(receipts)

    async def extend(self, receipts: Sequence[str], visibility_s: int) -> list[bool]:
        await self._arrive()
        found = list(self._of(receipts))
        for message in found:
            if message is not None:
                message.visible_at = _now() + visibility_s
        self._changed.set()
        return [message is not None for message in found]

    async def depth(self) -> Depth:
        await self._arrive()
        visible = len(self._visible())
        return Depth(visible=visible, in_flight=len(self._messages) - visible)

    async def ensure(self, *, visibility_s: int, dead_letter: str | None = None, max_receives: int = 30) -> None:
        await self._arrive()
        self.max_receives = max_receives
        if dead_letter is not None and self.dead is None:
            self.dead = FakeQueue(dead_letter)

    def purge(self) -> None:
        """Loses every message, as a purge or a killed emulator does."""
        self._messages.clear()

    async def _arrive(self) -> None:
        await asyncio.sleep(0)
        if self.unreachable:
            raise Retryable(f"{self.name}: unreachable")

    def _accept(self, message: Outgoing) -> bool:
        if self.refuse > 0 or len(self._messages) >= self.capacity:
            self.refuse = max(0, self.refuse - 1)
            return False
        self._made += 1
        attributes = {name: value for name, value in message.attributes.items() if value}
        made = _Message(
            message_id=f"{self.name}-{self._made}",
            body=message.body,
            attributes=attributes,
            sent_at=_now(),
            visible_at=_now(),
        )
        self._messages[made.message_id] = made
        return True

    def _visible(self) -> list[_Message]:
        visible = []
        for message in list(self._messages.values()):
            if message.visible_at > _now():
                continue
            if self.dead is not None and message.receive_count >= self.max_receives:
                del self._messages[message.message_id]
                self.dead._messages[message.message_id] = message
            else:
                visible.append(message)
        return visible

    def _deliver(self, message: _Message, visibility_s: int) -> Received:
        self._made += 1
        message.receive_count += 1
        message.receipt = f"receipt-{self._made}"
        message.visible_at = _now() + visibility_s
        return Received(
            message_id=message.message_id,
            receipt=message.receipt,
            body=message.body,
            attributes=dict(message.attributes),
            receive_count=message.receive_count,
            sent_at_ms=int(message.sent_at * 1000),
        )

    def _of(self, receipts: Iterable[str]) -> list[_Message | None]:
        by_receipt = {message.receipt: message for message in self._messages.values() if message.receipt}
        return [by_receipt.get(receipt) for receipt in receipts]


@dataclass(slots=True, kw_only=True)
class FakeBucket:
    """Objects in a dict. Faults: `unreachable` makes every call raise Retryable, as a put into a full bucket does.
    Deleting a key in `stubborn` raises Permanent.
    """

    name: str = "bucket"
    capacity: int = 10_000
    unreachable: bool = False
    stubborn: set[str] = field(default_factory=set)
    objects: dict[str, tuple[bytes, StoredObject]] = field(default_factory=dict)

    async def put(self, key: str, data: bytes, *, content_type: str, sha256: bytes) -> None:
        await self._arrive()
        if sha256_of(data).digest() != sha256:
            raise Permanent("put: BadDigest")
        if len(self.objects) >= self.capacity and key not in self.objects:
            raise Retryable("put: full")
        stored = StoredObject(key=key, size_bytes=len(data), sha256=sha256, content_type=content_type)
        self.objects[key] = (data, stored)

    async def get(self, key: str) -> bytes | None:
        await self._arrive()
        return self.objects[key][0] if self.sees(key) else None

    async def read(self, key: str, *, first: int, last: int, tag: str = "") -> StoredPiece | None:
        await self._arrive()
        if key not in self.objects:
            return None
        data, stored = self.objects[key]
        now = f'"{sha256_of(data).hexdigest()[:32]}"'
        if tag and tag != now:
            raise Retryable("read: PreconditionFailed")
        if first >= len(data):
            raise Permanent("read: InvalidRange")
        return StoredPiece(data=data[first : last + 1], total_bytes=len(data), tag=now, sha256=stored.sha256)

    async def head(self, key: str) -> StoredObject | None:
        await self._arrive()
        return self.objects[key][1] if self.sees(key) else None

    async def copy_from(self, source: "FakeBucket", source_key: str, key: str, *, content_type: str) -> bool:
        await self._arrive()
        await source._arrive()
        if not source.sees(source_key):
            return False
        data, stored = source.objects[source_key]
        copy = StoredObject(key=key, size_bytes=len(data), sha256=stored.sha256, content_type=content_type)
        self.objects[key] = (data, copy)
        return True

    def sees(self, key: str) -> bool:
        """Whether the object is there, as far as this store can tell now."""
        return key in self.objects

    async def delete(self, keys: Sequence[str]) -> None:
        await self._arrive()
        if self.stubborn.intersection(keys):
            raise Permanent(f"delete {self.name}: AccessDenied")
        for key in keys:
            self.objects.pop(key, None)

    async def link(self, key: str, *, expires_s: int) -> str:
        return f"memory://{self.name}/{key}?expires={expires_s}"

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        await self._arrive()
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield key

    async def ensure(self, *, expire_days: int = 0) -> None:
        await self._arrive()

    async def _arrive(self) -> None:
        await asyncio.sleep(0)
        if self.unreachable:
            raise Retryable(f"{self.name}: unreachable")


@dataclass(slots=True)
class FakeErasures:
    """The list of erasures in memory. Faults: `unreachable` makes every call raise Retryable."""

    ids: list[str] = field(default_factory=list)
    unreachable: bool = False

    async def note(self, generation_ids: Sequence[str]) -> None:
        await self._arrive()
        self.ids.extend(generation_ids)

    async def noted(self, *, fresh: bool) -> AsyncIterator[Sequence[str]]:
        await self._arrive()
        if self.ids:
            yield list(self.ids)

    async def _arrive(self) -> None:
        await asyncio.sleep(0)
        if self.unreachable:
            raise Retryable("list of erasures: unreachable")


def _now() -> float:
    return asyncio.get_running_loop().time()
